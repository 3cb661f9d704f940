"""What happens to a job, and to its attempts."""

from __future__ import annotations

from typing import Any, ClassVar

from launcher.events.base import EventBase
from launcher.util.frozen import frozen
from remote_agent.protocol.report import Report

__all__ = [
    "AttemptEnded",
    "AttemptStarted",
    "JobAssigned",
    "JobCancelling",
    "JobQueued",
    "JobReported",
    "JobRequeued",
    "JobRetried",
    "JobReturned",
    "JobStopping",
    "JobTakenOver",
    "OutputArrived",
    "OutputsUnmatched",
]


@frozen
class JobQueued(EventBase):
    """A job exists and waits for a slot. `needs`: its Resources, if it has some of its own."""

    kind: ClassVar[str] = "job_queued"
    num: int
    overrides: tuple[str, ...] = ()
    needs: dict[str, Any] | None = None


@frozen
class JobAssigned(EventBase):
    """An attempt was given to a host; it may wait there for a slot."""

    kind: ClassVar[str] = "job_assigned"
    num: int
    attempt: int
    host: str


@frozen
class AttemptStarted(EventBase):
    """The job's process began on the host. `started_at` is by the host's clock."""

    kind: ClassVar[str] = "attempt_started"
    num: int
    attempt: int
    host: str
    slot: int
    started_at: float


@frozen
class OutputArrived(EventBase):
    """Bytes of a job's output, only for display. Each byte comes once; they may be cut anywhere. `stream` is stdout or stderr.

    `text` is UTF-8 with `surrogateescape`, so that nothing is lost; `data` has the bytes. If `file` is not empty, it has
    them from `offset` on.
    """

    kind: ClassVar[str] = "output"
    num: int
    host: str
    stream: str
    text: str
    attempt: int = 1
    offset: int = 0
    file: str = ""

    @property
    def data(self) -> bytes:
        """The output, byte for byte."""
        return self.text.encode("utf-8", "surrogateescape")


@frozen
class JobReported(EventBase):
    """A job has reported how it stands. `number` counts those that its host has kept. `values` and `reported_at` as in `Report.to_json`."""

    kind: ClassVar[str] = "job_reported"
    num: int
    attempt: int
    host: str
    number: int
    reported_at: float
    step: float | None
    values: dict[str, Any]

    @property
    def report(self) -> Report:
        """The report, as the job gave it.

        Raises:
            ValueError: it is not one.
        """
        return Report.from_json({"at": self.reported_at, "step": self.step, "values": self.values})


@frozen
class JobStopping(EventBase):
    """A hook or the user asked for a job to stop at its next report. A job that has not started never does."""

    kind: ClassVar[str] = "job_stopping"
    num: int


@frozen
class JobCancelling(EventBase):
    """The user asked for a job to end. It returns when it has ended."""

    kind: ClassVar[str] = "job_cancelling"
    num: int


@frozen
class AttemptEnded(EventBase):
    """An attempt has its outcome; a retry may follow. `status` is COMPLETED or FAILED. `stopped`: it was asked to stop, and has learned it.

    `resources_used`: a ResourcesUsed, whose `bytes_out` counts the value alone; None if its host has told nothing. `again`: its host has made the next attempt itself.
    """

    kind: ClassVar[str] = "attempt_ended"
    num: int
    attempt: int
    host: str
    status: str
    duration: float | None
    error: dict[str, Any] | None
    stopped: bool = False
    resources_used: dict[str, Any] | None = None
    again: bool = False


@frozen
class JobRequeued(EventBase):
    """The job waits for another attempt. `attempt` is the one that ended or was given up, and `why` the reason.

    `is_taken_back`: nothing failed; the host was asked for an attempt that had not started.
    """

    kind: ClassVar[str] = "job_requeued"
    num: int
    attempt: int
    host: str
    why: str
    is_taken_back: bool = False


@frozen
class JobReturned(EventBase):
    """The job's JobReturn is complete on the controller, with its files. `resources_used`: a ResourcesUsed, if its host has told one."""

    kind: ClassVar[str] = "job_returned"
    num: int
    attempt: int
    host: str
    status: str
    duration: float | None
    error: dict[str, Any] | None
    overrides: tuple[str, ...] = ()
    stopped: bool = False
    resources_used: dict[str, Any] | None = None


@frozen
class JobTakenOver(EventBase):
    """The job does not run, because a run that this one continues has completed one with the same config. Its `JobReturned` follows at once.

    `of_run`, `of_num`: the run that ran it, and its number there.
    """

    kind: ClassVar[str] = "job_taken_over"
    num: int
    of_run: str
    of_num: int
    attempt: int
    host: str


@frozen
class JobRetried(EventBase):
    """A job that had returned runs once more, because the user asked for it. `attempt` and `status` are the earlier ones."""

    kind: ClassVar[str] = "job_retried"
    num: int
    attempt: int
    status: str
    error_kind: str = ""
    overrides: tuple[str, ...] = ()
    needs: dict[str, Any] | None = None


@frozen
class OutputsUnmatched(EventBase):
    """A job completed and left no file that these output patterns match. A pattern may have a typo."""

    kind: ClassVar[str] = "outputs_unmatched"
    num: int
    host: str
    patterns: tuple[str, ...] = ()
