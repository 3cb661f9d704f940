"""Requests to the decider. The facts that hosts report are in `launcher.agents.facts`.

Rule: they are plain values, so that any thread can make them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from launcher import events
from launcher.results.output_folder import OutputFolder
from launcher.results.owners import Owners
from launcher.runs.journal import StoredResult
from launcher.util.frozen import frozen
from remote_agent.protocol.specs.job import JobSpec

__all__ = [
    "AddToJournal",
    "Cancel",
    "Detach",
    "GiveUp",
    "Interrupt",
    "QueuedJob",
    "Request",
    "Retry",
    "Stop",
    "Submit",
    "TakeOver",
    "TakenOver",
]


@dataclass
class QueuedJob:
    """A job as the decider needs it, until it has returned.

    `failure`: (kind, message) of a job that is FAILED from the start.
    """

    num: int
    overrides: tuple[str, ...]
    output_dir: Path
    #: None if it is in the journal, from where it is read when the job is sent.
    payload: bytes | None
    spec: JobSpec
    failure: tuple[str, str] | None = None
    folder: OutputFolder | None = None
    owners: Owners | None = None
    #: Attempts whose output could not yet be moved to its own folder.
    aside: tuple[int, ...] = ()


@frozen
class Submit:
    """Add jobs. The journal has all of them before the first one is sent. `is_complete`: it is known that the run gets no others."""

    jobs: tuple[QueuedJob, ...]
    is_complete: bool = False


@frozen
class Cancel:
    """Cancel one job."""

    num: int


@frozen
class Stop:
    """Ask one job to stop at its next report."""

    num: int


@frozen
class Interrupt:
    """Cancel everything. With `kill`, jobs get no grace period."""

    why: str
    kill: bool


@frozen
class GiveUp:
    """Give up a host now."""

    host: str
    why: str


@frozen
class AddToJournal:
    """Write this to the journal, before any later request is decided."""

    happened: tuple[events.Event, ...] = ()
    meta: dict[str, str] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)


@frozen
class Retry:
    """Run a job that has returned once more."""

    returned: events.JobReturned


@frozen
class TakenOver:
    """A job that an earlier run has completed. `of_run`, `of_num`: the run that ran it, and its number there."""

    job: QueuedJob
    stored: StoredResult
    returned: events.JobReturned
    of_run: str
    of_num: int


@frozen
class TakeOver:
    """Add jobs that have returned already. `done` is set when the journal has them."""

    jobs: tuple[TakenOver, ...]
    done: threading.Event


@frozen
class Detach:
    """Give all jobs to hosts, because the controller is about to detach."""

    run: str
    why: str
    hurry: bool


Request = Submit | Cancel | Interrupt | GiveUp | AddToJournal | Retry | TakeOver | Detach | Stop
