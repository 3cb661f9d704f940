"""A command on a terminal of its own: a pseudo terminal that the test reads."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyte

__all__ = ["OnTerminal", "answered", "on_terminal"]


class OnTerminal:
    """What it wrote, and how it ended."""

    def __init__(self, process: subprocess.Popen[bytes], master: int, rows: int, columns: int, mode: list[Any]) -> None:
        self.process = process
        self._master = master
        #: The terminal's mode before the command was started, which may change it at any time.
        self.mode_before = mode
        self.seen = b""
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._shown = 0

    def read_until(self, is_there: Callable[[bytes], bool]) -> bytes:
        """Read on until what was seen is enough; to the end where it never is."""
        while not is_there(self.seen):
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:  # the terminal's other end is closed
                break
            if not data:
                break
            self.seen += data
        return self.seen

    def screen(self) -> list[str]:
        """What a person sees now, line by line, from the top to the last line that is not empty."""
        screen = self._screen
        if len(self.seen) > self._shown:
            self._stream.feed(self.seen[self._shown :])
            self._shown = len(self.seen)
        lines = [line.rstrip() for line in screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def wait_for(self, text: str) -> list[str]:
        """Read on until the screen has this text; to the end where it never has. Returns the screen."""
        self.read_until(lambda seen: any(text in line for line in self.screen()))
        return self.screen()

    def resize(self, rows: int, columns: int) -> None:
        """Change the terminal's size, and tell whoever is in its foreground."""
        self.screen()
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._screen.resize(rows, columns)

    @property
    def is_cursor_hidden(self) -> bool:
        """Whether the cursor is hidden now."""
        self.screen()
        return bool(self._screen.cursor.hidden)

    @property
    def mode(self) -> list[Any]:
        """The terminal's mode, as `termios` has it."""
        return termios.tcgetattr(self._master)

    def write(self, data: bytes) -> None:
        """Type something."""
        os.write(self._master, data)

    def end(self) -> int:
        """Read the rest; returns the exit code."""
        self.read_until(lambda seen: False)
        return self.process.wait()


@contextlib.contextmanager
def on_terminal(
    command: Sequence[str],
    cwd: Path,
    *,
    columns: int = 100,
    rows: int = 24,
    is_own: bool = False,
    stdout: int | None = None,
    more: dict[str, str] | None = None,
) -> Iterator[OnTerminal]:
    """Run a command on a terminal; it is killed after a minute and a half.

    Args:
        stdout: a descriptor instead of the terminal.
        is_own: the command is in the foreground of it, so that it may read keys, and Ctrl-C reaches it.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", **(more or {})}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        environment.pop(name, None)
    if is_own:
        command = [sys.executable, "-c", _OWN_TERMINAL, *command]
    mode = termios.tcgetattr(slave)
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdin=slave, stdout=slave if stdout is None else stdout, stderr=slave
    )
    os.close(slave)
    guard = threading.Timer(90, process.send_signal, [signal.SIGKILL])
    guard.start()
    try:
        yield OnTerminal(process, master, rows, columns, mode)
    finally:
        guard.cancel()
        process.kill()
        process.wait()
        os.close(master)


#: Makes the terminal its own, so that a program below it can open /dev/tty to ask.
_OWN_TERMINAL = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"


def answered(
    command: Sequence[str], cwd: Path, answers: Sequence[tuple[str, Callable[[], str]]] = ()
) -> tuple[int, str]:
    """Run a command on a terminal of its own, and answer what it asks, in this order; each answer is made when it is asked for.

    Returns:
        Its exit code, and what it wrote.
    """
    with on_terminal([sys.executable, "-c", _OWN_TERMINAL, *command], cwd) as terminal:
        place = 0
        for asked, answer in answers:
            pattern = re.compile(asked.encode(), re.IGNORECASE)

            def is_asked(seen: bytes, pattern: re.Pattern[bytes] = pattern, place: int = place) -> bool:
                return pattern.search(seen, place) is not None

            terminal.read_until(is_asked)
            if not is_asked(terminal.seen):
                break
            place = len(terminal.seen)
            terminal.write(answer().encode() + b"\n")
        code = terminal.end()
        return code, terminal.seen.decode("utf-8", "replace")
