"""`launcher.report`: a job says how it stands, and learns whether it should stop.

Rule: a report costs a job some microseconds, waits for nobody, and never fails the job because of a disk. Any thread of the job may report,
and any process that the job started and that can import this. Outside of a job the values are checked in the same way, and logged at level
DEBUG, so that the same code runs anywhere.
"""

import json
import logging
import os
import threading
import time
from typing import Any, Dict, Optional

from remote_agent.job_process.channel import move_high
from remote_agent.protocol.constants import REPORTS
from remote_agent.protocol.report import Report, Value, check_names, checked_step, checked_value
from remote_agent.shared.report_ring import MAX_RECORD, STOP, STOPPED, RingWriter, has_mark, mark

__all__ = ["StopRequested", "begin", "end", "let_stop", "report", "was_stopped"]

_logger = logging.getLogger("remote_agent.report")
#: How many names are kept of what a process has reported.
_MAX_KEPT = 1000
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class StopRequested(BaseException):
    """Raised by `launcher.report` if the controller has asked the job to stop: once in each process of the job that reports.

    A job that catches it and returns has completed. So has one that does not catch it; what it returned is then `values`. It is not
    an `Exception`, so that an `except Exception` around a step does not catch it.

    Attributes:
        step: that of the report that raised it.
        values: the last value of each name that this process has reported.
    """

    __module__ = "remote_agent"  # for good: pickles name it

    def __init__(self, step: Optional[float] = None, values: Optional[Dict[str, Value]] = None) -> None:
        super().__init__(step, values)
        self.step = step
        self.values = values or {}

    def __str__(self) -> str:
        return "the job was asked to stop" + ("" if self.step is None else " at step {}".format(self.step))


class _Reporter:
    """What this process reports."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.values: Dict[str, Value] = {}
        self._ring: Optional[RingWriter] = None
        self._lock = threading.Lock()
        self._has_raised = False
        self._has_failed = False
        #: Whether a report may raise StopRequested now: in the task, and in processes that it started, but not in a hook.
        self.may_raise = True

    def take(self, report: Report) -> None:
        """Write a report down. Raises StopRequested if the job should stop."""
        data = _to_json(report.to_json()).encode("ascii")
        if len(data) > MAX_RECORD:
            raise ValueError("launcher.report: {} bytes as JSON; the most is {}".format(len(data), MAX_RECORD))
        with self._lock:
            self.values.update(report.values)
            while len(self.values) > _MAX_KEPT:
                del self.values[next(iter(self.values))]
            try:
                self._write(data)
            except OSError as error:
                if not self._has_failed:
                    self._has_failed = True
                    _logger.warning("what the job reports cannot be written: %s: %s", self.folder, error.strerror)
            if self._has_raised or not self.may_raise or not has_mark(self.folder, STOP):
                return
            self._has_raised = True
            values = dict(self.values)
        try:
            mark(self.folder, STOPPED)
        except OSError as error:
            _logger.warning("that the job stops cannot be written: %s: %s", self.folder, error.strerror)
        raise StopRequested(report.step, values)

    def _write(self, data: bytes) -> None:
        if self._ring is None or not self._ring.is_whole:
            self._ring = RingWriter(self.folder)
            # User code that closes or opens low numbers must not hit it.
            self._ring.fd = move_high(self._ring.fd)
        self._ring.write(data)

    def close(self) -> None:
        """Close the ring's file."""
        with self._lock:
            if self._ring is not None:
                self._ring.close()
                self._ring = None


#: That of this process; None before its first report. The folder is None where the environment says it.
_reporter: Optional[_Reporter] = None
_folder: Optional[str] = None
_opening = threading.Lock()


def report(step: Optional[float] = None, **values: Any) -> None:
    """Report how the job stands. The controller gets it within a second.

    Args:
        step: where the job is, for example the epoch: a number.
        values: numbers and short texts. Numbers of numpy become Python's.

    Raises:
        TypeError, ValueError: a value is neither a number nor a short text, or there are too many.
        StopRequested: the controller has asked the job to stop. Raised once, in the task and not in hooks.
    """
    check_names(values)
    plain = {name: checked_value(name, value) for name, value in values.items()}
    made = Report(checked_step(step), plain, time.time())
    reporter = _reporter or _opened()
    if reporter.folder:
        reporter.take(made)
    else:
        _logger.debug("step %s: %s", made.step, plain)


def _opened() -> _Reporter:
    """Return the reporter of this process, which has not reported yet."""
    global _reporter  # noqa: PLW0603 - one for the process
    with _opening:
        if _reporter is None:
            _reporter = _Reporter(os.environ.get(REPORTS, "") if _folder is None else _folder)
        return _reporter


def _forget() -> None:
    """In a forked process: it has a ring of its own. A thread may have held a lock at the fork, so the locks are new."""
    global _opening, _reporter
    _opening, _reporter = threading.Lock(), None


os.register_at_fork(after_in_child=_forget)


# -- called by the process of the job ----------------------------------------------------------------------------------


def begin(folder: str) -> None:
    """Let this process report in this folder, as the process of a job; nowhere if it is empty."""
    global _folder, _reporter  # noqa: PLW0603 - as above
    _folder = folder
    _reporter = _Reporter(folder)
    _reporter.may_raise = False


def let_stop(may_raise: bool) -> None:
    """Say whether a report of this process may raise StopRequested: in the task it may, and in hooks it may not."""
    (_reporter or _opened()).may_raise = may_raise


def was_stopped() -> bool:
    """Whether a report of the job has raised StopRequested, in this process or in one that it started."""
    folder = _folder or ""
    return bool(folder) and has_mark(folder, STOPPED)


def end() -> None:
    """End the reports of this process's job. Later ones are only logged."""
    global _folder, _reporter
    ended, _folder, _reporter = _reporter, "", _Reporter("")
    if ended is not None:
        ended.close()
