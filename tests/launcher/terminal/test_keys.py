"""Keys from a terminal: a pseudo terminal of the test."""

from __future__ import annotations

import os
import pty
import queue
import termios
from collections.abc import Iterator

import pytest

from launcher.terminal import keys
from launcher.terminal.keys import KeyReader, keys_in
from launcher.util import terminal_mode


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """Both ends of one, which counts as ours."""
    monkeypatch.setattr(terminal_mode, "is_ours", os.isatty)
    monkeypatch.setattr(keys, "_PAUSE", 0.01)
    ends = pty.openpty()
    yield ends
    for fd in ends:
        os.close(fd)


def test_names_of_keys() -> None:
    """Sequences have names, unknown ones and control characters are left out, and an escape alone is a key."""
    assert list(keys_in(b"a\x1b[A\x1bOB\x1b[5~\r\x7f")) == ["a", "up", "down", "page up", "enter", "backspace"]
    assert list(keys_in(b"\x1b[200~x\x01\x1b")) == ["x", "escape"]
    assert list(keys_in("ä".encode() + b"\xff")) == ["ä"]


def test_keys_come_at_once_without_an_echo_and_the_mode_comes_back(terminal: tuple[int, int]) -> None:
    """Ctrl-C stays a signal."""
    ours, theirs = terminal
    before = termios.tcgetattr(theirs)
    came: queue.Queue[str] = queue.Queue()
    reader = KeyReader(theirs, came.put, lambda: False)
    reader.open()
    try:
        os.write(ours, b"o")
        assert came.get(timeout=20) == "o"
        flags = termios.tcgetattr(theirs)[3]
        assert not flags & (termios.ECHO | termios.ICANON)
        assert flags & termios.ISIG
    finally:
        reader.close()
    assert termios.tcgetattr(theirs) == before
    reader.close()


def test_while_a_hook_runs_nothing_is_read_and_the_mode_is_the_usual_one(terminal: tuple[int, int]) -> None:
    """The hook may ask something. What was typed for it is not taken, and keys are read again afterwards."""
    ours, theirs = terminal
    before = termios.tcgetattr(theirs)
    came: queue.Queue[str] = queue.Queue()
    checks: queue.Queue[bool] = queue.Queue()
    is_paused = True

    def check() -> bool:
        checks.put(is_paused)
        return is_paused

    reader = KeyReader(theirs, came.put, check)
    reader.open()
    try:
        os.write(ours, b"x")
        for _ in range(6):
            assert checks.get(timeout=20)
        assert came.empty()
        assert termios.tcgetattr(theirs) == before
        assert os.read(theirs, 0) == b""
        is_paused = False
        assert came.get(timeout=20) == "x"
        assert termios.tcgetattr(theirs) != before
    finally:
        reader.close()
    assert termios.tcgetattr(theirs) == before


def test_a_key_may_close_the_reader(terminal: tuple[int, int]) -> None:
    """`q` does, in the reader's own thread."""
    ours, theirs = terminal
    done: queue.Queue[str] = queue.Queue()

    def press(key: str) -> None:
        reader.close()
        done.put(key)

    reader = KeyReader(theirs, press, lambda: False)
    reader.open()
    os.write(ours, b"q")
    assert done.get(timeout=20) == "q"
