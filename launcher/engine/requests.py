"""What the decider is asked, beside the facts that hosts tell; and what it gives back.

Rule: plain values, so that anybody may make them in any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from launcher import events
from launcher.results.output_folder import OutputFolder
from launcher.results.owners import Owners
from launcher.util.frozen import frozen
from remote_agent.protocol.job_spec import JobSpec

__all__ = [
    "AddToJournal",
    "Cancel",
    "Detach",
    "GiveUp",
    "Interrupt",
    "QueuedJob",
    "Request",
    "Retry",
    "Submit",
]


@dataclass
class QueuedJob:
    """A job as the decider needs it until it has returned.

    `failure`: (kind, message) of a job that is FAILED from the start.
    """

    num: int
    overrides: tuple[str, ...]
    output_dir: Path
    #: None where the journal has it: read when it is sent.
    payload: bytes | None
    spec: JobSpec
    failure: tuple[str, str] | None = None
    folder: OutputFolder | None = None
    owners: Owners | None = None
    #: Attempts whose streams could not be set aside yet.
    aside: tuple[int, ...] = ()


@frozen
class Submit:
    """New jobs, all of which the journal has before the first of them is sent."""

    jobs: tuple[QueuedJob, ...]


@frozen
class Cancel:
    """Cancel one job."""

    num: int


@frozen
class Interrupt:
    """Cancel everything; with kill, at once."""

    why: str
    kill: bool


@frozen
class GiveUp:
    """Give a host up now."""

    host: str
    why: str


@frozen
class AddToJournal:
    """Journal this; what is asked later is decided later."""

    happened: tuple[events.Event, ...] = ()
    meta: dict[str, str] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)


@frozen
class Retry:
    """Run a job that had returned once more."""

    returned: events.JobReturned


@frozen
class Detach:
    """Give all jobs to hosts: the controller is about to leave."""

    run: str
    why: str
    hurry: bool


Request = Submit | Cancel | Interrupt | GiveUp | AddToJournal | Retry | Detach
