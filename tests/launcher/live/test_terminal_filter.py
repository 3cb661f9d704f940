"""A terminal gets colours, carriage return and backspace of what a job prints, and no other control code, wherever it was cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.live.terminal_filter import TerminalFilter

ALLOWED = re.compile(r"\x1b\[[0-9;:]*m|[\n\t\r\b]|[^\x00-\x1f\x7f-\x9f]")


def shown(*pieces: bytes) -> str:
    """What a terminal gets of a stream that comes in these pieces."""
    passing = TerminalFilter()
    return "".join([passing.feed(piece) for piece in pieces]) + passing.finish()


CASES = [
    (b"\x1b[1;31mred\x1b[0m\n", "\x1b[1;31mred\x1b[0m\n"),
    (b"\x1b[38:2::1:2:3mtrue\x1b[m", "\x1b[38:2::1:2:3mtrue\x1b[m"),
    (b" 10%\r 20%\b\b\t\n", " 10%\r 20%\b\b\t\n"),
    ("grüße 😀\n".encode(), "grüße 😀\n"),
    (b"\x1b[2J\x1b[H\x1b[3A\x1b[Kx", "x"),
    (b"\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b", "ab"),
    (b"\x1b]52;c;aGk=\nnext line", "\nnext line"),
    (b"\x1bP1$r0m\x1b\\a\x1b_app\x1b\\b\x1b^pm\x1b\\c\x1bXsos\x1b\\d", "abcd"),
    (b"\x1b[>4;1m\x1b[?25l\x1b[?1049hx", "x"),
    (b"\x1b(0lines\x0e", "lines\\x0e"),
    (b"\x1bc\x1b7\x1b=x", "x"),
    (b"\x07\x00\x7f\x0c", "\\x07\\x00\\x7f\\x0c"),
    (b"\xff\xfe\x9b31m", "\\xff\\xfe\\x9b31m"),
    ("\x9b2J\x85".encode(), "\\x9b2J\\x85"),
    ("evil\u202etxt".encode(), "evil\\x202etxt"),
    (b"\x1b\x1b[31mx\x1b[0m", "\\x1b\x1b[31mx\x1b[0m"),
    (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
]


@pytest.mark.parametrize(("stream", "expected"), CASES)
def test_what_passes(stream: bytes, expected: str) -> None:
    """Colours pass, other sequences go, other controls and bytes that are no text become visible."""
    assert shown(stream) == expected


@pytest.mark.parametrize("stream", [stream for stream, _ in CASES])
def test_it_does_not_matter_where_the_stream_is_cut(stream: bytes) -> None:
    """In two places, each wherever: in a sequence, in a character."""
    whole = shown(stream)
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1):
            assert shown(stream[:first], stream[first:second], stream[second:]) == whole


@given(
    st.lists(st.one_of(st.binary(max_size=20), st.sampled_from([b"\x1b", b"[", b"31", b"m", b"]0;", b"\xc2", b"\x9b"])))
)
def test_nothing_else_passes(pieces: list[bytes]) -> None:
    """Whatever a job writes."""
    assert not ALLOWED.sub("", shown(*pieces))


def test_colours_that_were_left_on_are_switched_off() -> None:
    """At the end of the stream: what comes next on the terminal is not the job's."""
    assert shown(b"\x1b[31mred") == "\x1b[31mred\x1b[0m"


def test_a_partial_line_is_shown_at_once() -> None:
    """Nothing waits for a newline; only what may be the beginning of a sequence is held back."""
    passing = TerminalFilter()
    assert passing.feed(b"Epoch 1: ") == "Epoch 1: "
    assert passing.feed(b"50%\x1b[") == "50%"
    assert passing.feed(b"32m!") == "\x1b[32m!"


def test_a_control_string_without_end_hides_little_and_is_not_kept() -> None:
    """Memory has an end, and so has what is hidden."""
    passing = TerminalFilter()
    said = "".join(passing.feed(b"\x1b]0;" if piece == 0 else b"x" * 1000) for piece in range(100))
    assert len(said) > 90_000
    assert len(passing._held) < 5000
