"""Which part of an object keeps it from being pickled.

Rule: the part is found by trying. The parts of an object are those that pickle itself would come to. If an object cannot be pickled,
the search goes into its first part that cannot be pickled either, until all parts of a part can be.
"""

from __future__ import annotations

import functools
import io
import socket
import sqlite3
import threading
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from remote_agent.job import with_article

__all__ = ["find_unpicklable_part"]

_MAX_TRIES = 2000
_MAX_DEPTH = 30
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((type(threading.Lock()), type(threading.RLock())), "a lock"),
    ((threading.Condition, threading.Semaphore, threading.Event, threading.Barrier), "a lock"),
    (threading.Thread, "a thread"),
    (socket.socket, "a socket"),
    (sqlite3.Connection, "an open database"),
    ((types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType), "a generator"),
    (types.FrameType, "a stack frame"),
    (types.TracebackType, "a traceback"),
    (types.ModuleType, "a module"),
    ((weakref.ref, weakref.ProxyType), "a weak reference"),
    (memoryview, "a memoryview"),
)


def find_unpicklable_part(value: Any, dump: Callable[[Any], object]) -> tuple[str, str] | None:
    """(path, what it is) of the innermost part that cannot be pickled; None if no single part is at fault.

    Args:
        value: what cannot be pickled.
        dump: pickles a part, or raises.
    """
    return _Search(dump).search(value, "", 0)


class _Search:
    def __init__(self, dump: Callable[[Any], object]) -> None:
        self._dump = dump
        self._tries = 0
        # The parts are kept alive, so that no other object gets the id of one of them.
        self._seen: dict[int, Any] = {}

    def search(self, value: Any, path: str, depth: int) -> tuple[str, str] | None:
        if id(value) in self._seen or self._tries >= _MAX_TRIES:
            return None
        self._seen[id(value)] = value
        self._tries += 1
        try:
            self._dump(value)
            return None
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a user's __reduce__ raises
            problem = error
        if isinstance(problem, RecursionError):
            return None
        if depth < _MAX_DEPTH:
            for label, part in _parts(value):
                found = self.search(part, path + label, depth + 1)
                if found is not None:
                    return found
        return path.lstrip("."), _described(value)


def _described(value: Any) -> str:
    for kinds, what in _KINDS:
        if isinstance(value, kinds):
            return what
    if isinstance(value, io.IOBase):
        name = getattr(value, "name", None)
        return f"an open file ({name})" if isinstance(name, str) else "an open file"
    if isinstance(value, types.FunctionType):
        return f"the function {value.__qualname__}"
    kind = type(value)
    return with_article(f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."))


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """(path from the object, part), in the order in which pickle would come to them."""
    if isinstance(value, (list, tuple)):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif type(value) is dict:
        yield from _items(value)
    elif isinstance(value, (set, frozenset)):
        yield from (("{...}", part) for part in value)
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, types.MethodType):
        yield "", value.__self__
    elif isinstance(value, functools.partial):
        yield ".func", value.func
        yield from ((f".args[{index}]", part) for index, part in enumerate(value.args))
        yield from ((f".keywords[{key!r}]", part) for key, part in value.keywords.items())
    elif not isinstance(value, type):
        yield from _of_reduced(value)


def _items(value: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, part in value.items():
        yield f"[{key!r}]", part
        yield f"[key {key!r}]", key


def _of_function(value: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=False):
        try:
            yield f".<variable {name}>", cell.cell_contents
        except ValueError:
            continue  # not bound yet
    for index, part in enumerate(value.__defaults__ or ()):
        yield f".<default {index}>", part
    for name in value.__code__.co_names:
        if name in value.__globals__:
            yield f".<global {name}>", value.__globals__[name]
    yield from ((f".{name}", part) for name, part in vars(value).items())


def _of_reduced(value: Any) -> Iterator[tuple[str, Any]]:
    try:
        reduced = value.__reduce_ex__(5)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - the object itself cannot be pickled
        return
    if not isinstance(reduced, tuple):
        return
    _, arguments, state, items, pairs = (*reduced[:5], None, None, None)[:5]
    states = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    for one in states:
        if isinstance(one, Mapping):
            yield from ((f".{name}", part) for name, part in one.items())
        elif one is not None:
            yield ".<state>", one
    for index, part in enumerate(items or ()):
        yield f"[{index}]", part
    for key, part in pairs or ():
        yield f"[{key!r}]", part
    for part in arguments or ():
        if not isinstance(part, type):
            yield "", part
