"""Journals of runs that never were: as the controller would have written them, with the values that a test wants.

Rule: they are written by the product's own writer, so that what reads them reads what a run leaves.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher import events
from launcher.runs import index
from launcher.runs.index import Entry
from launcher.runs.journal import FOLDER, Journal, StoredResult
from launcher.tables.table import Table, read_table
from remote_agent.protocol.result_parts import PICKLED, PLAIN, ResultParts
from remote_agent.shared.plain_value import encode
from tests.specs import envelope, job_spec

__all__ = ["START", "MadeJob", "failure", "make_run", "table_of"]

#: When the runs began.
START = 1_700_000_000.0
TRACEBACK = """Traceback (most recent call last):
  File "/home/u/code/my_app.py", line 7, in train
    return 1 / cfg.lr
ZeroDivisionError: division by zero
"""


def failure(kind: str = "exception", **fields: Any) -> dict[str, Any]:
    """The error of a failed job."""
    known = {"type": "ZeroDivisionError", "message": "division by zero", "traceback": TRACEBACK}
    return {"kind": kind, **known, "exit_code": None, "signal": None, "causes": [], **fields}


@dataclass
class MadeJob:
    """A job. `state` is waiting, assigned, running, COMPLETED or FAILED; times are seconds after the begin of the run.

    Attributes:
        data: the bytes of the value; its plain form unless it is said.
        earlier: hosts that had an attempt at it before and were given up.
    """

    overrides: Sequence[str] = ()
    value: Any = None
    state: str = "COMPLETED"
    host: str = "gpu1"
    slot: int = 0
    begin: float = 1.0
    duration: float = 2.0
    error: dict[str, Any] | None = None
    data: bytes | None = None
    codec: str = PLAIN
    hooks: list[dict[str, Any]] = field(default_factory=list)
    earlier: tuple[str, ...] = ()
    used: dict[str, Any] | None = None


def make_run(
    folder: Path,
    jobs: Iterable[MadeJob],
    *,
    run: str = "20231114-221320-made",
    results: str = "trusted",
    end: str = "ended",
    slots: int = 2,
    setup: dict[str, Any] | None = None,
    happened: Iterable[events.Event] = (),
) -> Entry:
    """Write the journal of a run into a folder.

    Args:
        end: `ended`, `detached` or empty, for a run whose controller died.
        setup: what the record of the run has besides.
        happened: further events, which come before the jobs'.
    """
    jobs = list(jobs)
    hosts = sorted({job.host for job in jobs} | {host for job in jobs for host in job.earlier}) or ["gpu1"]
    journal = Journal(folder / FOLDER)
    journal.put_meta(
        run=run, mode="MULTIRUN", task_name="train", started=str(START), hosts=json.dumps(hosts), results=results,
        total=str(len(jobs)), **({} if setup is None else {"record": "1", "setup": json.dumps(_setup(hosts, setup))}),
    )  # fmt: skip
    told: list[tuple[float, list[events.Event]]] = [
        (0.0, [events.RunStarted(START, run, "MULTIRUN", str(folder), tuple(hosts))]),
        (0.5, [events.HostReady(START + 0.5, host, slots, "3.11.7") for host in hosts]),
        (0.6, list(happened)),
    ]
    for num, job in enumerate(jobs):
        journal.put_job(num, tuple(job.overrides), str(folder / str(num)), b"", job_spec(num))
        told += _events_of(num, job)
        if job.state in ("COMPLETED", "FAILED"):
            journal.put_result(_result(num, job))
    latest = max((job.begin + job.duration for job in jobs), default=1.0) + 1.0
    completed = sum(job.state == "COMPLETED" for job in jobs)
    if end == "ended":
        told.append((latest, [events.RunEnded(START + latest, run, completed, len(jobs) - completed)]))
    elif end == "detached":
        told.append((latest, [events.RunDetached(START + latest, run, "asked")]))
    told.sort(key=lambda one: one[0])
    journal.append([event for _, group in told for event in group])
    journal.close()
    return Entry(run, folder, START, "MULTIRUN", "train")


def _setup(hosts: list[str], more: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "plain_app", "first_num": 0, "main_module": None, "task": None, "root": None, "config_name": None, "code": None,
        "options": {"forward_env": []}, "env": [], "hosts": [{"name": host, "env": [], "setup": []} for host in hosts],
        "fired_elsewhere": [], "argv": [], "cwd": "/", "sys_path": [], "python": [3, 11, 7], "callback_specs": {}, **more,
    }  # fmt: skip


def _events_of(num: int, job: MadeJob) -> list[tuple[float, list[events.Event]]]:
    last = len(job.earlier) + 1
    begin, end = START + job.begin, START + job.begin + job.duration
    told: list[tuple[float, list[events.Event]]] = [(0.7, [events.JobQueued(START + 0.7, num, tuple(job.overrides))])]
    for attempt, host in enumerate(job.earlier, 1):
        at = 0.8 + attempt / 100
        told.append(
            (
                at,
                [
                    events.JobAssigned(START + at, num, attempt, host),
                    events.AttemptStarted(START + at, num, attempt, host, job.slot, START + at),
                    events.JobRequeued(START + at + 0.005, num, attempt, host, "the host was lost"),
                ],
            )
        )
    if job.state == "waiting":
        return told
    told.append((job.begin - 0.05, [events.JobAssigned(begin - 0.05, num, last, job.host)]))
    if job.state == "assigned":
        return told
    told.append((job.begin, [events.AttemptStarted(begin, num, last, job.host, job.slot, begin)]))
    if job.state in ("COMPLETED", "FAILED"):
        error = None if job.state == "COMPLETED" else (job.error or failure())
        told.append(
            (
                job.begin + job.duration,
                [
                    events.AttemptEnded(
                        end, num, last, job.host, job.state, job.duration, error, resources_used=job.used
                    ),
                    events.JobReturned(
                        end + 0.02,
                        num,
                        last,
                        job.host,
                        job.state,
                        job.duration,
                        error,
                        tuple(job.overrides),
                        resources_used=job.used,
                    ),
                ],
            )
        )
    return told


def _result(num: int, job: MadeJob) -> StoredResult:
    data = job.data
    if data is None:
        data = encode(job.value) if job.codec == PLAIN else pickle.dumps(job.value)
    part = {"offset": 0, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    said: dict[str, Any] = {"value": part, "codec": job.codec}
    if job.codec == PICKLED:
        # Its plain form comes beside the pickle.
        plain = encode(job.value)
        said["plain"] = {"offset": len(data), "size": len(plain), "sha256": hashlib.sha256(plain).hexdigest()}
        data += plain
    is_failed = job.state == "FAILED"
    about = envelope(
        status=job.state,
        error=(job.error or failure()) if is_failed else None,
        started_at=START + job.begin,
        ended_at=START + job.begin + job.duration,
        duration=job.duration,
        task_name="train",
        hooks=job.hooks,
    )
    return StoredResult(num, len(job.earlier) + 1, job.host, about, ResultParts.from_json(said), data, None)


def table_of(folder: Path, jobs: Iterable[MadeJob], **how: Any) -> Table:
    """The table of such a run."""
    return read_table(make_run(folder, jobs, **how))


def listed(entry: Entry) -> Entry:
    """The same run, in the user's index, so that commands find it by its id."""
    index.add(entry)
    return entry
