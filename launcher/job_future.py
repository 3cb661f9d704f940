"""A job of a session, in the manner of `concurrent.futures.Future`.

Rule: it waits only through its session, which fires the hooks of whatever arrives meanwhile.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Generic, TypeVar

from remote_agent.job import JobError, JobReturn, RemoteJobError

if TYPE_CHECKING:
    from launcher.session import Session

__all__ = ["Job", "JobState"]

T = TypeVar("T")


class JobState(enum.Enum):
    """Where a Job stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class Job(Generic[T]):
    """A job of a session, in the manner of `concurrent.futures.Future`; T is what its task returns."""

    def __init__(self, session: Session, num: int) -> None:
        self._session = session
        self.num = num
        self._job_return: JobReturn | None = None
        self._has_started = False

    def __repr__(self) -> str:
        return f"<Job {self.num} {self.state.value}>"

    @property
    def state(self) -> JobState:
        """Where it stands."""
        if self._job_return is not None:
            return JobState.COMPLETED if self._job_return.status.name == "COMPLETED" else JobState.FAILED
        return JobState.RUNNING if self._has_started else JobState.PENDING

    def done(self) -> bool:
        """It has returned."""
        return self._job_return is not None

    def job_return(self, timeout: float | None = None) -> JobReturn:
        """Its JobReturn, waited for.

        Raises:
            TimeoutError: it has not returned within timeout seconds.
        """
        self._session._wait_for(lambda: self._job_return is not None, timeout)  # noqa: SLF001
        assert self._job_return is not None
        return self._job_return

    def result(self, timeout: float | None = None) -> T:
        """What the task returned, waited for.

        Raises:
            TimeoutError: it has not returned within timeout seconds.
            BaseException: the job failed: its exception, else RemoteJobError.
        """
        value: T = self.job_return(timeout).return_value
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception of a failed job, waited for; None if it completed."""
        job_return = self.job_return(timeout)
        if job_return.status.name == "COMPLETED":
            return None
        try:
            job_return.return_value  # noqa: B018 - reading it raises
        except BaseException as error:  # noqa: BLE001 - whatever the job raised is the answer
            return error
        return RemoteJobError(job_return.error or JobError("exception"), job_return.host)

    def cancel(self) -> None:
        """Ask for it to be cancelled: its end hooks fire, and its JobReturn is FAILED of kind `cancelled`."""
        self._session._engine.cancel(self.num)  # noqa: SLF001
