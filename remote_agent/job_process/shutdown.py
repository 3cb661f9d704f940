"""The end of a job's process: what Python does before a process ends, except clearing the modules.

Rule: the result is sent and stored before any of this runs, so nothing here can change it. The order is Python's: wait
for executors and for threads that are not daemons, run `atexit` functions (those of `weakref.finalize` and
multiprocessing among them), finish the job's objects, flush files, also those of C. Modules are not cleared, because
that would write to every page that the process shares with its zygote.

A job that leaves nothing behind pays only for some checks. If the shutdown takes too long, the agent sends SIGTERM to
ask what the job still waits for. The job answers with an `ending` frame.
"""

import atexit
import gc
import os
import signal
import sys
import threading
import weakref
from _io import (  # the C types, because isinstance with the ABC `io.IOBase` may run a user's code
    BufferedRandom,
    BufferedRWPair,
    BufferedWriter,
    TextIOWrapper,
    _IOBase,
)
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, NoReturn, Optional, Set, Tuple

from remote_agent.job_process.channel import JobChannel

__all__ = [
    "answer_when_asked",
    "exit_forked_child",
    "exit_job",
    "exit_worker",
    "flush_files",
    "has_unfinished",
    "load_stdio",
    "note_open_files",
    "still_running",
    "unfinished",
]

_BUFFERS = (TextIOWrapper, BufferedWriter, BufferedRandom, BufferedRWPair)
#: The largest number of names in an `ending` frame, and of characters in each.
_MAX_NAMES = 20
_MAX_NAME = 200

#: Types whose objects need no finishing, as found so far.
_plain: Set[type] = set()
#: Files that were open after the import of the application.
_opened_before: "List[weakref.ref[Any]]" = []
_stdio: Optional[Callable[[], Any]] = None
_flush_stdio: Optional[Callable[[], Any]] = None
_is_stdio_loaded = False


# -- in the zygote ---------------------------------------------------------------------------------------------------


def load_stdio() -> None:
    """Find the functions that flush C's files: before the process ends, and before it goes on.

    The zygote imports ctypes once, so that jobs need not.
    """
    global _flush_stdio, _is_stdio_loaded, _stdio  # noqa: PLW0603 - one process, one C library
    if _is_stdio_loaded:
        return
    _is_stdio_loaded = True
    try:
        import ctypes

        library = ctypes.CDLL(None)
    except (ImportError, OSError, TypeError):
        return  # without ctypes
    flush = getattr(library, "fflush", None)
    if flush is not None:
        _stdio = _flush_stdio = lambda: flush(None)
    # `exit` does the same. It takes no lock; a thread that reads from a FILE may hold one for ever.
    _stdio = getattr(library, "fcloseall", _stdio)


def note_open_files() -> None:
    """Flush and remember the application's open files after its import, because no job could find them.

    What was written so far is flushed here once. Otherwise each job would write it again.
    """
    found = gc.get_objects()
    kinds = {cls for cls in set(map(type, found)) if issubclass(cls, _BUFFERS)}
    for one in found:
        if type(one) in kinds:
            _try(_flush_one, one)
            _opened_before.append(weakref.ref(one))


# -- in the job ------------------------------------------------------------------------------------------------------


def exit_job(channel: JobChannel) -> NoReturn:
    """End the process of a job whose `done` was sent. Its exit code is 0, whatever is raised here.

    No user code runs before the result is in the spool's log or, without an agent, in the job's own file.
    """
    _try(channel.wait_kept)
    stage = ["threads"]
    answer_when_asked(channel, stage)
    if threading.active_count() > 1:
        waited_for = still_running("threads")
        if waited_for:
            _try(_send_ending, channel, waited_for)
    _shut_down(stage)
    os._exit(0)


def answer_when_asked(channel: JobChannel, stage: List[str]) -> None:
    """From now on, answer SIGTERM with what the end of the job waits for. `stage`: see `still_running`."""

    def answer(signum: int, frame: Any) -> None:
        running = still_running(stage[0], frame)
        _flush_all(unfinished(gc.get_objects())["flush"])
        _try(_send_ending, channel, running)

    _try(signal.signal, signal.SIGTERM, answer)


def exit_worker(seconds: float) -> NoReturn:
    """End a process that has done its jobs and gets no further one. It is killed after this many seconds, because nobody watches it."""
    for number in (signal.SIGTERM, signal.SIGALRM):
        _try(signal.signal, number, signal.SIG_DFL)
    _try(signal.setitimer, signal.ITIMER_REAL, max(seconds, 0.001))
    _shut_down(["threads"])
    os._exit(0)


def has_unfinished() -> bool:
    """Whether the job has left objects that must be finished, other than files that `flush_files` flushes."""
    gc.collect()
    left = unfinished(gc.get_objects())
    return bool(left["close"] or left["del"])


def flush_files() -> None:
    """Flush what was written so far: the files from before the job, the standard ones, and those of C."""
    _flush_all([], goes_on=True)


def exit_forked_child(error: Optional[BaseException]) -> NoReturn:
    """End a process that the application forked from its job and that returned to our code, as plain Python would."""
    code = 0
    if isinstance(error, SystemExit):
        if isinstance(error.code, int):
            code = error.code & 0xFF
        elif error.code is not None:
            sys.stderr.write("{}\n".format(error.code))
            code = 1
    elif error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    _shut_down(["threads"])
    os._exit(code)


def _shut_down(stage: List[str]) -> None:
    _try(getattr(threading, "_shutdown", None))
    stage[0] = "atexit"
    try:
        getattr(atexit, "_run_exitfuncs", _nothing)()
    except BaseException:  # noqa: BLE001, S110 - atexit has printed it; up to 3.9 it raises the last one again
        pass
    stage[0] = "objects"
    if threading.active_count() > 1:
        # Daemon threads go on for a moment while the objects that they use are finished. In plain Python they have stopped by now.
        threading.excepthook = _nothing
    _finish()


def _nothing(*ignored: Any) -> None:
    """Do nothing."""


def _try(function: Optional[Callable[..., Any]], *args: Any) -> None:
    """Call it. What it raises is printed to stderr, as Python does at the end of a process."""
    try:
        if function is not None:
            function(*args)
    except BaseException:  # noqa: BLE001 - a user's code may raise anything, SystemExit too
        try:
            sys.excepthook(*sys.exc_info())
        except BaseException:  # noqa: BLE001, S110 - the user's stderr or excepthook failed, so nothing can be printed
            pass


# -- objects and files -----------------------------------------------------------------------------------------------


def _kind_of(cls: type) -> str:
    """Return how objects of this type are finished: `flush`, `close`, `del`, or not at all."""
    if issubclass(cls, _BUFFERS):
        return "flush"
    if issubclass(cls, _IOBase):
        # Files of the C types hold nothing back. Those written in Python do: a compressed file must still write its end.
        return "" if cls.__module__ in ("_io", "io") else "close"
    for base in cls.__mro__:
        if "__del__" in base.__dict__:
            return "del" if hasattr(base.__dict__["__del__"], "__code__") else ""
    return ""


def unfinished(found: Iterable[Any]) -> Dict[str, List[Any]]:
    """Return the objects that must be finished, grouped by how."""
    found = list(found)
    kinds = {}
    for cls in set(map(type, found)) - _plain:
        kind = _kind_of(cls)
        if kind:
            kinds[cls] = kind
        else:
            _plain.add(cls)
    out: Dict[str, List[Any]] = {"flush": [], "close": [], "del": []}
    if kinds:
        for one in found:
            kind = kinds.get(type(one), "")
            if kind:
                out[kind].append(one)
    return out


def _finish() -> None:
    """Finish the job's unfinished objects, as Python would when it clears the modules.

    Outer objects come first: text is encoded, compressed files get their end, and then everything is flushed. Objects
    from before the job are skipped (`gc.freeze`), except files that were open then.
    """
    todo = unfinished(gc.get_objects())
    for file in todo["flush"]:
        if isinstance(file, TextIOWrapper):
            _try(_flush_one, file)
    for file in todo["close"]:
        _try(_close_one, file)
    is_finalized = getattr(gc, "is_finalized", None)
    for one in todo["del"]:
        if is_finalized is None or not is_finalized(one):
            _try(type(one).__del__, one)
    _flush_all(todo["flush"])


def _flush_all(files: List[Any], *, goes_on: bool = False) -> None:
    """Flush these files, those that were open before the job, the standard ones, and those of C.

    Text files come first. `goes_on`: C's files must still be open afterwards, and no other thread can hold a lock on one.
    """
    files = files + [file for file in (known() for known in _opened_before) if file is not None]
    files.sort(key=lambda file: not isinstance(file, TextIOWrapper))
    for file in [*files, sys.stdout, sys.stderr]:
        _try(_flush_one, file)
    load_stdio()
    _try(_flush_stdio if goes_on else _stdio)


def _flush_one(file: Any) -> None:
    if file is None:
        return
    try:
        if not getattr(file, "closed", False):
            file.flush()
    except ValueError:
        return  # detached, or closed at a lower level: nothing is left to flush


def _close_one(file: Any) -> None:
    if not getattr(file, "closed", False):
        file.close()


# -- what is still running -------------------------------------------------------------------------------------------


def still_running(stage: str, frame: Any = None) -> List[str]:
    """Return the names of what the end of this process waits for.

    Args:
        stage: `threads`, `atexit` or `objects`.
        frame: where the main thread is.
    """
    main = threading.main_thread()
    threads = [thread for thread in threading.enumerate() if thread is not main and not thread.daemon]
    names = ["thread {!r}".format(thread.name) for thread in threads]
    if stage != "threads":
        where = _outermost(frame)
        if where is not None:
            words = {"atexit": "atexit function", "objects": "end of an object"}
            names.append("{} {} ({}:{})".format(words[stage], *where))
    processes = sys.modules.get("multiprocessing.process")
    # Not `active_children`, which reaps them: the main thread may be doing just that.
    children = [child for child in list(getattr(processes, "_children", ())) if not child.daemon]
    names += ["process {!r} (pid {})".format(child.name, child.pid) for child in children]
    return [name[:_MAX_NAME] for name in names[:_MAX_NAMES]]


_OWN_FUNCTIONS: FrozenSet[str] = frozenset(
    {"_shut_down", "_try", "_finish", "_flush_all", "_close_one", "_flush_one", "exit_job", "has_unfinished"}
)


def _outermost(frame: Any) -> Optional[Tuple[str, str, int]]:
    """Return (function, file, line) of what this file called, which is where the main thread is stuck."""
    below = None
    while frame is not None:
        code = frame.f_code
        if code.co_filename == _shut_down.__code__.co_filename and code.co_name in _OWN_FUNCTIONS:
            break
        below = (getattr(code, "co_qualname", code.co_name), code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return below


def _send_ending(channel: JobChannel, running: List[str]) -> None:
    channel.send({"t": "ending", "running": running})
