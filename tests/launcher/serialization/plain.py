"""What the tests of plain values share."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import struct
from typing import Any

from launcher.serialization.plain_records import finder
from launcher.serialization.plain_values import read_plain
from remote_agent.shared.plain_value import encode


def back(value: Any, *allowed: type) -> Any:
    """Encode a value as a host does, and read it here."""
    return read_plain(encode(value), finder_of(*allowed))


def finder_of(*allowed: type) -> Any:
    """Allow these classes of this file."""
    return finder([f"{one.__module__}.{one.__qualname__}" for one in allowed], main_module=None, is_main=False)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, with the same types at every level.

    NaN equals itself, and 0.0 differs from -0.0.
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack("<d", one) == struct.pack("<d", other)
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, (list, tuple, collections.deque)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    if isinstance(one, decimal.Decimal):
        return one.as_tuple() == other.as_tuple()
    if isinstance(one, slice):
        return same((one.start, one.stop, one.step), (other.start, other.stop, other.step))
    if isinstance(one, (dt.datetime, dt.time)):
        return one == other and one.fold == other.fold and str(one.tzinfo) == str(other.tzinfo)
    return bool(one == other)
