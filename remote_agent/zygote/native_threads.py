"""Finds threads that Python does not know, and whether they survive a fork.

Rule: a forked process has one thread only. A thread pool has its locks and queues there but no threads, and the next user of the pool
hangs. So any native thread is a reason not to fork. There are two exceptions. OpenBLAS, which comes with numpy and scipy, ends its pool
before a fork and starts it again afterwards. jemalloc, which comes with pyarrow, does without its thread in a forked process: its handler
of forks (`background_thread_postfork_child`) sees to that.
"""

import os
import sys
import time
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Iterable, List, Optional, Set, Tuple

__all__ = ["unforkable_threads"]

_TASKS = "/proc/self/task"
#: How often to look again, and with what pause, because a thread that has just been joined is listed for a moment longer.
_LOOKS = 20
_PAUSE = 0.01
#: OpenBLAS's function for its number of threads, by build: the plain one, those of scipy's wheels, those with long integers.
_ASK = [
    prefix + "openblas_get_num_threads" + suffix for prefix in ("", "scipy_") for suffix in ("", "64_", "_64", "_64_")
]
#: The name of jemalloc's thread, which gives memory back to the system.
_OF_JEMALLOC = "jemalloc_bg_thd"
_LIMITS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
#: Extension modules that all jobs have, and that start no threads.
_HARMLESS = frozenset({"yaml", "_yaml"})


def unforkable_threads(python_threads: int, looks: int = _LOOKS) -> str:
    """Return why this process must not be forked; empty if it may be.

    Args:
        python_threads: how many threads Python has, with the main one.
        looks: how often to look.
    """
    if not os.path.isdir(_TASKS):
        return _unknown(_loaded_extensions())
    for look in range(looks):
        if look:
            time.sleep(_PAUSE)
        names = [name for name in _names() if name != _OF_JEMALLOC]
        native = len(names) - python_threads
        if native <= 0:
            return ""
        asked, configured = _openblas_threads(_openblas_libraries())
        # A later limit does not change the size of the pool.
        if native <= asked or native == configured:
            return ""
    own = sorted(set(names) - {names[0]})
    named = " (such as {})".format(", ".join(own[:3])) if own else ""
    count = native - asked
    return "started {} native thread{}{}".format(count, "" if count == 1 else "s", named)


def _unknown(extensions: List[str]) -> str:
    """Return the reason if the system does not show threads; empty if only Python code was imported."""
    if not extensions:
        return ""
    return "loaded native code ({}), whose threads cannot be counted on this system".format(", ".join(extensions[:3]))


def _names() -> List[str]:
    """Return the names of all threads, the main one's first."""
    main = str(os.getpid())
    names = []
    for task in sorted(os.listdir(_TASKS), key=lambda task: task != main):
        try:
            with open(os.path.join(_TASKS, task, "comm"), encoding="utf-8", errors="replace") as file:
                names.append(file.read().strip())
        except OSError:
            continue  # it has ended
    return names


def _openblas_libraries() -> Set[str]:
    """Return the loaded libraries of OpenBLAS."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            paths = {line.split(None, 5)[5].rstrip("\n") for line in file if line.count("/")}
    except OSError:
        return set()
    return {path for path in paths if "openblas" in os.path.basename(path).lower()}


def _openblas_threads(libraries: Iterable[str]) -> Tuple[int, int]:
    """Return how many threads the pools of these libraries have: as they report it, and by default."""
    asked = configured = 0
    for path in libraries:
        pool = _configured() - 1
        configured += pool
        says = _asked(path)
        asked += pool if says is None else says - 1
    return asked, configured


def _configured() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in _LIMITS:
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > 0:
            return min(cores, int(value))
    return cores


def _asked(path: str) -> Optional[int]:
    """Ask one library. None if it has no such function."""
    try:
        import ctypes

        library = ctypes.CDLL(path, os.RTLD_NOLOAD | os.RTLD_LAZY)
    except (ImportError, OSError):
        return None
    for name in _ASK:
        function = getattr(library, name, None)
        if function is not None:
            return max(1, int(function()))
    return None


def _loaded_extensions() -> List[str]:
    """Return native modules that are neither in the standard library nor loaded for every job."""
    found = set()
    for name, module in list(sys.modules.items()):
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        is_native = isinstance(origin, str) and origin.endswith(tuple(EXTENSION_SUFFIXES))
        if is_native and "-packages" in str(origin) and name.partition(".")[0] not in _HARMLESS:
            found.add(name.partition(".")[0])
    return sorted(found)
