"""What all events have in common, and reading them from a journal.

Rule: an event is plain data, so that it can be journalled as JSON and shown anywhere. `from_json` reads what `to_json` returns.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from launcher.util.frozen import frozen

if TYPE_CHECKING:
    from launcher.events import Event

__all__ = ["KINDS", "EventBase", "from_json"]

#: Name of a kind -> its class.
KINDS: dict[str, type[EventBase]] = {}
#: Of a field: its type, whether it is a tuple, and whether a value fits.
_Check = tuple[str, bool, Callable[[Any], bool]]
_CHECKS: dict[str, dict[str, _Check]] = {}


@frozen
class EventBase:
    """The fields and methods of all events."""

    kind: ClassVar[str] = "event"
    at: float

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        KINDS[cls.kind] = cls

    def to_json(self) -> dict[str, Any]:
        """Return the event as a JSON object."""
        # The fields are plain data already. `asdict` would copy them, and take ten times as long.
        return {"kind": self.kind, **self.__dict__}


def from_json(data: dict[str, Any]) -> Event:
    """Read an event that `to_json` wrote. Lists become tuples. Fields that a newer version has added are ignored.

    Raises:
        ValueError: the kind is unknown, or a field is missing or of another type.
    """
    kind = data.get("kind", "")
    cls = KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ValueError(f"unknown event kind {str(kind)[:100]!r}")
    checks = _checks_of(cls)
    fields = {}
    for name, given in data.items():
        if name not in checks:
            continue
        expected, is_tuple, fits = checks[name]
        if is_tuple and type(given) is list:
            given = tuple(given)
        if not fits(given):
            raise ValueError(f"{kind}: {name!r} is not of type {expected}")
        fields[name] = given
    try:
        if list(fields) == list(checks):
            # The usual case: as `to_json` wrote them, so in the order of the class, which is made three times as fast.
            return cast("Event", cls(*fields.values()))
        return cast("Event", cls(**fields))
    except TypeError as error:
        raise ValueError(str(error)) from None


def _checks_of(cls: type[EventBase]) -> dict[str, _Check]:
    checks = _CHECKS.get(cls.kind)
    if checks is None:
        types = {one.name: str(one.type) for one in dataclasses.fields(cls)}
        checks = _CHECKS[cls.kind] = {
            name: (expected, expected.startswith("tuple["), _FITS[expected]) for name, expected in types.items()
        }
    return checks


def _is_whole(value: Any) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (type(value) is float and math.isfinite(value))


#: Type of an event's field -> types that a journal may have for it.
_FITS: dict[str, Callable[[Any], bool]] = {
    "int": _is_whole,
    "float": _is_number,
    "str": lambda value: type(value) is str,
    "bool": lambda value: type(value) is bool,
    "tuple[str, ...]": lambda value: type(value) is tuple and all(type(one) is str for one in value),
    "tuple[int, ...]": lambda value: type(value) is tuple and all(map(_is_whole, value)),
    "dict[str, Any] | None": lambda value: value is None or type(value) is dict,
    "dict[str, Any]": lambda value: type(value) is dict,
    "dict[str, int]": lambda value: type(value) is dict and all(map(_is_whole, value.values())),
    "float | None": lambda value: value is None or _is_number(value),
    "int | None": lambda value: value is None or _is_whole(value),
    "str | None": lambda value: value is None or type(value) is str,
}
