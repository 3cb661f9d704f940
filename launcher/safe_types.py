"""What a host that is not trusted may have pickled: the types and functions, each with what it may be called with.

Rule: this is the whole list (see `launcher.safe_pickle`, which reads it); a call is made here, with arguments that were
checked here. What is only mentioned, such as the type in an annotation, has no maker and cannot be called.
"""

from __future__ import annotations

import builtins
import collections
import datetime as dt
import decimal
import fractions
import pathlib
import re
import types
from collections.abc import Callable
from typing import Any

from launcher.errors import LauncherError

__all__ = [
    "CONFIG_TYPES",
    "EMPTY_MADE",
    "FUNCTIONS",
    "NODE_STATE",
    "Forbidden",
    "Maker",
    "checked_dtype",
    "dtype_with",
    "makers",
    "plain_call",
    "require",
]

Maker = Callable[..., Any]
#: A range longer than this would be a large list at the next step.
_MAX_RANGE = 10_000_000
_MENTIONED = ("int", "float", "bool", "str", "bytes", "complex", "list", "dict", "tuple", "set", "frozenset", "object")
_DTYPE = re.compile(r"[<>|=]?(?:\?|[biufcSUmMV][0-9]*|bool|u?int\d+|float\d+|complex\d+)")
_UNIT = re.compile(r"(?:[YMWDhms]|ms|us|ns|ps|fs|as|generic)")


class Forbidden(LauncherError):
    """A pickle holds a type that is not on the allowlist, or makes something of one that is not allowed."""


def require(condition: object, what: str) -> None:
    """Raise Forbidden, naming what is refused, unless the condition holds."""
    if not condition:
        raise Forbidden(f"results=safe refuses {what}")


# -- makers: what may be called, with which arguments ----------------------------------------------------------------


def _bytes() -> bytes:
    # As protocol 2 has the empty ones.
    return b""


def _bytearray(data: Any = b"") -> bytearray:
    require(isinstance(data, bytes), "a bytearray of anything but bytes")
    return bytearray(data)


def _collection(kind: Any) -> Maker:
    def make(*arguments: Any) -> Any:
        sized = (list, tuple, set, frozenset, dict)
        require(len(arguments) <= 2 and all(isinstance(one, sized) for one in arguments[:1]), f"such a {kind.__name__}")
        require(len(arguments) < 2 or arguments[1] is None or isinstance(arguments[1], int), f"such a {kind.__name__}")
        return kind(*arguments)

    return make


def _defaultdict(factory: Any = None) -> Any:
    is_builtin = factory is None or (isinstance(factory, type) and factory.__module__ == "builtins")
    require(is_builtin, "a defaultdict of something but a builtin type")
    return collections.defaultdict(factory)


def _range(*numbers: Any) -> range:
    require(all(isinstance(one, int) for one in numbers), "such a range")
    made = range(*numbers)
    require((made.stop - made.start) // made.step <= _MAX_RANGE, "a range this long")
    return made


def _fraction(*arguments: Any) -> fractions.Fraction:
    is_numbers = all(isinstance(one, int) for one in arguments)
    is_text = len(arguments) == 1 and isinstance(arguments[0], str) and re.fullmatch(r"-?\d+(/\d+)?", arguments[0])
    require(is_numbers or is_text, "such a Fraction")
    return fractions.Fraction(*arguments)


def plain_call(kind: Any, *kinds: Any) -> Maker:
    """Calls it with plain values, and instances of these kinds, only."""

    def make(*arguments: Any) -> Any:
        allowed: Any = (str, bytes, int, float, bool, type(None), tuple, dt.tzinfo, dt.timedelta, *kinds)
        require(all(isinstance(one, allowed) for one in arguments), f"such a {getattr(kind, '__name__', kind)}")
        return kind(*arguments)

    return make


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    require(isinstance(text, str) and encoding == "latin1", "an encoding other than latin1")
    return bytes(text, "latin1")


def _item_of(origin: Any, arguments: Any) -> Any:
    # Annotations such as Dict[str, int].
    is_typing = getattr(origin, "__module__", None) == "typing" or isinstance(origin, types.GenericAlias)
    require(is_typing, "an item of something but an annotation")
    return origin[arguments]


def _generic_alias(origin: Any, arguments: Any) -> Any:
    require(isinstance(origin, type) and origin.__module__ == "builtins", "such an annotation")
    return types.GenericAlias(origin, arguments)


def _dtype(text: Any, *_: Any) -> Any:
    import numpy as np

    require(isinstance(text, str) and _DTYPE.fullmatch(text), f"numpy's dtype {text!r}")
    made = np.dtype(text)
    require(not made.hasobject and made.names is None and made.itemsize < 1 << 20, f"numpy's dtype {text!r}")
    return made


def _reconstruct(kind: Any, shape: Any, _: Any) -> Any:
    import numpy as np

    require(kind is np.ndarray and shape == (0,), "an array that numpy would not pickle so")
    return np.empty((0,), "u1")


def checked_dtype(dtype: Any) -> Any:
    """The dtype, if arrays of it hold no pointers."""
    import numpy as np

    require(isinstance(dtype, np.dtype) and not dtype.hasobject, "an array of objects")
    return dtype


def _scalar(dtype: Any, data: Any) -> Any:
    import numpy as np

    checked_dtype(dtype)
    require(isinstance(data, bytes) and len(data) == dtype.itemsize, "such a numpy scalar")
    return np.frombuffer(data, dtype, 1)[0]


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> Any:
    import numpy as np

    checked_dtype(dtype)
    require(isinstance(data, (bytes, bytearray)) and order in ("C", "F", None), "such an array")
    require(isinstance(shape, tuple) and all(isinstance(one, int) and one >= 0 for one in shape), "such a shape")
    return np.frombuffer(data, dtype).reshape(shape, order=order or "C")


def makers() -> dict[tuple[str, str], Maker | None]:
    """What each allowed global may be called with; None for what may be mentioned only."""
    found: dict[tuple[str, str], Maker | None] = {("builtins", name): None for name in _MENTIONED}
    found.update({("builtins", name): _collection(getattr(builtins, name)) for name in ("set", "frozenset")})
    found["builtins", "bytes"] = _bytes
    found["builtins", "bytearray"] = _bytearray
    found["builtins", "complex"] = plain_call(complex)
    found["builtins", "range"] = _range
    found["builtins", "slice"] = plain_call(slice)
    for name, value in vars(builtins).items():
        if isinstance(value, type) and issubclass(value, Exception) and value.__name__ == name:
            found["builtins", name] = value
    for name in ("OrderedDict", "deque", "Counter"):
        found["collections", name] = _collection(getattr(collections, name))
    found["collections", "defaultdict"] = _defaultdict
    for name in ("date", "datetime", "time", "timedelta", "timezone"):
        found["datetime", name] = plain_call(getattr(dt, name))
    found["decimal", "Decimal"] = plain_call(decimal.Decimal)
    found["fractions", "Fraction"] = _fraction
    found["uuid", "UUID"] = None
    for name in ("PurePath", "PurePosixPath", "PureWindowsPath", "Path", "PosixPath"):
        for module in ("pathlib", "pathlib._local"):
            found[module, name] = plain_call(getattr(pathlib, name))
    found["types", "GenericAlias"] = _generic_alias
    for name in ("Any", "Dict", "List", "Tuple", "Optional", "Union"):
        found["typing", name] = None
    found["numpy", "ndarray"] = None
    found["numpy", "dtype"] = _dtype
    for name in _NODES:
        found["omegaconf.nodes", name] = None
    found["omegaconf.dictconfig", "DictConfig"] = found["omegaconf.listconfig", "ListConfig"] = None
    found["omegaconf.base", "Metadata"] = found["omegaconf.base", "ContainerMetadata"] = None
    found["remote_agent.job", "JobError"] = found["remote_agent.job", "RemoteJobError"] = None
    return found


#: Functions that are not called themselves: what stands here is.
FUNCTIONS: dict[tuple[str, str], Maker] = {
    ("_codecs", "encode"): _encode,
    ("operator", "getitem"): _item_of,
    ("_operator", "getitem"): _item_of,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
}
_NODES = (
    "AnyNode",
    "BooleanNode",
    "BytesNode",
    "EnumNode",
    "FloatNode",
    "IntegerNode",
    "PathNode",
    "StringNode",
    "UnionNode",
)
#: Attributes that a pickled node of omegaconf has.
NODE_STATE = frozenset(
    {
        "_metadata",
        "_parent",
        "_content",
        "_val",
        "_flags_cache",
        "enum_type",
        "fields",
        "ref_type",
        "object_type",
        "optional",
        "key",
        "flags",
        "flags_root",
        "resolver_cache",
        "key_type",
        "element_type",
    }
)
#: Modules whose dataclasses and enums may be mentioned as the types of a config.
CONFIG_TYPES = (
    "hydra.conf",
    "hydra.types",
    "hydra._internal.core_plugins.basic_launcher",
    "hydra._internal.core_plugins.basic_sweeper",
    "hydra_plugins.hydra_remote_launcher._conf",
    "remote_agent.job",
)
#: Types whose instances are made by their `__new__` without arguments and then given a state.
EMPTY_MADE = frozenset(
    {
        ("uuid", "UUID"),
        ("remote_agent.job", "JobError"),
        ("omegaconf.dictconfig", "DictConfig"),
        ("omegaconf.listconfig", "ListConfig"),
        ("omegaconf.base", "Metadata"),
        ("omegaconf.base", "ContainerMetadata"),
    }
    | {("omegaconf.nodes", name) for name in _NODES}
)


def dtype_with(dtype: Any, state: tuple[Any, ...]) -> Any:
    """The dtype with the byte order and the time unit of a pickled state; records and objects are refused."""
    import numpy as np

    require(7 < len(state) < 10 and state[2] is None and not state[3] and not state[4], "an array of records")
    require(state[1] in ("<", ">", "|", "="), "such a byte order")
    made = dtype
    if dtype.kind in "mM" and len(state) > 8:
        unit = state[8][1][0] if isinstance(state[8], tuple) and isinstance(state[8][1], tuple) else None
        unit = unit.decode() if isinstance(unit, bytes) else unit
        require(isinstance(unit, str) and _UNIT.fullmatch(unit), "such a unit of time")
        made = np.dtype(f"{dtype.kind}8[{unit}]") if unit != "generic" else dtype
    return made.newbyteorder(state[1]) if state[1] in ("<", ">") else made
