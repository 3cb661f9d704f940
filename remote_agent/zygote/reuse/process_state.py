"""What a job finds in its process and may change: variables, signals, logging, streams. A worker sets it back before its next job.

Rule: a job finds all this as in a fresh process. What cannot be set back ends the worker. Modules and their globals are not set back:
that jobs share them is what `reuse` means.
"""

import gc
import locale
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from typing import Any, Callable, Dict, List, Set, Tuple

from remote_agent.hydra.state import ProcessWide
from remote_agent.job_process.context import drop_default_handlers
from remote_agent.job_process.process import get_handler

__all__ = ["ProcessState"]

#: (module, its attributes that say how the whole process behaves).
_ATTRIBUTES: Tuple[Tuple[Any, Tuple[str, ...]], ...] = (
    (sys, ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")),
    (sys, ("displayhook", "excepthook", "unraisablehook", "breakpointhook")),
    (threading, ("excepthook",)),
    (warnings, ("filters", "showwarning", "formatwarning")),
    (tempfile, ("tempdir",)),
    (logging, ("raiseExceptions", "lastResort", "_loggerClass", "_logRecordFactory", "_warnings_showwarning")),
)
#: (what it is, how it is set).
_SETTINGS: Tuple[Tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (sys.getswitchinterval, sys.setswitchinterval),
    (sys.gettrace, sys.settrace),
    (sys.getprofile, sys.setprofile),
    (gc.isenabled, lambda is_on: gc.enable() if is_on else gc.disable()),
    (gc.get_threshold, lambda levels: gc.set_threshold(*levels)),
    (lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)),
    (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        lambda mask: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
    ),
    (lambda: logging.root.manager.disable, logging.disable),
)
_NUMBERS = sorted(int(number) for number in signal.valid_signals())
#: What a text stream can be set to.
_FORM = ("encoding", "errors", "line_buffering", "write_through", "newlines", "closed")


class ProcessState:
    """How the process is now. `set_back` makes it so again."""

    def __init__(self) -> None:
        self._attributes = [(module, name, getattr(module, name)) for module, names in _ATTRIBUTES for name in names]
        self._lists: List[Tuple[Any, List[Any]]] = [
            (found, list(found)) for found in (sys.path, sys.argv, warnings.filters)
        ]
        self._settings = [ask() for ask, _ in _SETTINGS]
        self._variables = dict(os.environ)
        self._signals = _signals()
        self._streams = _forms()
        self._logging = _Logging()
        self._process_wide = ProcessWide()

    def set_back(self) -> bool:
        """Set everything back. Returns False if something cannot be."""
        for module, name, value in self._attributes:
            setattr(module, name, value)
        for found, content in self._lists:
            if found != content:
                found[:] = content
        with warnings.catch_warnings():
            pass  # from now on, warnings that were shown once count as new
        for (ask, put), value in zip(_SETTINGS, self._settings):
            if ask() != value:
                put(value)
        self._set_variables_back()
        self._logging.set_back()
        return self._process_wide.set_back() and _forms() == self._streams and self._set_signals_back()

    def _set_variables_back(self) -> None:
        now = dict(os.environ)
        if now == self._variables:
            return
        for name in set(now) - set(self._variables):
            del os.environ[name]
        for name, value in self._variables.items():
            if now.get(name) != value:
                os.environ[name] = value
        if now.get("TZ") != self._variables.get("TZ"):
            time.tzset()

    def _set_signals_back(self) -> bool:
        for number, handler in _signals().items():
            before = self._signals[number]
            if handler != before:
                if before is None or handler is None:
                    return False  # C code handles it
                signal.signal(number, before)
        return True


def _signals() -> Dict[int, Any]:
    return {number: get_handler(number) for number in _NUMBERS}


def _forms() -> List[Any]:
    """Return how the standard streams are set."""
    try:
        return [getattr(stream, name, None) for stream in (sys.stdin, sys.stdout, sys.stderr) for name in _FORM]
    except ValueError:  # a stream was detached
        return []


class _Logging:
    """The loggers of the process, with their handlers."""

    def __init__(self) -> None:
        self._loggers = {logger: _settings_of(logger) for logger in _loggers()}
        self._handlers = {
            handler: (handler.level, handler.formatter, list(handler.filters), getattr(handler, "stream", None))
            for logger in self._loggers
            for handler in logger.handlers
        }

    def set_back(self) -> None:
        """Set all of it back, and close the handlers that the job has added."""
        added: Set[logging.Handler] = set()
        for logger in _loggers():
            before = self._loggers.get(logger, _NEW)
            if _settings_of(logger) != before:
                added.update(handler for handler in logger.handlers if handler not in self._handlers)
                logger.level, logger.propagate, logger.disabled = before[:3]
                logger.handlers[:], logger.filters[:] = before[3:]
        for handler in added:
            try:
                handler.close()
            except Exception:  # noqa: BLE001 - a handler of the job may raise anything
                traceback.print_exc()
        drop_default_handlers()
        for handler, (level, formatter, filters, stream) in self._handlers.items():
            handler.level, handler.formatter, handler.filters[:] = level, formatter, filters
            if stream is not None and not getattr(stream, "closed", False):
                handler.stream = stream  # type: ignore[attr-defined]
        # This also clears what loggers have cached of their levels.
        logging.root.setLevel(logging.root.level)


_NEW: Tuple[Any, ...] = (logging.NOTSET, True, False, [], [])


def _loggers() -> List[logging.Logger]:
    named = list(logging.root.manager.loggerDict.values())
    return [logging.root, *(one for one in named if isinstance(one, logging.Logger))]


def _settings_of(logger: logging.Logger) -> Tuple[Any, ...]:
    return logger.level, logger.propagate, logger.disabled, list(logger.handlers), list(logger.filters)
