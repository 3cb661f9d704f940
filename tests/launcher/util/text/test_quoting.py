"""What somebody wrote, in a message: short, whatever it is."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.util.text.quoting import shown, shown_path


def _bomb() -> Any:
    value: Any = ["x"] * 9
    for _ in range(40):
        value = [value] * 9
    return value


def _ring() -> Any:
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    "value",
    [
        _bomb(),
        {"a": _bomb(), "b": {"c": _bomb()}},
        _ring(),
        "x" * 10_000_000,
        {str(number): number for number in range(100_000)},
        10**100_000,
        -(10**3000),
        b"\0" * 1_000_000,
    ],
    ids=["lists", "in mappings", "ring", "text", "mapping", "huge number", "large number", "bytes"],
)
def test_it_is_short(value: Any) -> None:
    """And comes at once, though written out it might never end."""
    assert len(shown(value)) <= 300


def test_what_is_short_is_shown_whole() -> None:
    """As `repr` has it."""
    for value in ("gpu1", 5, None, ["a", {"b": 1}], {"slots": [1, 2]}):
        assert shown(value) == repr(value)


def test_a_long_path_keeps_its_beginning_and_its_end() -> None:
    """A folder in a folder two hundred times is named in a line; what is short is shown as it is."""
    assert shown_path("a/b.txt") == "a/b.txt"
    told = shown_path("first/" + "d/" * 1000 + "last.txt")
    assert len(told) <= 303
    assert told.startswith("first/d/")
    assert told.endswith("d/last.txt")
