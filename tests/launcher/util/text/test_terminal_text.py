"""Text of a host does nothing to a terminal, and a name of a host is one line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.util.text.terminal_text import clean, clean_all, clean_line, clean_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, \u00e9 and \u65e5\u672c", "plain, \u00e9 and \u65e5\u672c"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31;1mred\x1b[0m", "red"),
        ("\x1b]0;title\x07rest", "rest"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("\x1bMup", "up"),
        ("\x1b", "\\x1b"),
        ("bell\x07 back\x08 return\r", "bell\\x07 back\\x08 return\\x0d"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("\u202egnp.exe", "\\x202egnp.exe"),
        ("one\u2028line", "one\\x2028line"),
        ("\ud800", "\\xd800"),
        (3, "3"),
        (None, "None"),
    ],
)
def test_what_is_shown(text: Any, shown: str) -> None:
    """Escape sequences are left out, and other control characters are made visible."""
    assert clean(text) == shown


@given(st.text(st.characters()))
def test_nothing_that_moves_a_cursor_is_left(text: str) -> None:
    """Of any text, which can then be written, and is not changed once more."""
    shown = clean(text)
    shown.encode("utf-8")
    assert not set(shown) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}
    assert clean(shown) == shown
    assert not set(clean_line(text)) & set("\n\t")


def test_all_texts_of_plain_data_are_cleaned() -> None:
    """Keys included; anything else stays as it is."""
    assert clean_all({"a\x07": ["\x1b[1mb", {"c": 1, "d": None}], "e": True}) == {
        "a\\x07": ["b", {"c": 1, "d": None}],
        "e": True,
    }


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one\ntwo\n", ["one", "two"]),
        ("one\n\n", ["one", ""]),
        ("no end", ["no end"]),
        ("10%\r50%\r100%\n", ["100%"]),
        ("10%\r50%\r", ["50%"]),
        ("dos\r\nline\r\n", ["dos", "line"]),
        ("\x1b[31mred\x1b[0m\x07\n", ["red\\x07"]),
    ],
)
def test_lines_as_a_person_would_have_seen_them(text: str, lines: list[str]) -> None:
    """The last text of a line that was overwritten, and nothing that does something to a terminal."""
    assert clean_lines(text) == lines
