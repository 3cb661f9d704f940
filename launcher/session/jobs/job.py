"""A job of a session: a `concurrent.futures.Future` whose value is decoded when somebody reads it.

Rule: the session's thread sets the result of a job, and all other threads wait. Hooks run in that thread. A hook that waits for a job
is refused at once, because no other thread could bring the JobReturn. A fork of the session's process has no such thread, so waiting
for a job that has not returned is refused there, too.
"""

from __future__ import annotations

import concurrent.futures
import enum
import os
import threading
from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeVar

from launcher.errors import SessionError
from launcher.util.text.html import table_html
from remote_agent.job import JobError, JobReturn, RemoteJobError
from remote_agent.protocol.report import Report

__all__ = ["Job", "JobCancelled", "JobOwner", "JobState"]

_CANCELLED = ("CANCELLED", "CANCELLED_AND_NOTIFIED")
_SETTLED = (*_CANCELLED, "FINISHED")

T = TypeVar("T")


class JobState(enum.Enum):
    """The state of a Job."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class JobOwner(Protocol):
    """What a Job uses of the session that runs it. Any thread may call it."""

    def check_may_wait(self, num: int) -> None:
        """Refuse to wait for a job in the thread that must bring its JobReturn.

        Raises:
            SessionError: this is that thread.
        """

    def cancel_job_of(self, num: int) -> None:
        """Ask for a job to be cancelled."""

    def stop_job_of(self, num: int) -> None:
        """Ask for a job to be asked to stop."""

    def reports_of(self, num: int) -> list[Report]:
        """Return what a job has reported so far."""


class JobCancelled(RemoteJobError, concurrent.futures.CancelledError):
    """A job was cancelled while it ran. This is both a RemoteJobError, which says how it ended, and a CancelledError."""


class _Failed(Exception):
    """A placeholder for the exception of a job until somebody reads it."""


class _Waiters(list[Any]):
    """The list in which `concurrent.futures.wait` and `as_completed` enter waiters. It refuses the thread that must end the wait."""

    def __init__(self, job: Job[Any]) -> None:
        super().__init__()
        self._job = job

    def append(self, waiter: Any) -> None:
        """Add a waiter."""
        self._job.check_may_wait()
        super().append(waiter)


class Job(concurrent.futures.Future[T]):
    """A job of a session. T is the type of its return value.

    Any thread may wait for it, also with `await`, `asyncio.wrap_future` and `concurrent.futures.wait`.
    """

    def __init__(self, owner: JobOwner, num: int) -> None:
        super().__init__()
        self._waiters = _Waiters(self)
        #: A fork of this process has the object, too, but nothing arrives there.
        self._process = self._condition_process = os.getpid()
        self._owner = owner
        self.num = num
        self._job_return: JobReturn | None = None
        #: Why it will get no JobReturn here: the controller has left or failed.
        self._left: BaseException | None = None

    def __repr__(self) -> str:
        if os.getpid() != self._process and self._state not in _SETTLED:
            return f"<Job {self.num} of process {self._process}>"
        return f"<Job {self.num} {self.state.value}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: its state, what it has reported last, and its JobReturn when it has one. No value is decoded."""
        if self._job_return is not None and hasattr(self._job_return, "_repr_html_"):
            told: str = self._job_return._repr_html_()
            return told
        if os.getpid() != self._process:
            return table_html(repr(self), (), ())
        last = self.reports[-1:]
        rows = [(name, value) for one in last for name, value in [("step", one.step), *one.values.items()]]
        return table_html(f"job {self.num}: {self.state.value}", ("", ""), rows)

    def __await__(self) -> Generator[Any, None, Any]:
        # Only callers that await need asyncio, and they have imported it.
        import asyncio

        self.check_may_wait()
        return asyncio.wrap_future(self).__await__()

    @property
    def state(self) -> JobState:
        """The state of the job."""
        if self._job_return is not None:
            return JobState.COMPLETED if self._job_return.status.name == "COMPLETED" else JobState.FAILED
        if self.done():
            return JobState.FAILED
        return JobState.RUNNING if self.running() else JobState.PENDING

    def job_return(self, timeout: float | None = None) -> JobReturn:
        """Wait for the JobReturn, and return it. A job that was cancelled before it ran has one, too.

        Raises:
            TimeoutError: the job has not returned within `timeout` seconds.
            LauncherError: the job will not return here, because the controller has left the run or failed.
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
        """Wait for what the task returned, and return it.

        Raises:
            TimeoutError: the job has not returned within `timeout` seconds.
            CancelledError: it was cancelled.
            BaseException: the job failed. This is its exception, or a RemoteJobError.
        """
        error = self.exception(timeout)
        if error is not None:
            try:
                raise error
            finally:
                # Otherwise this frame and the exception would refer to each other.
                del error
        assert self._job_return is not None
        value: T = self._job_return.return_value
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the job, and return its exception; None if it completed.

        Raises:
            TimeoutError: the job has not returned within `timeout` seconds.
            CancelledError: it was cancelled before it ran.
            SessionError: this is a fork of the session's process, made before the job returned.
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
        """Cancel the job. If it waits, it raises CancelledError from now on. If it runs, it is asked to end.

        Either way it gets a JobReturn of kind `cancelled`, unless it ends before, and its hooks fire.

        Returns:
            Whether it is cancelled or was asked to end. False if it has already returned.
        """
        if self.cancel_if_waiting():
            return True
        if self.done():
            return False
        self._owner.cancel_job_of(self.num)
        return True

    def cancel_if_waiting(self) -> bool:
        """Cancel the job, unless it runs or has returned."""
        was_cancelled = self.cancelled()
        if not super().cancel():
            return False
        self._notify_cancelled()
        if not was_cancelled:
            self._owner.cancel_job_of(self.num)
        return True

    def stop(self) -> bool:
        """Ask the job to stop early. Its next `launcher.report` raises StopRequested there, once; `JobReturn.stopped` says that it did.

        A job that never reports goes on to its end. A job that waits never starts, and is cancelled.

        Returns:
            Whether it was asked. False if it has already returned.
        """
        if self.done():
            return False
        self._owner.stop_job_of(self.num)
        return True

    @property
    def reports(self) -> list[Report]:
        """What the job has reported so far, in order: each with `step`, `values` and `at`. Of its last attempt, if there were more."""
        return self._owner.reports_of(self.num)

    def cancelled(self) -> bool:
        """Whether it was cancelled before it ran."""
        self._check_process(is_settled=self._state in _SETTLED)
        return super().cancelled()

    def running(self) -> bool:
        """Whether it runs."""
        self._check_process(is_settled=self._state in _SETTLED)
        return super().running()

    def done(self) -> bool:
        """Whether it has returned, or was cancelled before it ran."""
        self._check_process(is_settled=self._state in _SETTLED)
        return super().done()

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Call fn with the job when it is done; at once if it is done already."""
        self._check_process(is_settled=self._state in _SETTLED)
        super().add_done_callback(fn)

    def _check_process(self, *, is_settled: bool) -> None:
        """Check that the JobReturn can arrive in this process. Takes no lock, because a thread may have held it at a fork.

        Raises:
            SessionError: this is a fork of the session's process, and only the session's process gets it.
        """
        process = os.getpid()
        if process == self._process:
            return
        if not is_settled:
            raise SessionError(
                f"job {self.num} belongs to a session of process {self._process}, and this process ({process}) was forked from it, so its "
                "JobReturn does not arrive here; wait for it there, or before the fork, or open another session here"
            )
        if self._condition_process != process:
            self._condition = threading.Condition()
            self._condition_process = process

    def _notify_cancelled(self) -> None:
        with self._condition:
            if self._state == "CANCELLED":
                self.set_running_or_notify_cancel()

    def check_may_wait(self) -> None:
        """Refuse to wait for it in the thread that must bring its JobReturn.

        Raises:
            SessionError: this is that thread.
        """
        if not self.done():
            self._owner.check_may_wait(self.num)

    # -- called by the session -----------------------------------------------------------------------------------

    def has_started(self) -> None:
        """Record that its process has begun."""
        with self._condition:
            if self._state == "PENDING":
                self.set_running_or_notify_cancel()

    def has_returned(self, job_return: JobReturn) -> None:
        """Record that it has its JobReturn, and that its hook has fired."""
        self._job_return = job_return
        self._settle(None if job_return.status.name == "COMPLETED" else _Failed())

    def has_no_return(self, error: BaseException) -> None:
        """Record that it will get no JobReturn here."""
        self._left = error
        self._settle(error)

    def _settle(self, error: BaseException | None) -> None:
        try:
            if error is None:
                # The value is decoded when somebody reads it from the JobReturn.
                self.set_result(None)  # type: ignore[arg-type]
            else:
                self.set_exception(error)
        except concurrent.futures.InvalidStateError:
            # It was cancelled. Whoever waits for the JobReturn of it is woken here. Nobody may be woken before the state is settled:
            # a Future takes that for the end of its time limit.
            with self._condition:
                self._condition.notify_all()
