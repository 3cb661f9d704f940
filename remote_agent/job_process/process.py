"""The process of a job: descriptors, session, environment, streams, signals. `remote_agent.job_process.shutdown` has
its end.

Rule: until `done` is sent, SIGTERM and SIGINT become exceptions in the main thread. They are raised only while user code runs, so
that our own code is never interrupted. This holds for the process of the job: processes that it forks are as in plain Python.
"""

import contextlib
import functools
import io
import itertools
import os
import signal
import sys
import traceback
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from remote_agent.job_process.channel import move_high
from remote_agent.job_process.shutdown import exit_forked_child
from remote_agent.shared.failure import JobTerminated
from remote_agent.system import gpu_lease
from remote_agent.system.processes import mark_begun

# `_signal`, because `signal` turns every number into an Enum and back. That makes a forked process write to some forty
# pages of memory that it would not touch otherwise.
try:
    from _signal import getsignal as get_handler  # type: ignore[import-not-found]
    from _signal import signal as _set_handler
except ImportError:  # a Python other than CPython
    from signal import getsignal as get_handler
    from signal import signal as _set_handler

__all__ = [
    "SignalGate",
    "become_job",
    "begin_job",
    "get_handler",
    "hold_gpus",
    "hold_standard_fds",
    "keep_threads_to",
    "keep_to",
    "open_streams",
    "reset_signals",
]

_SIGINT, _SIGTERM, _SIGPIPE, _SIGCHLD = (
    int(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD)
)
_IGNORE, _DEFAULT = int(signal.SIG_IGN), int(signal.SIG_DFL)
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
#: How often `reclaim` is tried while the application's handlers raise. Each try gets further than the one before.
_RECLAIM_TRIES = 1000


class _HarmlessHandler:
    """A signal handler of the application whose task has ended: it is still called, but what it raises is only printed."""

    def __init__(self, handler: Callable[[int, Any], Any]) -> None:
        self._handler = handler

    def __call__(self, signum: int, frame: Any) -> None:
        try:
            self._handler(signum, frame)
        except BaseException:  # noqa: BLE001 - it must not interrupt our own work
            traceback.print_exc()


class SignalGate:
    """Lets SIGTERM (as `JobTerminated`) and SIGINT (as KeyboardInterrupt) through while `call` runs user code.

    The next `call` raises a signal that arrives outside, unless `reclaim` comes in between.
    """

    def __init__(self) -> None:
        self._is_open = False
        self._pending: Optional[int] = None
        self._pid = 0
        #: The signals that were blocked before a fork.
        self._mask: Iterable[Any] = ()

    def install(self) -> None:
        """Handle both signals from now on, whatever handled them before. Only for the main thread."""
        if not self._pid:
            self._pid = os.getpid()
            os.register_at_fork(
                before=self._block_before_fork,
                after_in_child=self._reset_in_child,
                after_in_parent=self._unblock_after_fork,
            )
        _set_handler(_SIGTERM, self._handle)
        _set_handler(_SIGINT, self._handle)

    def forget(self) -> None:
        """Forget a signal that came outside of user code: it was for the job before."""
        self._pending = None

    def _block_before_fork(self) -> None:
        """Block both signals before the job forks.

        A signal that arrived before the child has removed our handlers would be lost.
        """
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, (_SIGTERM, _SIGINT))

    def _unblock_after_fork(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _reset_in_child(self) -> None:
        """Remove our handlers in a process that the job forked. Handlers that the application has set stay."""
        self._is_open = False
        for number, plain in ((_SIGTERM, _DEFAULT), (_SIGINT, signal.default_int_handler)):
            if signal.getsignal(number) == self._handle:
                _set_handler(number, plain)
        self._unblock_after_fork()

    def reclaim(self) -> None:
        """Stop the timers of a task that has ended. From now on its signal handlers cannot raise an exception."""
        self._is_open = False
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        self.install()
        for number in range(1, signal.NSIG):
            handler = get_handler(number)
            if callable(handler) and handler != self._handle and not isinstance(handler, _HarmlessHandler):
                _set_handler(number, _HarmlessHandler(handler))
        # A write to an agent that is gone must raise an error, and not kill this process.
        _set_handler(_SIGPIPE, _IGNORE)
        self._pending = None

    def _reclaim_surely(self) -> None:
        """`reclaim` although the application's handlers raise. They may do so wherever this loop begins again, too: hence a loop in the loop."""
        tries = 0
        while tries < _RECLAIM_TRIES:
            try:
                while tries < _RECLAIM_TRIES:
                    try:
                        tries += 1
                        self.reclaim()
                        return
                    except BaseException:  # noqa: BLE001, S112 - a handler of the application raised
                        continue
            except BaseException:  # noqa: BLE001, S112 - so did another one
                continue

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call user code with any arguments.

        Raises:
            JobTerminated, KeyboardInterrupt: a signal came during the call or since the last one.
        """
        try:
            self._is_open = True
            if self._pending is not None:
                self._raise(self._pending)
            return self.call_closed(function, *args, **kwargs)
        finally:
            self._is_open = False

    def call_task(
        self, function: Callable[..., Any], args: Tuple[Any, ...], kwargs: Dict[str, Any]
    ) -> Tuple[Any, Optional[BaseException]]:
        """Call the task, then `reclaim`. Returns (value, None), or (None, what it raised).

        A signal handler that the application has set may raise at any time, also when the task has just returned, and also
        while `reclaim` works. From the moment in which the task returns, that changes nothing.
        """
        returned: List[Any] = []
        raised: Optional[BaseException] = None
        # Python runs signal handlers between bytecode instructions. Between the task's return, the append of its value and the end of its
        # timers, only C code runs.
        no_timers = map(signal.setitimer, _TIMERS, itertools.repeat(0))
        stop_timers: "functools.partial[List[Any]]" = functools.partial(list, no_timers)
        task = itertools.starmap(functools.partial(function, *args, **kwargs), ((),))
        try:
            try:
                self._is_open = True
                if self._pending is not None:
                    self._raise(self._pending)
                returned.extend(itertools.chain(task, no_timers))
            except BaseException as error:  # noqa: BLE001 - whatever the task raised is its outcome
                raised = error
                stop_timers()
            self._reclaim_surely()
        except BaseException as late:  # noqa: BLE001 - a handler of the application raised
            stop_timers()
            self._reclaim_surely()
            raised = raised or late.__context__
        try:
            if os.getpid() != self._pid:
                exit_forked_child(None if returned else raised)
            return (returned[0], None) if returned else (None, raised)
        finally:
            del raised  # it refers to this frame, which refers to it

    def call_closed(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call user code; signals wait.

        A process that the code forked, and that returns here, ends: it is not the job, and must not report anything about it.
        """
        try:
            value = function(*args, **kwargs)
        except BaseException as error:
            if os.getpid() != self._pid:
                exit_forked_child(error)
            raise
        if os.getpid() != self._pid:
            exit_forked_child(None)
        return value

    def _handle(self, signum: int, frame: Any) -> None:
        if not self._is_open:
            self._pending = signum
            return
        self._raise(signum)

    def _raise(self, signum: int) -> None:
        self._pending = None
        if signum == _SIGINT:
            raise KeyboardInterrupt
        raise JobTerminated("SIGTERM")


def become_job(fds: List[int], environment: Dict[str, Any], cwd: str, umask: int) -> int:
    """Make this freshly forked process the process of a job. Returns the number of its socket.

    Args:
        fds: the job's socket, its stdout file, its stderr file.
        environment: variables to set; None removes one.
        cwd: the working directory.
        umask: the user's.

    Raises:
        OSError: `cwd` does not exist.
    """
    os.setsid()
    channel = move_high(fds[0])
    begin_job(fds[1:], environment, cwd, umask)
    return channel


def begin_job(streams: List[int], environment: Dict[str, Any], cwd: str, umask: int) -> None:
    """Give this process what belongs to one job: its stdout and stderr files, variables, folder and umask. See `become_job`."""
    os.dup2(streams[0], 1, inheritable=True)
    os.dup2(streams[1], 2, inheritable=True)
    for fd in streams:
        if fd > 2:
            os.close(fd)
    mark_begun(1)
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = str(value)
    os.umask(umask)
    os.chdir(cwd)


def hold_gpus(fds: List[int]) -> List[int]:
    """Have the GPUs of these leases as long as this process lives, and each that it starts and that inherits them. Returns the leases."""
    leases = [move_high(fd) for fd in fds]
    gpu_lease.hold(leases)
    return leases


def keep_to(cpus: List[int]) -> None:
    """Run this process, and what it starts, on these CPUs; if there are none, on those on which it runs already."""
    if cpus and sys.platform != "darwin":
        try:
            os.sched_setaffinity(0, cpus)
        except OSError as error:
            # The host's CPUs have changed since the run began. The job can run on those that are left.
            print("cannot keep the job to CPUs {}: {}".format(cpus, error), file=sys.stderr)


def keep_threads_to(cpus: List[int]) -> None:
    """Like `keep_to`, for the threads, too, that an earlier job of this process has left in libraries."""
    keep_to(cpus)
    if cpus and sys.platform != "darwin":
        for thread in map(int, os.listdir("/proc/self/task")):
            with contextlib.suppress(OSError):  # it has just ended, or `keep_to` has said what is wrong
                os.sched_setaffinity(thread, cpus)


def open_streams() -> None:
    """Open sys.stdout and sys.stderr on descriptors 1 and 2, line by line, in UTF-8 that never fails.

    The zygote does this before it imports the application. Its jobs have other files under the same descriptors.
    """
    sys.stdout = sys.__stdout__ = _stream(1, "<stdout>", "surrogateescape")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2, "<stderr>", "backslashreplace")  # type: ignore[misc]


def _stream(fd: int, name: str, errors: str) -> io.TextIOWrapper:
    raw = io.FileIO(fd, "w", closefd=False)
    raw.name = name
    return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", errors, line_buffering=True)


def hold_standard_fds() -> None:
    """Open /dev/null as each of the descriptors 0 to 2 that the application closed, so that none of our files gets it."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def reset_signals() -> None:
    """Remove the zygote's own signal handling in a forked process. What the application's import set stays."""
    signal.set_wakeup_fd(-1)
    _set_handler(_SIGCHLD, _DEFAULT)
