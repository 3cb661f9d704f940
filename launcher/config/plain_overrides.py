"""Overrides that need no parser: a key, and a number, a word, true, false or null. Most overrides of most runs are so.

Rule: what is read here is what Hydra's grammar reads, and everything else is left to Hydra. To import Hydra takes a tenth of a second of
CPU; a test holds both against each other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

__all__ = ["read_plainly", "written_plainly"]

_OVERRIDE = re.compile(r"(?:\+\+?)?([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)=(.+)")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,15})")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,15})\.[0-9]{1,15}")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAMED: dict[str, Any] = {"true": True, "false": False, "null": None}
#: Words that Hydra reads as numbers.
_NUMBERS = ("nan", "inf")


def read_plainly(overrides: Sequence[str]) -> dict[str, Any] | None:
    """The values of the overrides by their dotted keys; None if one of them needs Hydra, or if two of them touch the same key."""
    values: dict[str, Any] = {}
    for one in overrides:
        match = _OVERRIDE.fullmatch(one)
        if match is None:
            return None
        key, text = match.groups()
        if key in values or key.partition(".")[0] == "hydra":
            return None
        if _INTEGER.fullmatch(text):
            values[key] = int(text)
        elif _FLOAT.fullmatch(text):
            values[key] = float(text)
        elif _WORD.fullmatch(text) and text.lower() not in _NUMBERS:
            values[key] = _NAMED.get(text.lower(), text)
        else:
            return None
    keys = set(values)
    if any(key[:index] in keys for key in keys for index, letter in enumerate(key) if letter == "."):
        return None
    return values


def written_plainly(overrides: Sequence[str]) -> tuple[str, ...]:
    """The same overrides as the basic sweeper writes them for a job: `x=true` as `x=True`, `x=2.50` as `x=2.5`."""
    values = read_plainly(overrides)
    assert values is not None
    keys = [one.partition("=")[0] for one in overrides]
    written = ("null" if value is None else str(value) for value in values.values())
    return tuple(f"{key}={text}" for key, text in zip(keys, written, strict=True))
