"""Leaves the terminal as it was when a signal ends the process while the live part stands.

Rule: while a run is open, it handles these signals itself, and the display ends as usual. This is for the moments before and after, and
for a command that only watches a run.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from types import FrameType
from typing import IO

from launcher.util import terminal_mode

__all__ = ["Ending"]

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Ending:
    """Handles signals that would end the process at once.

    Args:
        stream: the terminal.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._ours: list[int] = []

    def begin(self) -> None:
        """Handle them, where nobody else does. It works only in the main thread.

        Ctrl-C is an exception, which may interrupt what ends the live part, too. So the terminal is also looked after when the process ends.
        """
        atexit.register(self._leave)
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._end_process)
                self._ours.append(number)

    def end(self) -> None:
        """Put back the default, where it is still ours."""
        atexit.unregister(self._leave)
        if threading.current_thread() is not threading.main_thread():
            return
        for number in self._ours:
            if signal.getsignal(number) == self._end_process:
                signal.signal(number, signal.SIG_DFL)
        self._ours.clear()

    def _end_process(self, number: int, frame: FrameType | None) -> None:
        self._leave()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _leave(self) -> None:
        terminal_mode.restore()
        try:
            fd = self._stream.fileno()
        except (OSError, ValueError):
            fd = -1
        if fd >= 0:
            terminal_mode.show_cursor(fd)
