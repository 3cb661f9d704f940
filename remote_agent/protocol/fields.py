"""Reads typed objects from the JSON that another process, host or version wrote.

Rule: the annotations of a class define the types of its fields, for mypy and for `read`. An object with a missing field, or with a field
of another type, is refused, and the error names the field. Unknown fields are ignored: a later version may send more.
The classes have no defaults, so every field must be given. `absent` has values for fields that an earlier version did
not write.
"""

import re
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, Type, TypeVar, Union, get_args, get_origin

__all__ = ["FieldError", "is_sha256", "learn", "read", "to_json"]

#: How many characters of a refused value an error shows.
_MAX_SHOWN = 200

T = TypeVar("T")
_Takes = Callable[[Any], bool]


class FieldError(ValueError):
    """A field is missing, or is wrong. The content of a list or an object may be secret, so it is not shown."""

    def __init__(self, what: str, name: str, value: Any) -> None:
        is_shown = value is None or value is _MISSING or isinstance(value, (str, int, float))
        shown = repr(value)[:_MAX_SHOWN] if is_shown else "of type {}".format(type(value).__name__)
        super().__init__("{}: {} is {}".format(what, name, shown))


class _Missing:
    def __repr__(self) -> str:
        return "missing"


_MISSING = _Missing()


def read(cls: Type[T], what: str, data: Any, absent: Mapping[str, Any]) -> T:
    """Read a named tuple of this class.

    Args:
        what: what it is, for the error.
        data: the JSON object.
        absent: field -> its value if it is missing; `list` and `dict` mean an empty one.

    Raises:
        FieldError: a field is missing, or of another type.
    """
    if not isinstance(data, dict):
        raise FieldError(what, "all of it", data)
    values = []
    for name, takes, make in _KNOWN.get(cls) or learn(cls):
        value = data.get(name, _MISSING)
        if value is _MISSING and name in absent:
            value = absent[name]
            value = value() if isinstance(value, type) else value
        elif make is not None and value is not None and value is not _MISSING:
            value = make(value)
        elif not takes(value):
            raise FieldError(what, name, value)
        values.append(value)
    return cls(*values)


#: For each field: its name, its check, and a reader if the field is such an object itself.
_Fields = Tuple[Tuple[str, _Takes, Optional[Callable[[Any], Any]]], ...]
_KNOWN: Dict[type, _Fields] = {}


def learn(cls: type) -> _Fields:
    """Read the annotations of a class, once for all its objects. A zygote does so before it forks."""
    known = _KNOWN[cls] = tuple((name, _check_of(kind), _reader_of(kind)) for name, kind in cls.__annotations__.items())
    return known


def _reader_of(kind: Any) -> Optional[Callable[[Any], Any]]:
    kinds = get_args(kind) if get_origin(kind) is Union else (kind,)
    makers = [one.from_json for one in kinds if hasattr(one, "from_json")]
    return makers[0] if makers else None


def _check_of(kind: Any) -> _Takes:
    """Return a check for a type. Numbers must be finite, and a bool is not a number."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value: value is not _MISSING
    if kind is float:
        return lambda value: type(value) is int or (type(value) is float and value - value == 0)
    if origin is Union and all(isinstance(one, type) and one is not float for one in args):
        return lambda value: type(value) in args
    if origin is Union:
        first, second = map(_check_of, args)
        return lambda value: first(value) or second(value)
    if origin is list:
        takes_one = _check_of(args[0])
        return lambda value: isinstance(value, list) and all(map(takes_one, value))
    if origin is dict:
        takes_it = _check_of(args[1])
        return lambda value: isinstance(value, dict) and all(map(takes_it, value.values()))
    return lambda value: type(value) is kind


def to_json(carrier: Any) -> Dict[str, Any]:
    """Return the fields of a named tuple that has only plain data."""
    return dict(zip(carrier._fields, carrier))


_SHA256 = re.compile("[0-9a-f]{64}")


def is_sha256(text: Any) -> bool:
    """Whether it is a SHA-256, which names content and cannot be a path."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None
