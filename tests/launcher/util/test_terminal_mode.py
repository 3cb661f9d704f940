"""The mode for single keys, and that it goes."""

from __future__ import annotations

import os
import pty
import termios

import pytest

from launcher.util import terminal_mode


def test_the_mode_from_before_comes_back_also_after_it_was_set_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-Z the shell has changed it, and it is set again."""
    monkeypatch.setattr(terminal_mode, "is_ours", os.isatty)
    ours, theirs = pty.openpty()
    try:
        before = termios.tcgetattr(theirs)
        terminal_mode.read_keys(theirs)
        keys = termios.tcgetattr(theirs)
        assert keys[3] == before[3] & ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(theirs, termios.TCSANOW, before)
        terminal_mode.read_keys(theirs)
        assert termios.tcgetattr(theirs) == keys
        terminal_mode.restore()
        assert termios.tcgetattr(theirs) == before
        terminal_mode.restore()
    finally:
        os.close(ours)
        os.close(theirs)


def test_no_terminal_and_one_of_others_are_not_ours() -> None:
    """A process in the background would be stopped."""
    read, write = os.pipe()
    ours, theirs = pty.openpty()
    try:
        assert not terminal_mode.is_ours(read)
        assert not terminal_mode.is_ours(theirs)
        with pytest.raises(OSError, match="ioctl"):
            terminal_mode.read_keys(read)
    finally:
        for fd in (read, write, ours, theirs):
            os.close(fd)


def test_the_cursor_is_shown_on_a_terminal_only() -> None:
    """A pipe gets nothing."""
    read, write = os.pipe()
    ours, theirs = pty.openpty()
    try:
        terminal_mode.show_cursor(theirs)
        assert os.read(ours, 100) == b"\x1b[?25h"
        terminal_mode.show_cursor(write)
        os.close(write)
        assert os.read(read, 100) == b""
    finally:
        for fd in (read, ours, theirs):
            os.close(fd)
