"""A signal that ends the process while the live part stands."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from launcher.terminal.ending import Ending
from tests.terminals import on_terminal

PROGRAM = """
import os, signal, sys
from launcher.terminal.ending import Ending
from launcher.util import terminal_mode
Ending(sys.stdout).begin()
terminal_mode.read_keys(0)
print("\\x1b[?25lready", flush=True)
os.kill(os.getpid(), signal.{})
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_the_terminal_is_as_it_was_and_the_process_has_ended_by_the_signal(name: str, tmp_path: Path) -> None:
    """The cursor is there, and what is typed is echoed again."""
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", PROGRAM.format(name)]
    with on_terminal(command, tmp_path, is_own=True, more={"PYTHONPATH": root}) as terminal:
        before = terminal.mode
        terminal.read_until(lambda seen: b"ready" in seen)
        assert terminal.end() == -getattr(signal, name)
        assert terminal.mode == before
        assert not terminal.is_cursor_hidden


def test_handlers_of_others_stay() -> None:
    """A run handles signals itself, and a process that ignores one goes on ignoring it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        ending = Ending(sys.stdout)
        ending.begin()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert callable(signal.getsignal(signal.SIGHUP))
        ending.end()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
