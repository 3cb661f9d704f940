"""Pickles on the controller: what goes to a host, and what comes back from one.

Rule: what a host can import is pickled by reference, under the name that it has there. What a script defines in `__main__` has
the script's module name there; a decorated function is reached through its wrapper. Lambdas, local functions and what a notebook
defines is pickled by value, and `Dumped` says so. When a pickle comes back, the script's module name means `__main__` again, so
that a class is the same class on both sides.

Any exception of a user's object while it is pickled becomes a CodeError that names the attribute at fault.
"""

from __future__ import annotations

import functools
import hashlib
import io
import linecache
import os
import pickle
import sys
import types
import typing
from collections.abc import Callable
from importlib import import_module
from typing import Any

import cloudpickle

from launcher.errors import CallbackError, CodeError
from launcher.serialization.modules import main_module_name
from launcher.util.frozen import frozen
from remote_agent.by_reference import cached_property, caching, code_of_cell, dispatching, resolve

__all__ = ["Dumped", "check_state", "dumps", "loads"]

#: Known to Python 3.8 and later.
PROTOCOL = 5
_MAIN = ("__main__", "__mp_main__")
#: How cloudpickle reduces types such as type(None) and types.MethodType, which are not the user's code.
_NOT_CODE = (type, cloudpickle.cloudpickle._builtin_type)  # noqa: SLF001 - there is no public name for it
#: The type of a function behind `functools.lru_cache`.
_LruCached = type(functools.lru_cache(len))
#: Attributes that it copies from the function, or adds itself.
_OF_WRAPPER = ("__wrapped__", "cache_parameters", *functools.WRAPPER_ASSIGNMENTS)
#: The file of code in a pickle of cloudpickle. Its version 3.0 leaves what it was.
_DYNAMIC = "<dynamic-code>"
#: Characters. The source of a longer cell is not sent.
_MAX_CELL = 200_000
_STANDARD_STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")


@frozen
class Dumped:
    """A pickle.

    Attributes:
        data: the bytes.
        by_value: code in it is pickled by value, which needs the same minor Python on both sides.
        values: the names of what is pickled by value.
        modules: the modules that are imported when it is loaded.
    """

    data: bytes
    by_value: bool
    values: tuple[str, ...] = ()
    modules: frozenset[str] = frozenset()


# -- to a host -----------------------------------------------------------------------------------------------------


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, main_module: str | None) -> None:
        super().__init__(file, protocol=PROTOCOL)
        self._main_module = main_module
        self.values: dict[str, None] = {}
        self.modules: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, types.FunctionType, typing.TypeVar)):
            return self._reduce_code(obj)
        if type(obj) is functools.cached_property:
            return cached_property, (obj.func, obj.attrname)  # it may hold a lock
        if isinstance(obj, types.CodeType):
            return _reduce_with_source(obj, self.dispatch_table[types.CodeType](obj))
        if _has_qualified_name(obj):
            return self._reduce_named(obj)
        if isinstance(obj, types.ModuleType):
            if self._main_module is not None and obj is sys.modules.get("__main__"):
                return import_module, (self._main_module,)
            self.modules.add(obj.__name__)
        elif _is_open_file(obj):
            # cloudpickle would send what a file holds, as a file in memory.
            raise pickle.PicklingError("an open file cannot be pickled")
        return super().reducer_override(obj)

    def _reduce_code(self, obj: Any) -> Any:
        found = self._by_name(obj)
        if found is not None:
            self.modules.add(found[0])
            return resolve, found
        if _is_single_dispatch(obj) and not _is_importable(obj):
            self.values[_name_of(obj)] = None
            return dispatching, (obj.__wrapped__, list(obj.registry.items()))
        reduced = super().reducer_override(obj)
        name = _name_of(obj)
        if reduced is NotImplemented:
            self.modules.add(str(getattr(obj, "__module__", None)))
        elif reduced[0] not in _NOT_CODE:
            self.values[name] = None
        return reduced

    def _reduce_named(self, obj: Any) -> Any:
        """Reduce an object that is no class or function and pickles by its name, as a function behind `functools.lru_cache` does.

        Raises:
            PicklingError: no host has this name, and the object cannot be pickled by value.
        """
        found = self._by_name(obj)
        if found is not None:
            self.modules.add(found[0])
            return resolve, found
        is_main = getattr(obj, "__module__", None) in _MAIN
        # cloudpickle has a way for the types in its table, such as static methods.
        if not isinstance(obj, _LruCached) and (not is_main or type(obj) in self.dispatch_table):
            return super().reducer_override(obj)
        if _is_importable(obj):
            self.modules.add(str(obj.__module__))
            return NotImplemented
        if isinstance(obj, _LruCached):
            self.values[_name_of(obj)] = None
            how = obj.cache_parameters()
            more = {key: value for key, value in vars(obj).items() if key not in _OF_WRAPPER}
            return caching, (obj.__wrapped__, how["maxsize"], how["typed"]), more
        if isinstance(obj.__reduce_ex__(PROTOCOL), str):
            raise pickle.PicklingError(
                f"{_name_of(obj)} can only be pickled by its name, and no host has this notebook; put it into a module"
            )
        return super().reducer_override(obj)

    def _by_name(self, obj: Any) -> tuple[str, str] | None:
        """(module, path) by which a host finds an object that pickle itself would not find by its name."""
        module = getattr(obj, "__module__", None)
        name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
        if not isinstance(module, str) or not isinstance(name, str):
            return None
        is_main = module in _MAIN
        if is_main and self._main_module is None:
            return None
        if not is_main and not isinstance(obj, (types.FunctionType, _LruCached)):
            return None
        if module in cloudpickle.list_registry_pickle_by_value():
            return None
        value: Any = sys.modules.get(module)
        for part in name.split("."):
            value = getattr(value, part, None)
        path = name
        while value is not None and value is not obj and len(path) < len(name) + 200:
            # A decorated function: its name leads to the wrapper.
            value = getattr(value, "__wrapped__", None)
            path += ".__wrapped__"
        if value is not obj or (not is_main and path == name):
            return None
        return (self._main_module or module) if is_main else module, path


def _reduce_with_source(code: types.CodeType, reduced: Any) -> Any:
    """Reduce code with the source of its cell, so that a traceback on a host has its lines. Code of a file stays as cloudpickle reduces it."""
    make, parts = reduced[:2]
    cell = _cell_of(code.co_filename)
    if make is not types.CodeType or cell is None:
        return reduced
    name, source = cell
    files = (code.co_filename, _DYNAMIC)
    return code_of_cell, (tuple(name if type(one) is str and one in files else one for one in parts), name, source)


@functools.lru_cache(maxsize=200)
def _cell_of(file: str) -> tuple[str, str] | None:
    """A name for a cell of a notebook or a prompt, and its source; None if that is not known, or is in a file."""
    source = "".join(linecache.getlines(file))
    if not source or len(source) > _MAX_CELL or os.path.isfile(file):
        return None
    # The name is the same for the same source, and so is the pickle.
    return f"<cell {hashlib.sha256(source.encode('utf-8', 'replace')).hexdigest()[:8]}>", source


def _has_qualified_name(obj: Any) -> bool:
    """Whether it has a qualified name. Its `__getattr__` is not asked: that of a config takes any name for a key, and may raise."""
    try:
        return isinstance(object.__getattribute__(obj, "__qualname__"), str)
    except AttributeError:
        return False


def _name_of(obj: Any) -> str:
    return f"{getattr(obj, '__module__', None)}.{getattr(obj, '__qualname__', getattr(obj, '__name__', '?'))}"


def _is_importable(obj: Any) -> bool:
    """Whether a host finds it by its name, in a module that is not sent by value."""
    module = getattr(obj, "__module__", None)
    if module in _MAIN or module in cloudpickle.list_registry_pickle_by_value():
        return False
    value: Any = sys.modules.get(str(module))
    for part in str(getattr(obj, "__qualname__", "")).split("."):
        value = getattr(value, part, None)
    return value is obj


def _is_single_dispatch(obj: Any) -> bool:
    return (
        isinstance(obj, types.FunctionType)
        and obj.__globals__ is vars(functools)
        and isinstance(getattr(obj, "registry", None), types.MappingProxyType)
        and hasattr(obj, "__wrapped__")
    )


def _is_open_file(value: Any) -> bool:
    if not isinstance(value, (io.TextIOWrapper, io.BufferedIOBase, io.RawIOBase)) or isinstance(value, io.BytesIO):
        return False
    return all(value is not getattr(sys, name, None) for name in _STANDARD_STREAMS)


def _dump(value: Any, main_module: str | None) -> Dumped:
    file = io.BytesIO()
    pickler = _Pickler(file, main_module)
    pickler.dump(value)
    return Dumped(file.getvalue(), bool(pickler.values), tuple(pickler.values), frozenset(pickler.modules))


def dumps(value: Any, main_module: str | None = None) -> Dumped:
    """Pickle a value for a host.

    Args:
        main_module: the name under which the host imports `__main__`; None if it cannot.

    Raises:
        CodeError: it cannot be pickled; the message names the attribute at fault and its type.
    """
    try:
        return _dump(value, main_module)
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        # This includes a SystemExit that a __reduce__ raised.
        raise CodeError(_why_not(value, error, main_module)) from error


def _why_not(value: Any, error: BaseException, main_module: str | None) -> str:
    if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
        return f"it is nested too deeply to be pickled (Python's recursion limit is {sys.getrecursionlimit()})"
    from launcher.serialization.diagnosis import find_unpicklable_part

    found = find_unpicklable_part(value, lambda one: _dump(one, main_module))
    text = str(error) or type(error).__name__
    if found is None:
        return text
    path, what = found
    return f"{path} is {what} ({text})" if path else f"it is {what} ({text})"


# -- from a host, or from our own journal --------------------------------------------------------------------------


class _Unpickler(pickle.Unpickler):
    """Looks up names of the script's module in `__main__`."""

    def __init__(self, data: bytes, main_module: str | None) -> None:
        super().__init__(io.BytesIO(data))
        self._main_module = main_module if main_module is not None and main_module_name() == main_module else None

    def find_class(self, module: str, name: str) -> Any:
        if self._main_module is not None:
            if (module, name) == ("remote_agent.by_reference", "resolve"):
                return self.find_class
            if (module, name) == ("importlib", "import_module"):
                return self._import_module
            if module == self._main_module:
                value: Any = sys.modules["__main__"]
                for part in name.split("."):
                    value = getattr(value, part, None)
                if value is not None:
                    return value
        value = None
        if "." in name:
            # The path may lead through `__wrapped__`, as in `resolve`.
            return resolve(module, name)
        return super().find_class(module, name)

    def _import_module(self, name: str) -> types.ModuleType:
        return sys.modules["__main__"] if name == self._main_module else import_module(name)


def loads(data: bytes, main_module: str | None = None) -> Any:
    """Decode any pickle; it may run any code.

    Args:
        main_module: the name under which `__main__` was sent.

    Raises:
        Exception: whatever the pickle raises.
    """
    return _Unpickler(data, main_module).load()


# -- callbacks -----------------------------------------------------------------------------------------------------


def check_state(name: str, callback: Any, *, has_spec: bool) -> None:
    """Refuse a callback that holds something that cannot be pickled: a lock, a socket, an open file, a generator, ...

    A callback with a spec is built on the host from that, so it may hold anything.

    Raises:
        CallbackError: naming the callback and the attribute.
    """
    if has_spec:
        return
    dump: Callable[[Any], Dumped] = lambda one: _dump(one, main_module_name())  # noqa: E731
    try:
        dump(callback)
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        from launcher.serialization.diagnosis import find_unpicklable_part

        path, what = find_unpicklable_part(callback, dump) or ("", "")
        if not path:
            raise CallbackError(f"callback {name!r} cannot be sent to a host: {error}") from error
        raise CallbackError(
            f"callback {name!r} cannot be sent to a host: its attribute {path!r} is {what}. Make it in on_job_start, "
            "or leave it out of the pickle with __getstate__"
        ) from error
