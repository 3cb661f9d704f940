"""Cells of a table: what an override sets, and the numbers and texts in a value that came back.

Rule: a cell is None, a bool, a number or a text. What a host sent is bounded in number and length, and its texts and names go through `clean_line`.
"""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import functools
import math
import pathlib
import re
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from launcher.serialization.plain_libraries import PlainBuffer
from launcher.serialization.plain_values import ShownRecord
from launcher.util.text.terminal_text import clean_line

__all__ = ["VALUE", "Cell", "cell_text", "is_number", "json_cell", "settings_of", "values_of"]

Cell = None | bool | int | float | str

#: The name of a value that is one number or text.
VALUE = "value"
#: Of one job: how many cells its value has at most, and how deep dicts in it are looked into.
_MAX_CELLS = 200
_MAX_DEPTH = 4
_MAX_NAME = 100
_MAX_TEXT = 500
#: A longer number is no number that anybody sorts by, and Python would not write it.
_MAX_BITS = 1000
_INTEGER = re.compile(r"[+-]?[0-9]{1,300}")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_WORDS: dict[str, Cell] = {
    "true": True, "false": False, "null": None, "nan": math.nan, "inf": math.inf, "+inf": math.inf, "-inf": -math.inf,
}  # fmt: skip
_TEXTS = (uuid.UUID, pathlib.PurePath, dt.date, dt.time, dt.datetime)


def is_number(cell: Cell) -> bool:
    """Whether it is a number that can be compared, so neither a bool nor NaN."""
    return type(cell) in (int, float) and not math.isnan(cell)  # type: ignore[arg-type]


def settings_of(overrides: Iterable[str]) -> dict[str, Cell]:
    """What the overrides of a job set, by name: `lr=0.1` and `+lr=0.1` set lr, and `~lr` sets it to None."""
    settings: dict[str, Cell] = {}
    for override in overrides:
        name, cell = _setting(override)
        settings[name] = cell
    return settings


@functools.lru_cache(maxsize=1000)
def _setting(override: str) -> tuple[str, Cell]:
    """What one override sets. The jobs of a sweep have most of theirs in common."""
    name, equals, text = override.partition("=")
    name = clean_line(name.strip().lstrip("+"))
    if not equals and name.startswith("~"):
        return name[1:], None
    return name.removeprefix("~"), _read(text.strip()) if equals else ""


def _read(text: str) -> Cell:
    """A number, true, false or null as such, and all else as text, without the quotes around it."""
    if len(text) <= 320:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        if text.lower() in _WORDS:
            return _WORDS[text.lower()]
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    return _text(text)


def values_of(value: Any) -> dict[str, Cell]:
    """The cells of a value from `plain_value`: of a number or a text one named `value`, of a dict one for each number and text in it.

    A dict in a dict gives names with a dot. What is neither has no cell.
    """
    cells: dict[str, Cell] = {}
    for name, cell in _cells(value, "", 0):
        if len(cells) >= _MAX_CELLS:
            break
        cells.setdefault(name or VALUE, cell)
    return cells


def _cells(value: Any, name: str, depth: int) -> Iterator[tuple[str, Cell]]:
    if isinstance(value, ShownRecord):
        value = value.fields
    if isinstance(value, dict):
        if depth < _MAX_DEPTH:
            for key, one in value.items():
                if type(key) in (str, int):
                    part = clean_line(str(key)[:_MAX_NAME])
                    yield from _cells(one, f"{name}.{part}" if name else part, depth + 1)
        return
    found = _cell(value)
    # A job that returned None has returned nothing.
    if found is not _NONE and (name or found is not None):
        yield name, found  # type: ignore[misc]


_NONE = object()


def _cell(value: Any) -> object:
    """The cell of a value; `_NONE` if it is neither a number nor a text."""
    if value is None or type(value) in (bool, float):
        return value
    if type(value) is int:
        return value if value.bit_length() <= _MAX_BITS else _NONE
    if type(value) is str:
        return _text(value)
    if isinstance(value, PlainBuffer):
        numbers = value.numbers() if math.prod(value.shape) == 1 and len(value.data) <= 8 else None
        return numbers[0] if numbers else _NONE
    if isinstance(value, (decimal.Decimal, fractions.Fraction)):
        try:
            return float(value)
        except (OverflowError, ValueError):
            return _NONE
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    return _text(str(value)) if isinstance(value, _TEXTS) else _NONE


def _text(text: str) -> str:
    line = clean_line(text[:_MAX_TEXT])
    return line if len(text) <= _MAX_TEXT else f"{line}..."


def cell_text(cell: Cell) -> str:
    """The text of a cell for people: a number with six digits, and nothing for None."""
    if cell is None:
        return ""
    if type(cell) is bool:
        return str(cell).lower()
    if type(cell) is float:
        return f"{cell:.6g}"
    return str(cell)


def json_cell(cell: Cell) -> Cell:
    """The cell for JSON, which has no NaN and no infinity: these are the texts `NaN`, `Infinity` and `-Infinity`."""
    if type(cell) is float and not math.isfinite(cell):
        return "NaN" if math.isnan(cell) else "Infinity" if cell > 0 else "-Infinity"
    return cell
