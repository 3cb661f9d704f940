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

__all__ = ["OnTerminal", "answered", "on_terminal"]


class OnTerminal:
    """What it wrote, and how it ended."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self.seen = b""

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
    stdout: int | None = None,
    more: dict[str, str] | None = None,
) -> Iterator[OnTerminal]:
    """Run a command on a terminal; it is killed after a minute and a half.

    Args:
        stdout: a descriptor instead of the terminal.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", **(more or {})}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        environment.pop(name, None)
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdin=slave, stdout=slave if stdout is None else stdout, stderr=slave
    )
    os.close(slave)
    guard = threading.Timer(90, process.send_signal, [signal.SIGKILL])
    guard.start()
    try:
        yield OnTerminal(process, master)
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
