"""Pickles from a host that is not trusted: decoded into an exact list of types, and nothing else.

Rule: nothing is called but what stands here, each with arguments that are checked first; a type that is only mentioned
(a factory, an annotation) cannot be called. State is set on instances of listed types, never on types, functions or
modules. Every length is compared with what has arrived before memory is taken for it.

| module | allowed |
|---|---|
| builtins | None, bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, slice; exceptions |
| collections | OrderedDict, defaultdict of a builtin type, deque, Counter |
| datetime, decimal, fractions, uuid | date, datetime, time, timedelta, timezone; Decimal; Fraction; UUID |
| pathlib | paths |
| numpy | arrays and scalars of numbers, booleans, texts, bytes and times; no objects, no records |
| omegaconf | DictConfig, ListConfig and their plain nodes; Hydra's own config types as annotations |
| remote_agent | JobError, RemoteJobError, JobStatus |

`allow` adds types or functions by name, with all that they can do. What this does not promise: a value may still be large,
deep, or slow to compare, within the size of what was sent.
"""

# ruff: noqa: SLF001 - pickle's pure Python half is taken as it is; only there can each step be looked at.

from __future__ import annotations

import _compat_pickle
import collections
import enum
import importlib
import io
import pickle
import struct
import typing
from collections.abc import Callable, Iterable
from typing import Any

from launcher.safe_types import (
    CONFIG_TYPES,
    EMPTY_MADE,
    FUNCTIONS,
    NODE_STATE,
    Forbidden,
    Maker,
    checked_dtype,
    dtype_with,
    makers,
    plain_call,
    require,
)
from remote_agent.job import with_article

__all__ = ["Forbidden", "safe_loads"]

_UINT64 = struct.Struct("<Q")
_BUILD: Any = pickle._Unpickler.dispatch[pickle.BUILD[0]]


class _SafeUnpickler(pickle._Unpickler):
    """Python's own unpickler, written in Python, with each step that makes or changes an object taken over."""

    stack: list[Any]
    memo: dict[int, Any]
    proto: int
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    dispatch: typing.ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, data: bytes, allow: frozenset[str]) -> None:
        super().__init__(io.BytesIO(data))
        self._size = len(data)
        self._allow = allow
        self._known = makers()
        # By identity: what was found by name, with its maker; what the user allowed; what is made empty.
        self._callable: dict[int, Maker] = {}
        self._trusted: dict[int, Any] = {}
        self._empty: dict[int, Any] = {}

    # -- names -----------------------------------------------------------------------------------------------------

    def find_class(self, module: str, name: str) -> Any:
        if self.proto < 3:
            # A pickle for Python 2, as to the names.
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        key = (module, name)
        if f"{module}.{name}" in self._allow or f"{module}:{name}" in self._allow:
            value = _found(module, name)
            self._trusted[id(value)] = value
            return value
        if key in FUNCTIONS:
            function = FUNCTIONS[key]
            self._callable[id(function)] = function
            return function
        if key in self._known:
            value = _found("pathlib" if module == "pathlib._local" else module, name)
            maker = self._known[key]
            if maker is not None:
                self._callable[id(value)] = maker
            if key in EMPTY_MADE:
                self._empty[id(value)] = value
            if key == ("remote_agent.job", "RemoteJobError"):
                self._callable[id(value)] = plain_call(value, _found("remote_agent.job", "JobError"))
            return value
        if module in CONFIG_TYPES:
            value = _found(module, name)
            if isinstance(value, type) and issubclass(value, enum.Enum):
                self._callable[id(value)] = value
                return value
            if isinstance(value, type) and hasattr(value, "__dataclass_fields__") and value.__module__ == module:
                return value
        hint = f"; allow_types=[{module}.{name}] allows it, if you trust it and the host"
        if module.startswith("cloudpickle"):
            hint = ": code that travels by value, as from a notebook, cannot be decoded safely"
        raise Forbidden(f"results=safe refuses {module}.{name}{hint}")

    def get_extension(self, code: int) -> None:
        raise Forbidden("results=safe refuses copyreg's extension codes")

    # -- making ----------------------------------------------------------------------------------------------------

    def _made(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        if id(function) in self._trusted:
            return function(*arguments)
        maker = self._callable.get(id(function))
        if maker is None:
            raise Forbidden(f"results=safe refuses to call {_name(function)}")
        return maker(*arguments)

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        require(isinstance(arguments, tuple), "a call without a tuple of arguments")
        self.stack[-1] = self._made(self.stack[-1], arguments)

    dispatch[pickle.REDUCE[0]] = load_reduce

    def _instantiate(self, klass: Any, arguments: Any) -> None:
        self.append(self._made(klass, tuple(arguments)))

    def load_newobj(self) -> None:
        arguments = self.stack.pop()
        kind = self.stack.pop()
        self.append(self._new(kind, arguments, {}))

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_newobj_ex(self) -> None:
        keywords = self.stack.pop()
        arguments = self.stack.pop()
        kind = self.stack.pop()
        self.append(self._new(kind, arguments, keywords))

    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex

    def _new(self, kind: Any, arguments: Any, keywords: Any) -> Any:
        require(
            isinstance(kind, type) and isinstance(arguments, tuple) and isinstance(keywords, dict), "such an object"
        )
        if id(kind) in self._trusted:
            return kind.__new__(kind, *arguments, **keywords)
        if id(kind) in self._empty and not arguments and not keywords:
            return object.__new__(kind)
        return self._made(kind, arguments) if not keywords else self._made(None, ())

    # -- state -----------------------------------------------------------------------------------------------------

    def load_build(self) -> None:
        state = self.stack.pop()
        value = self.stack[-1]
        kind = type(value)
        if id(kind) in self._trusted:
            self.stack.append(state)
            _BUILD(self)
            return
        if kind.__module__ == "numpy" or kind.__module__.startswith("numpy."):
            self.stack[-1] = self._numpy_state(value, state)
        elif isinstance(value, Exception):
            require(isinstance(state, dict) and all(isinstance(name, str) for name in state), "such an exception")
            BaseException.__setstate__(value, {name: one for name, one in state.items() if not name.startswith("__")})
        elif id(kind) in self._empty:
            self._set_state(value, state)
        elif kind in (collections.OrderedDict, collections.deque, collections.Counter) and not state:
            return
        else:
            raise Forbidden(f"results=safe refuses to set the state of {with_article(_name(kind))}")

    dispatch[pickle.BUILD[0]] = load_build

    @staticmethod
    def _set_state(value: Any, state: Any) -> None:
        require(
            isinstance(state, dict) and all(isinstance(name, str) for name in state), f"such a {type(value).__name__}"
        )
        if type(value).__module__.startswith("omegaconf."):
            require(state.keys() <= NODE_STATE, f"such a {type(value).__name__}")
        if hasattr(value, "__setstate__"):
            value.__setstate__(state)
        else:
            value.__dict__.update(state)

    def _numpy_state(self, value: Any, state: Any) -> Any:
        import numpy as np

        require(isinstance(state, tuple), "such a numpy object")
        if isinstance(value, np.dtype):
            return self._replaced(value, dtype_with(value, state))
        require(type(value) is np.ndarray and len(state) == 5, "such a numpy object")
        _, shape, dtype, _, data = state
        checked_dtype(dtype)
        require(isinstance(shape, tuple) and all(isinstance(one, int) and one >= 0 for one in shape), "such a shape")
        count = 1
        for one in shape:
            count *= one
        require(isinstance(data, bytes) and count * dtype.itemsize == len(data), "an array whose size does not match")
        value.__setstate__(state)
        return value

    def _replaced(self, old: Any, new: Any) -> Any:
        """A dtype cannot be changed safely: another takes its place, also where later parts refer to it."""
        for index, one in list(self.memo.items()):
            if one is old:
                self.memo[index] = new
        return new

    # -- sizes -----------------------------------------------------------------------------------------------------

    def load_bytearray8(self) -> None:
        (size,) = _UINT64.unpack(self.read(8))
        require(size <= self._size, "a bytearray longer than what was sent")
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def _found(module: str, name: str) -> Any:
    try:
        value: Any = importlib.import_module(module)
        for part in name.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        raise Forbidden(
            f"the result holds {with_article(f'{module}.{name}')}, which is not there on the controller: {error}"
        ) from None
    return value


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '?')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def safe_loads(data: bytes, allow: Iterable[str | type] = ()) -> Any:
    """Decode a pickle that holds nothing but allowed types.

    Args:
        allow: more of them: types, or names as `module.Class` or `module:Class`.

    Raises:
        Forbidden: it holds something else, or is damaged.
    """
    names = frozenset(one if isinstance(one, str) else f"{one.__module__}.{one.__qualname__}" for one in allow)
    try:
        return _SafeUnpickler(data, names).load()
    except (Forbidden, MemoryError):
        raise
    except Exception as error:
        raise Forbidden(f"the result cannot be decoded: {type(error).__name__}: {error}") from error
