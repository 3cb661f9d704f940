"""A job of a session: a `concurrent.futures.Future` whose value is decoded when somebody reads it.

Rule: the session's thread sets the result of a job; all other threads wait. A hook runs in that thread, so it is refused at once
if it waits for a job: no other thread could bring the JobReturn. In a process that is forked of the session's, there is no such thread:
what has not returned by then is refused there.
"""

from __future__ import annotations

import concurrent.futures
import enum
import os
import threading
from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeVar

from launcher.errors import SessionError
from remote_agent.job import JobError, JobReturn, RemoteJobError

__all__ = ["Job", "JobCancelled", "JobOwner", "JobState"]

_CANCELLED = ("CANCELLED", "CANCELLED_AND_NOTIFIED")
_SETTLED = (*_CANCELLED, "FINISHED")

T = TypeVar("T")


class JobState(enum.Enum):
    """Where a Job stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class JobOwner(Protocol):
    """What a Job needs of the session that runs it; called from any thread."""

    def check_may_wait(self, num: int) -> None:
        """Refuse to wait for a job in a thread that has to bring its JobReturn.

        Raises:
            SessionError: this is such a thread.
        """

    def cancel_job_of(self, num: int) -> None:
        """Have a job cancelled."""


class JobCancelled(RemoteJobError, concurrent.futures.CancelledError):
    """A job was cancelled while it ran: a RemoteJobError, which says how it ended, and a CancelledError."""


class _Failed(Exception):
    """Stands for the exception of a job until somebody reads it."""


class _Waiters(list[Any]):
    """Where `concurrent.futures.wait` and `as_completed` leave who waits: not in the thread that would have to end the wait."""

    def __init__(self, job: Job[Any]) -> None:
        super().__init__()
        self._job = job

    def append(self, waiter: Any) -> None:
        """Somebody waits."""
        self._job.check_may_wait()
        super().append(waiter)


class Job(concurrent.futures.Future[T]):
    """A job of a session; T is what its task returns.

    Any thread may wait for it, also with `await`, `asyncio.wrap_future` and `concurrent.futures.wait`.
    """

    def __init__(self, owner: JobOwner, num: int) -> None:
        super().__init__()
        self._waiters = _Waiters(self)
        #: A process that is forked of this one has the object, but nothing arrives there.
        self._process = self._condition_process = os.getpid()
        self._owner = owner
        self.num = num
        self._job_return: JobReturn | None = None
        #: Why it will have no JobReturn here: the controller has left, or failed.
        self._left: BaseException | None = None

    def __repr__(self) -> str:
        if os.getpid() != self._process and self._state not in _SETTLED:
            return f"<Job {self.num} of process {self._process}>"
        return f"<Job {self.num} {self.state.value}>"

    def __await__(self) -> Generator[Any, None, Any]:
        # Only those who await need it, and they have imported it.
        import asyncio

        self.check_may_wait()
        return asyncio.wrap_future(self).__await__()

    @property
    def state(self) -> JobState:
        """Where it stands."""
        if self._job_return is not None:
            return JobState.COMPLETED if self._job_return.status.name == "COMPLETED" else JobState.FAILED
        if self.done():
            return JobState.FAILED
        return JobState.RUNNING if self.running() else JobState.PENDING

    def job_return(self, timeout: float | None = None) -> JobReturn:
        """Its JobReturn, waited for; one that was cancelled before it ran has one, too.

        Raises:
            TimeoutError: it has not returned within timeout seconds.
            LauncherError: it will not: the controller has left the run, or failed.
        """
        has_ended = self._job_return is not None or self._left is not None
        self._check_process(is_settled=has_ended)
        if not has_ended:
            self._owner.check_may_wait(self.num)
        with self._condition:
            self._condition.wait_for(lambda: self._job_return is not None or self._left is not None, timeout)
        if self._job_return is not None:
            return self._job_return
        if self._left is not None:
            raise self._left
        raise concurrent.futures.TimeoutError

    def result(self, timeout: float | None = None) -> T:
        """What the task returned, waited for.

        Raises:
            TimeoutError: it has not returned within timeout seconds.
            CancelledError: it was cancelled.
            BaseException: the job failed: its exception, else RemoteJobError.
        """
        error = self.exception(timeout)
        if error is not None:
            try:
                raise error
            finally:
                # No cycle of this frame and the exception.
                del error
        assert self._job_return is not None
        value: T = self._job_return.return_value
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception of a failed job, waited for; None if it completed.

        Raises:
            TimeoutError: it has not returned within timeout seconds.
            CancelledError: it was cancelled before it ran.
            SessionError: this process was forked of the session's before the job returned.
        """
        self.check_may_wait()
        placeholder = super().exception(timeout)
        job_return = self._job_return
        if placeholder is None or job_return is None:
            return placeholder
        error = job_return.error or JobError("exception")
        if error.kind == "cancelled":
            return JobCancelled(error, job_return.host)
        try:
            job_return.return_value  # noqa: B018 - reading it raises
        except BaseException as raised:  # noqa: BLE001 - whatever the job raised is the answer
            return raised
        return RemoteJobError(error, job_return.host)

    def cancel(self) -> bool:
        """Cancel it: one that waits raises CancelledError from now on; one that runs is asked to end.

        Either way it has a JobReturn of kind `cancelled`, unless it comes to its end before, and its hooks fire.

        Returns:
            It is cancelled, or was asked to end; False where it has returned already.
        """
        if self.cancel_if_waiting():
            return True
        if self.done():
            return False
        self._owner.cancel_job_of(self.num)
        return True

    def cancel_if_waiting(self) -> bool:
        """Cancel it unless it runs or has returned."""
        was_cancelled = self.cancelled()
        if not super().cancel():
            return False
        self._notify_cancelled()
        if not was_cancelled:
            self._owner.cancel_job_of(self.num)
        return True

    def cancelled(self) -> bool:
        """It was cancelled before it ran."""
        self._check_process(is_settled=self._state in _SETTLED)
        return super().cancelled()

    def running(self) -> bool:
        """It runs."""
        self._check_process(is_settled=self._state in _SETTLED)
        return super().running()

    def done(self) -> bool:
        """It has returned, or was cancelled before it ran."""
        self._check_process(is_settled=self._state in _SETTLED)
        return super().done()

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Have fn called with the job when it is done; at once where it is."""
        self._check_process(is_settled=self._state in _SETTLED)
        super().add_done_callback(fn)

    def _check_process(self, *, is_settled: bool) -> None:
        """See that what is asked for may come here. Takes no lock, which a thread may have held when this process was forked.

        Raises:
            SessionError: this process was forked of the session's, where alone it comes.
        """
        process = os.getpid()
        if process == self._process:
            return
        if not is_settled:
            raise SessionError(
                f"job {self.num} is of a session of process {self._process}, of which this one ({process}) was forked: nothing of the "
                "job arrives here; wait for it there, or before the fork, or open another session here"
            )
        if self._condition_process != process:
            self._condition = threading.Condition()
            self._condition_process = process

    def _notify_cancelled(self) -> None:
        with self._condition:
            if self._state == "CANCELLED":
                self.set_running_or_notify_cancel()

    def check_may_wait(self) -> None:
        """Refuse to wait for it in a thread that has to bring its JobReturn.

        Raises:
            SessionError: this is such a thread.
        """
        if not self.done():
            self._owner.check_may_wait(self.num)

    # -- called by the session -----------------------------------------------------------------------------------

    def has_started(self) -> None:
        """Its process began."""
        with self._condition:
            if self._state == "PENDING":
                self.set_running_or_notify_cancel()

    def has_returned(self, job_return: JobReturn) -> None:
        """It has its JobReturn, and its hook has fired."""
        with self._condition:
            self._job_return = job_return
            self._condition.notify_all()
            if self._state in _CANCELLED:
                return
        if job_return.status.name == "COMPLETED":
            self._settle(None)
        else:
            self._settle(_Failed())

    def has_no_return(self, error: BaseException) -> None:
        """It will have no JobReturn here."""
        with self._condition:
            self._left = error
            self._condition.notify_all()
        self._settle(error)

    def _settle(self, error: BaseException | None) -> None:
        try:
            if error is None:
                # The value is decoded when somebody reads it from the JobReturn.
                self.set_result(None)  # type: ignore[arg-type]
            else:
                self.set_exception(error)
        except concurrent.futures.InvalidStateError:
            # Cancelled in the meantime by another thread.
            return
