"""The status of a run, read only from its journal: for people, and as plain data for programs.

Rule: nothing is decoded, and no host is asked. The status can be read while another process drives the run. It does not guess what
only the hosts know, such as whether a job of a detached run has ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher import events
from launcher.runs.index import Entry
from launcher.runs.journal_format import FOLDER
from launcher.runs.journal_lock import driver_of
from launcher.runs.journal_reader import JournalReader
from launcher.util.exhaustive import assert_never
from launcher.util.frozen import frozen
from launcher.util.text.terminal_text import clean, clean_all
from remote_agent.job import ResourcesUsed
from remote_agent.protocol.report import Value

__all__ = ["AttemptStatus", "JobStatusLine", "RunStatus", "driver", "read_jobs", "read_status"]

#: The version of what `to_json` returns.
VERSION = 1


@frozen
class RunStatus:
    """The status of a whole run.

    Attributes:
        state: `running` (a controller drives it), `detached` (it was left to its hosts), `died` (its controller ended
            without a trace), `completed`, `failed` (at least one job failed), `interrupted`, `gone` (its journal is gone).
        driver: the process that drives it, as `pid N`; empty if there is none.
    """

    run: str
    folder: Path
    state: str
    started: float
    mode: str = ""
    task: str = ""
    hosts: tuple[str, ...] = ()
    jobs: int = 0
    completed: int = 0
    failed: int = 0
    driver: str = ""
    ended: float | None = None
    kinds: dict[str, int] = field(default_factory=dict)
    end_hooks: dict[str, str] = field(default_factory=dict)

    @property
    def open(self) -> int:
        """How many jobs have not returned."""
        return self.jobs - self.completed - self.failed

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "run": self.run,
            "folder": str(self.folder),
            "state": self.state,
            "mode": self.mode,
            "task": self.task,
            "started": self.started,
            "ended": self.ended,
            "hosts": list(self.hosts),
            "jobs": self.jobs,
            "completed": self.completed,
            "failed": self.failed,
            "open": self.open,
            "kinds": self.kinds,
            "driver": self.driver or None,
            "end_hooks": self.end_hooks,
        }


@dataclass
class AttemptStatus:
    """One attempt. `state` is `assigned`, `running`, `COMPLETED`, `FAILED` or `given up`. Times are by the controller's clock, but for
    `host_started_at`.
    """

    attempt: int
    host: str
    state: str = "assigned"
    assigned_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    duration: float | None = None
    error: dict[str, Any] | None = None
    why: str = ""
    #: If nobody drives the run, the state on the host: `queued`, `running`, or `COMPLETED` or `FAILED` but not collected.
    on_host: str = ""
    slot: int | None = None
    host_started_at: float | None = None
    resources_used: ResourcesUsed | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**self.__dict__, "resources_used": _used_json(self.resources_used)}


@dataclass
class JobStatusLine:
    """One job, with all its attempts. `state` is `waiting`, `assigned`, `running`, `COMPLETED` or `FAILED`. If only one job was
    asked for, `value` is a short text, `environment` has the key of its environment, the hash of its lock, and its name, and `is_warm` says
    whether an interpreter had waited for its run.
    """

    num: int
    overrides: tuple[str, ...] = ()
    state: str = "waiting"
    attempts: list[AttemptStatus] = field(default_factory=list)
    error: dict[str, Any] | None = None
    duration: float | None = None
    output_dir: str = ""
    value: str = ""
    environment: dict[str, str] | None = None
    is_warm: bool = False
    #: The step of its last report, and the last value of each name that it has reported.
    step: float | None = None
    reported: dict[str, Value] = field(default_factory=dict)
    #: Whether it was asked to stop early, and did.
    is_stopped: bool = False
    queued_at: float | None = None
    returned_at: float | None = None
    #: By its last attempt; None if that is not known.
    resources_used: ResourcesUsed | None = None

    @property
    def host(self) -> str:
        """The host of the latest attempt."""
        return self.attempts[-1].host if self.attempts else ""

    @property
    def attempt(self) -> int:
        """The number of the latest attempt; 0 before the first."""
        return self.attempts[-1].attempt if self.attempts else 0

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "num": self.num,
            "overrides": list(self.overrides),
            "state": self.state,
            "host": self.host,
            "attempt": self.attempt,
            "duration": self.duration,
            "error": self.error,
            "output_dir": self.output_dir,
            "environment": self.environment,
            "warm": self.is_warm,
            "value": self.value,
            "step": self.step,
            "stopped": self.is_stopped,
            "queued_at": self.queued_at,
            "returned_at": self.returned_at,
            "resources_used": _used_json(self.resources_used),
            "attempts": [attempt.to_json() for attempt in self.attempts],
        }


def driver(folder: Path) -> str:
    """Return the process that drives the run of this folder (`pid N`); empty if there is none."""
    return driver_of(folder / FOLDER)


def read_status(entry: Entry) -> RunStatus:
    """Return the status of a run that is in the index, or named by its folder."""
    if not entry.is_there:
        return RunStatus(entry.run, entry.folder, "gone", entry.started, entry.mode, entry.task)
    is_driven = driver(entry.folder)
    with JournalReader(entry.journal) as reader:
        return _status(entry, reader, is_driven)


def _status(entry: Entry, reader: JournalReader, is_driven: str) -> RunStatus:
    meta = clean_all(reader.meta())
    counts = reader.outcomes()
    completed, failed = counts.get("COMPLETED", 0), counts.get("FAILED", 0)
    last = reader.last_event("run_started", "run_resumed", "run_detached", "run_ended", "job_retried")
    interrupted = reader.last_event("run_interrupt")
    state = "died"
    if is_driven:
        state = "running"
    elif isinstance(last, events.RunEnded):
        state = "failed" if failed else "completed"
        if interrupted is not None and reader.kinds().get("cancelled"):
            state = "interrupted"
    elif isinstance(last, events.RunDetached):
        state = "detached"
    return RunStatus(
        run=meta.get("run", entry.run),
        folder=entry.folder,
        state=state,
        started=reader.number("started", entry.started),
        mode=meta.get("mode", ""),
        task=meta.get("task_name", ""),
        hosts=tuple(clean(host) for host in reader.texts("hosts")),
        jobs=reader.count_jobs(),
        completed=completed,
        failed=failed,
        driver=is_driven,
        ended=last.at if isinstance(last, events.RunEnded) and not is_driven else None,
        kinds=reader.kinds(),
        end_hooks={clean(name): clean(str(state)) for name, state in reader.object("ended").items()},
    )


def read_jobs(reader: JournalReader, num: int | None = None) -> list[JobStatusLine]:
    """Return every job of the run with all its attempts, or only job `num`."""
    jobs: dict[int, JobStatusLine] = {}
    for _, event in reader.events(num=num):
        _apply(jobs, event)
    folders = reader.output_dirs()
    for job in jobs.values():
        job.output_dir = folders.get(job.num, "")
    return sorted(jobs.values(), key=lambda job: job.num)


def _apply(jobs: dict[int, JobStatusLine], event: events.Event) -> None:
    match event:
        case events.JobQueued():
            jobs[event.num] = JobStatusLine(event.num, tuple(event.overrides), queued_at=event.at)
        case (
            events.AttemptEnded()
            | events.AttemptStarted()
            | events.JobAssigned()
            | events.JobReported()
            | events.JobRequeued()
            | events.JobRetried()
            | events.JobReturned()
            | events.JobTakenOver()
        ):
            if event.num in jobs:
                _apply_to(jobs[event.num], event)
        case (
            events.CodeSent()
            | events.EnvironmentChanged()
            | events.EnvironmentReady()
            | events.HookFired()
            | events.HostClosed()
            | events.HostLost()
            | events.HostOpened()
            | events.HostReady()
            | events.HostUnknown()
            | events.HostUnusable()
            | events.JobCancelling()
            | events.JobStopping()
            | events.Note()
            | events.OutputArrived()
            | events.OutputsUnmatched()
            | events.RunDetached()
            | events.RunDetaching()
            | events.RunEnded()
            | events.RunInterrupt()
            | events.WayChosen()
            | events.RunResumed()
            | events.RunStarted()
            | events.Warned()
        ):
            pass
        case _:
            assert_never(event)


def _apply_to(
    job: JobStatusLine,
    event: events.AttemptEnded
    | events.AttemptStarted
    | events.JobAssigned
    | events.JobReported
    | events.JobRequeued
    | events.JobRetried
    | events.JobReturned
    | events.JobTakenOver,
) -> None:
    match event:
        case events.JobAssigned():
            job.state = "assigned"
            job.step, job.reported, job.is_stopped = None, {}, False
            job.attempts.append(AttemptStatus(event.attempt, event.host, assigned_at=event.at))
        case events.AttemptStarted():
            job.state = "running"
            for attempt in _attempts(job, event.attempt):
                attempt.state, attempt.started_at = "running", event.at
                attempt.slot, attempt.host_started_at = event.slot, event.started_at
        case events.JobReported():
            report = event.report
            job.step = report.step if report.step is not None else job.step
            job.reported.update(report.values)
        case events.AttemptEnded():
            for attempt in _attempts(job, event.attempt):
                attempt.state, attempt.ended_at = event.status, event.at
                attempt.duration, attempt.error = event.duration, event.error
                attempt.resources_used = _used(event.resources_used)
        case events.JobRequeued():
            job.state = "waiting"
            for attempt in _attempts(job, event.attempt):
                attempt.why = event.why
                if attempt.ended_at is None:
                    attempt.state, attempt.ended_at = "taken back" if event.is_taken_back else "given up", event.at
        case events.JobTakenOver():
            why = f"taken over from {event.of_run}#{event.of_num}"
            job.attempts.append(AttemptStatus(event.attempt, event.host, "COMPLETED", ended_at=event.at, why=why))
        case events.JobReturned():
            job.state, job.duration, job.error = event.status, event.duration, event.error
            job.returned_at, job.is_stopped = event.at, event.stopped
            job.resources_used = _used(event.resources_used)
        case events.JobRetried():
            job.state, job.error, job.duration, job.returned_at = "waiting", None, None, None
            job.resources_used = None
            for attempt in _attempts(job, event.attempt):
                attempt.why = "run once more, as was asked"
        case _:
            assert_never(event)


def _used(told: dict[str, Any] | None) -> ResourcesUsed | None:
    return None if told is None else ResourcesUsed.from_json(told)


def _used_json(used: ResourcesUsed | None) -> dict[str, Any] | None:
    return None if used is None else used.__dict__.copy()


def _attempts(job: JobStatusLine, number: int) -> list[AttemptStatus]:
    return [attempt for attempt in job.attempts[-2:] if attempt.attempt == number][-1:]
