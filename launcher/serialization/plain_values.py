"""Reads values that hosts sent as plain data, in the format of `remote_agent.shared.plain_value` (docs/values.md).

Rule: only functions named in this file and in `plain_libraries` are called, with arguments of checked types.
`plain_records` makes a user's class, if its name was allowed. Every length and count is compared with the received
bytes and with a cap before memory is used for it. Whatever the bytes are, only `ResultNotDecoded` is raised.
"""
# ruff: noqa: SLF001  (the tables at the end name the reader's own methods)

from __future__ import annotations

import collections
import datetime as dt
import decimal
import fractions
import pathlib
import re
import struct
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from launcher.errors import LauncherError, ResultNotDecoded, ValueNotPlain
from launcher.serialization.plain_libraries import LIBRARY_KINDS, config_of, make_library_value, shown_library_value
from launcher.serialization.plain_records import FindType, is_hashed_by_python, rebuilt
from launcher.serialization.plain_text import plain_text
from launcher.util.text.terminal_text import clean
from remote_agent.shared.plain_value import MARK, MAX_DEPTH, MAX_NODES, MAX_SIZE, MAX_TEXT, VERSION, WHOLE

__all__ = ["NotSaid", "ShownRecord", "is_whole", "read_plain", "read_shown"]

_HEAD = len(MARK) + 2
_DOUBLE = struct.Struct("<d")
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,40}(?:/[A-Za-z0-9_+-]{1,40}){0,3}")
#: How many keys of one dict or set may have the same hash. With many more, a dict takes quadratic time.
_MAX_ALIKE = 256
_KEYS = (
    type(None), bool, int, float, complex, str, bytes, range, dt.date, dt.time, dt.datetime, dt.timedelta, dt.timezone,
    decimal.Decimal, fractions.Fraction, uuid.UUID, pathlib.PosixPath, pathlib.PurePosixPath, pathlib.PureWindowsPath,
)  # fmt: skip


class NotSaid:
    """A part of a shown value that has no plain form, or that is not made here."""

    def __init__(self, type_name: str, why: str, text: str) -> None:
        self.type_name, self.why, self.text = type_name, why, text

    def __repr__(self) -> str:
        return f"<{self.type_name}{': ' if self.text or self.why else ''}{self.text or self.why}>"


class ShownRecord:
    """An instance of a user's class in a shown value."""

    def __init__(self, name: str, fields: dict[str, Any]) -> None:
        self.name, self.fields = name, fields


def is_whole(data: bytes) -> bool:
    """Whether the host says that the whole value has a plain form."""
    return data[: len(MARK)] == MARK and len(data) > _HEAD and bool(data[_HEAD - 1] & WHOLE)


def read_plain(data: bytes, find_type: FindType | None = None) -> Any:
    """Read the value.

    Args:
        find_type: (module, name) -> the class if it was allowed, else None. Without this argument, no class is allowed.

    Raises:
        ValueNotPlain: a part of it has no plain form, or its class is not allowed.
        ResultNotDecoded: it is damaged, of another version, or over a cap.
    """
    return _read(_Reader(data, find_type or (lambda module, name: None)))


def read_shown(data: bytes) -> Any:
    """Read the value for `plain_text`. No library is imported for it, and a placeholder names each missing part.

    Raises:
        ResultNotDecoded: it is damaged, of another version, or over a cap.
    """
    return _read(_ShownReader(data, lambda module, name: None))


def _read(reader: _Reader) -> Any:
    try:
        return reader.whole()
    except LauncherError:
        raise
    except Exception as error:
        # From a constructor with arguments that it does not accept, from a library, or because the stack is full.
        told = _text(f"{type(error).__name__}: {error}", 300)
        raise ResultNotDecoded(f"the plain form of a value is damaged at byte {reader.at}: {told}") from error


def _place_in(name: str, place: str) -> str:
    """Return the place of a part in the value, from its place in the plain data."""
    if name == "record":
        return re.sub(r"^\[3\]\['(\w+)'\]", r".\1", place)
    return place.removeprefix("[0]") if name in ("deque", "config") else place if name in _DICTS else ""


def _text(text: Any, limit: int) -> str:
    return clean(str(text)[:limit]).encode("utf-8", "backslashreplace").decode()


class _Reader:
    """Reads one document. `at` is the position of the next byte."""

    def __init__(self, data: bytes, find_type: FindType) -> None:
        self.at = 0
        self._data = data
        self._size = len(data)
        self._count = 0
        self._find_type = find_type

    def whole(self) -> Any:
        """Read the value of the document."""
        if self._size > MAX_SIZE:
            raise ResultNotDecoded(f"the plain form of a value has {self._size:,} bytes; the cap is {MAX_SIZE:,}")
        head = self._bytes(_HEAD)
        if head[:3] != MARK:
            raise self._damaged("it does not begin with the format's mark")
        if head[3] != VERSION:
            raise ResultNotDecoded(f"the plain form of a value is of version {head[3]}; this launcher reads {VERSION}")
        value = self._node(0)
        if self.at != self._size:
            raise self._damaged("there are bytes after its end")
        return value

    def _damaged(self, why: str) -> ResultNotDecoded:
        return ResultNotDecoded(f"the plain form of a value is damaged at byte {self.at}: {why}")

    # -- bytes -------------------------------------------------------------------------------------------------------

    def _bytes(self, size: int) -> bytes:
        end = self.at + size
        if end > self._size:
            raise self._damaged("it ends in the middle")
        data = self._data[self.at : end]
        self.at = end
        return data

    def _length(self) -> int:
        (first,) = self._bytes(1)
        number = first if first < 255 else int.from_bytes(self._bytes(8), "little")
        # No length or count can exceed the bytes that are left, because every item takes at least one byte.
        if number > self._size - self.at:
            raise self._damaged(f"it announces {number:,} items, but {self._size - self.at:,} bytes are left")
        return number

    def _items_ahead(self, each: int = 1) -> int:
        number = self._length()
        if self._count + each * number > MAX_NODES:
            raise ResultNotDecoded(f"the plain form of a value has more than {MAX_NODES:,} values in it")
        return number

    # -- nodes -------------------------------------------------------------------------------------------------------

    def _node(self, depth: int) -> Any:
        self._count += 1
        if depth > MAX_DEPTH:
            raise self._damaged(f"it is nested more than {MAX_DEPTH} deep")
        if self._count > MAX_NODES:
            raise ResultNotDecoded(f"the plain form of a value has more than {MAX_NODES:,} values in it")
        tag = self._bytes(1)
        read = _NODES.get(tag)
        if read is None:
            raise self._damaged(f"the format has no node {tag!r}")
        return read(self, depth)

    def _int(self, depth: int) -> int:
        return int.from_bytes(self._bytes(self._length()), "little", signed=True)

    def _float(self, depth: int) -> float:
        made: float = _DOUBLE.unpack(self._bytes(8))[0]
        return made

    def _str(self, depth: int) -> str:
        return self._bytes(self._length()).decode("utf-8", "surrogatepass")

    def _list(self, depth: int) -> list[Any]:
        made: list[Any] = []
        for place in range(self._items_ahead()):
            try:
                made.append(self._node(depth + 1))
            except ValueNotPlain as error:
                raise error.within(f"[{place}]") from None
        return made

    def _elements(self, depth: int) -> list[Any]:
        made = self._list(depth)
        self._check_keys(made)
        return made

    def _dict(self, depth: int) -> dict[Any, Any]:
        keys: list[Any] = []
        values: list[Any] = []
        for _ in range(self._items_ahead(2)):
            keys.append(self._node(depth + 1))
            try:
                values.append(self._node(depth + 1))
            except ValueNotPlain as error:
                raise error.within(f"[{plain_text(keys[-1])[:100]}]") from None
        self._check_keys(keys)
        made = dict(zip(keys, values, strict=True))
        if len(made) != len(keys):
            raise self._damaged("a dict has the same key twice")
        return made

    def _check_keys(self, keys: list[Any]) -> None:
        """Check that no code of a user's class runs to hash or compare the keys, and that not too many have the same
        hash.
        """
        for key in keys:
            self._check_key(key)
        if len(keys) > _MAX_ALIKE:
            (_, most), *_ = collections.Counter(map(hash, keys)).most_common(1)
            if most > _MAX_ALIKE:
                raise self._damaged(f"more than {_MAX_ALIKE} keys have the same hash")

    def _check_key(self, key: Any) -> None:
        kind = type(key)
        if kind in _KEYS:
            return
        if kind in (tuple, frozenset):
            for one in key:
                self._check_key(one)
        elif not is_hashed_by_python(kind):
            raise self._damaged(f"{_text(kind.__qualname__, 100)} cannot be a key, or an item of a set")

    def _unsaid(self, depth: int) -> Any:
        said = [self._node(depth + 1) for _ in range(3)]
        if not all(type(one) is str for one in said):
            raise self._damaged("the description of a part without a plain form is not text")
        return self._not_said(_text(said[0], 300), _text(said[1], 500), _text(said[2], 2000))

    def _not_said(self, name: str, why: str, text: str) -> Any:
        raise ValueNotPlain(name, why, text)

    # -- kinds -------------------------------------------------------------------------------------------------------

    def _known(self, depth: int) -> Any:
        name = self._bytes(self._length()).decode("ascii", "replace")
        try:
            made_of = self._node(depth + 1)
        except ValueNotPlain as error:
            raise error.at(_place_in(name, error.place)) from None
        if name in _DICTS:
            self._want(made_of, dict)
            return _DICTS[name](made_of)
        if type(made_of) is not tuple:
            raise self._damaged(f"{name[:40]!r} is not made from a tuple")
        if name in ("enum", "record"):
            return self._made_record(name, made_of)
        if name == "config":
            return self._config(*made_of)
        if name in LIBRARY_KINDS:
            return self._library_value(name, made_of)
        make = _KINDS.get(name)
        if make is None:
            raise self._damaged(f"the format has no kind {name[:40]!r}")
        return make(self, *made_of)

    def _want(self, value: Any, *kinds: type) -> None:
        if type(value) not in kinds:
            raise self._damaged(f"{type(value).__name__} where {kinds[0].__name__} was expected")

    def _made_record(self, name: str, made_of: tuple[Any, ...]) -> Any:
        how, module, kind, said = ("enum", *made_of) if name == "enum" else made_of
        for one in (how, module, kind):
            self._want(one, str)
        self._want(said, str if name == "enum" else dict)
        return self._record(how, module, kind, said)

    def _record(self, how: str, module: str, name: str, said: Any) -> Any:
        kind = self._find_type(module, name)
        if kind is not None:
            return rebuilt(kind, how, said)
        full = _text(f"{module}.{name}", 300)
        raise ValueNotPlain(
            full,
            "its class is not allowed",
            _text(f"{name}.{said}", 300) if how == "enum" else plain_text(ShownRecord(_text(name, 100), said)),
            next_step=f"--allow-type {full}, in Python allow_types=[{full!r}], imports that class here and makes "
            f"{'the member' if how == 'enum' else 'it of its fields'} (of a run that is over: launcher.Session.resume(RUN, "
            f"allow_types=[{full!r}]))",
        )

    def _config(self, content: Any) -> Any:
        return config_of(content)

    def _library_value(self, name: str, made_of: tuple[Any, ...]) -> Any:
        return make_library_value(name, made_of)

    # -- the standard library's --------------------------------------------------------------------------------------

    def _complex(self, real: Any, imaginary: Any) -> complex:
        self._want(real, float)
        self._want(imaginary, float)
        return complex(real, imaginary)

    def _bytearray(self, data: Any) -> bytearray:
        self._want(data, bytes)
        return bytearray(data)

    def _range(self, start: Any, stop: Any, step: Any) -> range:
        for number in (start, stop, step):
            self._want(number, int)
        return range(start, stop, step)

    def _date(self, *numbers: Any) -> dt.date:
        self._numbers(numbers, 3)
        return dt.date(*numbers)

    def _time(self, hour: Any, minute: Any, second: Any, micro: Any, fold: Any, zone: Any) -> dt.time:
        self._numbers((hour, minute, second, micro, fold), 5)
        return dt.time(hour, minute, second, micro, self._zone(zone), fold=fold)

    def _datetime(self, *made_of: Any) -> dt.datetime:
        *numbers, fold, zone = made_of
        self._numbers((*numbers, fold), 8)
        return dt.datetime(*numbers, self._zone(zone), fold=fold)  # type: ignore[misc]  # noqa: DTZ001 - as the host had it

    def _timedelta(self, *numbers: Any) -> dt.timedelta:
        self._numbers(numbers, 3)
        return dt.timedelta(*numbers)

    def _timezone(self, offset: Any, name: Any = None) -> dt.timezone:
        self._want(offset, dt.timedelta)
        if name is None:
            return dt.timezone.utc if not offset else dt.timezone(offset)
        self._want(name, str)
        return dt.timezone(offset, name)

    def _numbers(self, numbers: Iterable[Any], count: int) -> None:
        numbers = tuple(numbers)
        if len(numbers) != count:
            raise self._damaged(f"{len(numbers)} numbers where {count} were expected")
        for number in numbers:
            self._want(number, int)

    def _zone(self, zone: Any) -> Any:
        if zone is not None and type(zone) is not dt.timezone:
            import zoneinfo

            self._want(zone, zoneinfo.ZoneInfo)
        return zone

    def _zoneinfo(self, key: Any) -> Any:
        import zoneinfo

        self._want(key, str)
        if not _ZONE.fullmatch(key):
            raise self._damaged("that is not the name of a time zone")
        return zoneinfo.ZoneInfo(key)

    def _decimal(self, text: Any) -> decimal.Decimal:
        self._want(text, str)
        if len(text) > MAX_TEXT:
            raise self._damaged(f"a Decimal of {len(text):,} characters")
        return decimal.Decimal(text)

    def _fraction(self, above: Any, below: Any) -> fractions.Fraction:
        for number in (above, below):
            self._want(number, int)
            if number.bit_length() > 8 * MAX_TEXT:
                raise self._damaged(f"a Fraction of {number.bit_length():,} bits")
        return fractions.Fraction(above, below)

    def _uuid(self, data: Any) -> uuid.UUID:
        self._want(data, bytes)
        return uuid.UUID(bytes=data)

    def _path(self, flavour: Any, text: Any) -> pathlib.PurePath:
        self._want(flavour, str)
        self._want(text, str)
        return _PATHS[flavour](text)

    def _deque(self, items: Any, longest: Any) -> collections.deque[Any]:
        self._want(items, list)
        self._want(longest, int, type(None))
        return collections.deque(items, longest)


class _ShownReader(_Reader):
    """Puts placeholders where the other reader refuses, and imports nothing."""

    def _check_key(self, key: Any) -> None:
        # One of our placeholders is compared by identity.
        if type(key) not in (NotSaid, ShownRecord):
            super()._check_key(key)

    def _not_said(self, name: str, why: str, text: str) -> Any:
        return NotSaid(name, why, text)

    def _record(self, how: str, module: str, name: str, said: Any) -> Any:
        if how == "enum":
            return NotSaid(_text(f"{name}.{said}", 300), "", "")
        return ShownRecord(_text(name, 100), said)

    def _config(self, content: Any) -> Any:
        return content

    def _library_value(self, name: str, made_of: tuple[Any, ...]) -> Any:
        return shown_library_value(name, made_of)

    def _zoneinfo(self, key: Any) -> Any:
        # The time zone database is not read.
        return dt.timezone(dt.timedelta(0), _text(key, 100))


_NODES: dict[bytes, Callable[[_Reader, int], Any]] = {
    b"N": lambda reader, depth: None,
    b"T": lambda reader, depth: True,
    b"F": lambda reader, depth: False,
    b"I": _Reader._int,
    b"D": _Reader._float,
    b"S": _Reader._str,
    b"B": lambda reader, depth: reader._bytes(reader._length()),
    b"L": _Reader._list,
    b"U": lambda reader, depth: tuple(reader._list(depth)),
    b"E": lambda reader, depth: set(reader._elements(depth)),
    b"Z": lambda reader, depth: frozenset(reader._elements(depth)),
    b"M": _Reader._dict,
    b"X": _Reader._known,
    b"?": _Reader._unsaid,
}
_DICTS: dict[str, Callable[[dict[Any, Any]], Any]] = {
    "OrderedDict": collections.OrderedDict,
    "Counter": collections.Counter,
}
_PATHS: dict[str, type[pathlib.PurePath]] = {
    "PosixPath": pathlib.Path,
    "PurePosixPath": pathlib.PurePosixPath,
    "PureWindowsPath": pathlib.PureWindowsPath,
}
_KINDS: dict[str, Callable[..., Any]] = {
    "complex": _Reader._complex,
    "bytearray": _Reader._bytearray,
    "range": _Reader._range,
    "slice": lambda reader, start, stop, step: slice(start, stop, step),
    "date": _Reader._date,
    "time": _Reader._time,
    "datetime": _Reader._datetime,
    "timedelta": _Reader._timedelta,
    "timezone": _Reader._timezone,
    "zoneinfo": _Reader._zoneinfo,
    "decimal": _Reader._decimal,
    "fraction": _Reader._fraction,
    "uuid": _Reader._uuid,
    "path": _Reader._path,
    "deque": _Reader._deque,
}
