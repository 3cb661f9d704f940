"""What asks a run to stop or to be left: Ctrl-C, SIGTERM, SIGHUP, a hook that aborts, another process.

Rule: a signal handler only takes down what came and passes it on; the session acts on it where it waits. Once cancels, twice
kills.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["CTRL_C", "Interrupts"]

CTRL_C = "interrupted (Ctrl-C)"


class Interrupts:
    """The interrupts of one session.

    Args:
        stop: called with why, and whether to kill, at each interrupt.
    """

    def __init__(self, stop: Callable[[str, bool], None]) -> None:
        self._stop = stop
        self._handlers: dict[int, Any] = {}
        self.count = 0
        self.why = ""
        #: Why the controller is to leave; empty as long as it is not.
        self.hangup = ""

    def __bool__(self) -> bool:
        return self.count > 0

    def add(self, why: str, *, kill: bool = False) -> None:
        """One more; the second, and one with kill, kills."""
        self.count += 1 + kill
        self.why = why
        self._stop(why, self.count > 1)

    def handle_signals(self) -> None:
        """Take SIGTERM (cancel) and SIGHUP (leave) from now on; only in the main thread, where Python has handlers."""
        if threading.current_thread() is not threading.main_thread():
            return

        def terminate(number: int, frame: FrameType | None) -> None:
            self.add(f"interrupted ({signal.Signals(number).name})")

        def hang_up(number: int, frame: FrameType | None) -> None:
            self.hangup = f"{signal.Signals(number).name}: the terminal is gone"

        self._handlers[signal.SIGTERM] = signal.signal(signal.SIGTERM, terminate)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # Ignored already: nohup, which is not to leave.
            self._handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, hang_up)

    def restore_signals(self) -> None:
        """Put back the handlers that were there before."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
