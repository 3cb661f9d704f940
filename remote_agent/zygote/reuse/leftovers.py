"""What a job leaves in its process that no further job may meet. A worker ends then, as a job's process does.

Rule: what is found ends the worker, and so does what cannot be looked at. That costs the next job a fork and nothing else.
"""

import atexit
import os
import resource
import signal
import sys
import threading
import weakref
from typing import Any, Dict, Iterable, Optional, Tuple

from remote_agent.job_process.shutdown import has_unfinished
from remote_agent.system.processes import left_by
from remote_agent.zygote.native_threads import unforkable_threads

__all__ = ["Leftovers"]

_LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})
#: Limits on what a process uses in all. Jobs that share a process would share them.
_TOTALS = [
    getattr(resource, name)
    for name in ("RLIMIT_CPU", "RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_RSS")
    if hasattr(resource, name)
]
#: What the system says about a process that a job can change, and that cannot always be set back.
_QUESTIONS = ("getresuid", "getresgid", "getgroups", "getpgrp")
_QUESTIONS_OF_LINUX = ("sched_getaffinity", "sched_getscheduler")
#: How many bytes of memory the jobs of a worker may leave behind.
_MAX_GROWTH = 256 << 20
#: How often to look again for native threads that are just ending.
_LOOKS = 3


class Leftovers:
    """Compares the process with what it was before its first job. `passing`: descriptors of that job, which it does not keep."""

    def __init__(self, passing: Iterable[int] = ()) -> None:
        self._exits = _exit_functions()
        self._system = _system()
        self._files = _open_files()
        for fd in passing:
            (self._files or {}).pop(fd, None)
        self._python_threads = threading.active_count()
        self._threads = _threads()
        self._children = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._on_child = signal.getsignal(signal.SIGCHLD)
        self._memory = _memory()

    def has_left(self) -> bool:
        """Whether the job has left anything but open files. Changes nothing, and runs no code of the job but `__del__`."""
        return (
            threading.active_count() > self._python_threads
            or any(now > before for now, before in zip(_exit_functions(), self._exits))
            or self._has_left_children()
            or _system() != self._system
            or any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in _TOTALS)
            or has_unfinished()
            or self._has_native_threads()
            or _memory() - self._memory > _MAX_GROWTH
        )

    def has_open_files(self) -> bool:
        """Whether other descriptors are open than before, except stdout and stderr."""
        return self._files is None or _open_files() != self._files

    def _has_left_children(self) -> bool:
        if _has_child() or signal.getsignal(signal.SIGCHLD) != self._on_child:
            return True
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        if children == self._children:
            return False
        # It has waited for a child, which may have left children of its own.
        self._children = children
        return bool(left_by(os.getpid()))

    def _has_native_threads(self) -> bool:
        threads = _threads()
        if threads > self._threads and unforkable_threads(self._python_threads, _LOOKS):
            return True
        self._threads = max(threads, self._threads)
        return False


def _exit_functions() -> Tuple[int, ...]:
    """Return how many functions Python would call at its exit, by kind."""
    count: Any = getattr(atexit, "_ncallbacks", int)
    util = sys.modules.get("multiprocessing.util")
    registries = (
        getattr(threading, "_threading_atexits", ()),
        getattr(weakref.finalize, "_registry", ()),
        getattr(util, "_finalizer_registry", ()),
    )
    return (count(), *map(len, registries))


def _has_child() -> bool:
    wait: Any = getattr(os, "waitid", None)
    try:
        if wait is None:
            os.waitpid(-1, os.WNOHANG)
        else:
            wait(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _system() -> Tuple[Any, ...]:
    answers = [getattr(os, name)() for name in _QUESTIONS if hasattr(os, name)]
    limits = [resource.getrlimit(limit) for limit in _LIMITS]
    of_linux = [getattr(os, name)(0) for name in _QUESTIONS_OF_LINUX if hasattr(os, name)]
    return (answers, limits, os.getpriority(os.PRIO_PROCESS, 0), of_linux)


def _open_files() -> Optional[Dict[int, Tuple[int, int]]]:
    """Return each open descriptor with its file; None if the system does not show them."""
    try:
        fds = [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        return None
    found = {}
    for fd in fds:
        try:
            status = os.fstat(fd)
        except OSError:
            continue  # the descriptor of the listing itself
        if fd not in (1, 2):
            found[fd] = (status.st_dev, status.st_ino)
    return found


def _threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


def _memory() -> int:
    """Return the bytes of memory that this process has; 0 if the system does not show that."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0
