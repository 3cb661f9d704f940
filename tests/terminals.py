"""A command on a terminal of its own: a pseudo terminal that the test reads."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

__all__ = ["OnTerminal", "on_terminal"]


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
