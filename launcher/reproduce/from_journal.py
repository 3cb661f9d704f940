"""A job that is run again from its run's journal.

Rule: it comes from the controller's own journal (`launcher.runs.ownership`), with the same bytes that its host got.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from launcher import events
from launcher.errors import UsageError
from launcher.reproduce.compare import recorded_outcome
from launcher.reproduce.target import Target, decoder_of
from launcher.results.job_returns import environment_of
from launcher.runs import index, ownership
from launcher.runs import record as run_record
from launcher.runs.journal import FOLDER, JournalReader
from launcher.runs.record import RunRecord
from launcher.setup.from_journal import load_setup
from launcher.setup.kinds.again import HydraAgain, PlainAgain
from launcher.setup.kinds.hydra import HydraSetup
from launcher.setup.kinds.run_setup import RunSetup
from remote_agent.callbacks.base import CONTROLLER_HOOKS
from remote_agent.protocol.specs.zygote import Command

__all__ = ["holds_journal", "recorded", "recorded_at"]


def recorded_at(folder: Path, env: Mapping[str, str] | None, results: str) -> Target | None:
    """Return the recorded job whose output directory this is.

    `folder` is resolved. Only what we wrote counts as a record.
    """
    for parent in (folder, *folder.parents):
        if not holds_journal(parent) or not ownership.is_ours(parent):
            continue
        num = _num_of(parent, folder)
        if num is not None:
            return recorded(index.find(parent), num, env, results)
    return None


def holds_journal(folder: Path) -> bool:
    """Whether a run has its journal in this folder."""
    return (folder / FOLDER / "journal.sqlite").is_file()


def _num_of(run_folder: Path, folder: Path) -> int | None:
    """Return the number of the job whose output directory this is, even if the run has been moved since."""
    with JournalReader(run_folder / FOLDER) as reader:
        began = reader.last_event("run_started")
        began_in = Path(began.folder) if isinstance(began, events.RunStarted) else run_folder
        last = reader.last_num()
        for num in range(0 if last is None else last + 1):
            job = reader.job_without_payload(num)
            if job is None:
                continue
            path = Path(job[1])
            moved = run_folder / path.relative_to(began_in) if path.is_relative_to(began_in) else path
            if folder in (moved.resolve(), path.resolve()):
                return num
    return None


def recorded(entry: index.Entry, num: int, env: Mapping[str, str] | None, results: str) -> Target:
    """Return a job of a run that is known to be ours.

    Args:
        env: values of the job's variables. Others are taken from the environment.
        results: the policy for decoding the recorded value to compare it.

    Raises:
        UsageError: there is no such job, or it was never sent.
        RunError: the record of the run cannot be read.
    """
    setup, record = load_setup(entry.folder, env=env, needs_env=False)
    with JournalReader(entry.folder / FOLDER) as reader:
        job = reader.job(num)
        if job is None:
            raise UsageError(
                f"run {record.run} has no job {num}; 'launcher show {record.run} --all' lists those that it has"
            )
        overrides, _, payload, spec = job
        if not payload:
            raise UsageError(f"job {num} of run {record.run} was never sent, because its config could not be made")
        before = recorded_outcome(reader, num, decoder_of(setup, results))
        host, environment = _where(reader, num)
        taken_from, ran = _taken_from(reader, num)
        shared = reader.blob("shared") or b""
    again = dataclasses.replace(_again_of(setup, record, payload, overrides, shared), needs=spec.needs)
    values = {**os.environ, **(env or {})}
    names = run_record.variables(record)
    missing = [name for name in names if name not in values]
    notes = [f"variables that the job had are not set here: {', '.join(missing)}"] if missing else []
    known = {name: values[name] for name in names if name in values}
    if taken_from:
        notes.append(
            f"the job was taken over from {taken_from}; what its callbacks and its task are is as run {record.run} has it"
        )
        if again.snapshot is not None and again.snapshot.hash != ran:
            # The code that it ran is not that of this run.
            again = dataclasses.replace(again, snapshot=None)
    lock = setup.locks.get(host)
    return Target(f"{record.run}#{num}", again, before, known, notes, lock=lock, environment=environment)


def _taken_from(reader: JournalReader, num: int) -> tuple[str, str]:
    """Return the job of an earlier run that this one is, with the hash of the code that it ran; empty if it ran in its own run."""
    for _, event in reader.events(num=num):
        if isinstance(event, events.JobTakenOver):
            stored = reader.result(num, event.attempt)
            return f"{event.of_run}#{event.of_num}", str(
                stored.envelope.code.get("hash", "")
            ) if stored is not None else ""
    return "", ""


def _where(reader: JournalReader, num: int) -> tuple[str, str]:
    """Return the host of a job that has returned, and the key of its environment there; empty for none."""
    event = reader.returned(num)
    if event is None:
        return "", ""
    stored = reader.result(num, event.attempt)
    return event.host, environment_of(stored.envelope.code) if stored is not None else ""


def _again_of(
    setup: RunSetup, record: RunRecord, payload: bytes, overrides: tuple[str, ...], shared: bytes
) -> PlainAgain | HydraAgain:
    values = {field.name: getattr(setup, field.name) for field in dataclasses.fields(RunSetup)}
    values.update(
        mode="RUN",
        run_id=index.new_run_id(),
        first_num=0,
        fired_elsewhere=frozenset(CONTROLLER_HOOKS),
        payload=payload,
        overrides=overrides,
        shared=shared,
        by_value=record.by_value,
        started_in=record.cwd,
        started_as=_started_as(record),
        asked_as=_asked_as(record) or setup.codec,
        earlier=setup.folder / FOLDER,
        preferred=_preferred(record),
    )
    return HydraAgain(**values) if isinstance(setup, HydraSetup) else PlainAgain(**values)


def _started_as(record: RunRecord) -> Command | None:
    for told in record.zygotes.values():
        return told.command
    return None


def _preferred(record: RunRecord) -> tuple[int, ...]:
    for told in record.zygotes.values():
        return tuple(told.controller.python)
    return ()


def _asked_as(record: RunRecord) -> str:
    """Return how its hosts were asked for values. Older versions always asked for pickles."""
    for told in record.zygotes.values():
        return told.values or "cloudpickle"
    return ""
