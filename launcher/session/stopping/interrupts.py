"""Requests to stop or leave a run: Ctrl-C, SIGTERM, SIGHUP, a hook that aborts, another process.

Rule: the first signal is a fact like any other: jobs are cancelled, hooks finish, everything is collected. The second one interrupts
the user's code, kills jobs, and makes the controller leave. If the controller has not ended a few seconds later, whatever it waits
for, the process is ended. Nothing else is interrupted: a handler raises only in a hook, or while the user's configs are generated.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from launcher.errors import RunInterrupted
from launcher.session.stopping.signals import WATCHER
from launcher.util import terminal_mode

__all__ = ["CTRL_C", "Held", "Interrupts"]

CTRL_C = "interrupted (Ctrl-C)"
#: Seconds from the second signal until the controller stops waiting for hosts. Below: until the process is ended.
PATIENCE = 2.5
END = 4.5
_LAST = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def _nothing() -> None:
    """Wake nobody."""


def _no_text() -> str:
    return ""


class Held:
    """A SIGINT that is held back."""

    def __init__(self) -> None:
        self.came = False

    def handled(self, number: int) -> None:
        """Record the signal. Called in the main thread."""
        self.came = True

    def arrived(self, number: int) -> None:
        """Do nothing: whoever holds the signal back handles it."""


class Interrupts:
    """The interrupts of one session.

    Args:
        stop: called at each interrupt, with the reason and whether to kill. Like the others, it may be called in any thread,
            but not in a signal handler.
        tell: called with a line for the user when a signal has come.
        waits_for: returns what the run waits for.
        what_is_left: returns what is left where. Called when the process is about to be ended.
        wake: called to wake the driver of the run.
        end_process: ends the process with this exit code, whatever its threads do.
    """

    def __init__(
        self,
        stop: Callable[[str, bool], None],
        *,
        tell: Callable[[str], None] = lambda text: None,
        waits_for: Callable[[], str] = _no_text,
        what_is_left: Callable[[], str] = _no_text,
        wake: Callable[[], None] = _nothing,
        end_process: Callable[[int], Any] = os._exit,
    ) -> None:
        self._stop = stop
        self._tell = tell
        self._waits_for = waits_for
        self._what_is_left = what_is_left
        self._wake = wake
        self._end_process = end_process
        self._lock = threading.Lock()
        self.count = 0
        self.why = ""
        #: How many signals the user has sent, as counted in the thread of `launcher.session.stopping.signals`. Below: as counted by handlers.
        self.signals = 0
        #: Whether the last one was SIGTERM.
        self.is_terminated = False
        self._by_handler = 0
        #: Why the controller should leave; empty if it should not.
        self.hangup = ""
        #: The monotonic time from which on nothing is waited for; None before the second signal.
        self._leave_at: float | None = None
        self._is_over = threading.Event()
        #: The user's code runs in the main thread now, and this signal interrupts it: the first, the second, ...; 0 for none.
        self._raise_at = 0
        #: Whether a handler has interrupted the user's code.
        self.has_raised = False

    def __bool__(self) -> bool:
        return self.count > 0

    @property
    def must_detach(self) -> bool:
        """Whether there was a second signal, and the time is over in which hosts could send what they have."""
        return self._leave_at is not None and time.monotonic() >= self._leave_at

    @property
    def must_give_up(self) -> bool:
        """Whether `must_detach` has been true for a second, and the controller has still not left."""
        return self._leave_at is not None and time.monotonic() >= self._leave_at + _LAST

    def add(self, why: str, *, kill: bool = False) -> None:
        """Add an interrupt. The second one kills, and so does one with `kill`."""
        with self._lock:
            self.count += 1 + kill
            self.why = why
            is_kill = self.count > 1
        self._stop(why, is_kill)

    def error(self, text: str = "") -> RunInterrupted:
        """Return the exception that ends the run."""
        return RunInterrupted(text or self.why, is_terminated=self.is_terminated)

    def add_signal(self, why: str, *, is_terminated: bool = False) -> None:
        """Record that the user asked to stop, by a signal or by Ctrl-C in their own code around the run."""
        with self._lock:
            self.signals += 1
            self.is_terminated = is_terminated
            number = self.signals
            if number == 2:
                self._leave_at = time.monotonic() + PATIENCE
                threading.Thread(target=self._end_in_time, name="end", daemon=True).start()
            elif number > 2:
                self._leave_at = time.monotonic()
        # The message is written in its own thread, so that a blocked terminal delays neither this signal nor the next one.
        told = threading.Thread(target=self._show_to_user, args=(number, why), name="tell", daemon=True)
        told.start()
        self.add(why)
        self._wake()

    def add_ctrl_c(self) -> None:
        """Record a KeyboardInterrupt that has ended the user's code."""
        self._by_handler += 1
        self.add_signal(CTRL_C)

    def _show_to_user(self, number: int, why: str) -> None:
        if number == 1:
            waits = self._waits_for()
            self._tell(
                f"{why}: jobs are cancelled, hooks finish, results so far come back"
                + (f"; waiting for {waits}" if waits else "")
                + f"; a second signal leaves the run within {END + 0.5:.0f} s"
            )
        elif number == 2:
            self._tell(f"{why}, again: jobs are killed, and the controller leaves the run")

    def _end_in_time(self) -> None:
        if self._is_over.wait(END):
            return
        text = [""]

        def collect() -> None:
            text[0] = self._what_is_left()

        collector = threading.Thread(target=collect, name="what is left", daemon=True)
        collector.start()
        collector.join(0.3)
        # A live display may have hidden the cursor, and reads single keys.
        terminal_mode.restore()
        show = b"\x1b[?25h" if sys.stderr is not None and os.isatty(2) else b""
        with contextlib.suppress(OSError):
            os.set_blocking(2, False)
            os.write(2, show + f"launcher: {text[0] or self.why}\n".encode(errors="backslashreplace"))
        self._end_process(143 if self.is_terminated else 130)

    def leave(self, why: str) -> None:
        """Ask the driver to leave the run, which goes on, as after SIGHUP. Any thread may call it."""
        self.hangup = self.hangup or why
        self._wake()

    # -- as Listener ---------------------------------------------------------------------------------------------

    def handled(self, number: int) -> None:
        """Interrupt the user's code, if this signal does so. Called in the main thread.

        Raises:
            KeyboardInterrupt: the user's code runs there, and this signal interrupts it.
        """
        if number == signal.SIGHUP:
            return
        self._by_handler += 1
        if self._raise_at and not self.has_raised and max(self._by_handler, self.signals) >= self._raise_at:
            self.has_raised = True
            raise KeyboardInterrupt

    def arrived(self, number: int) -> None:
        """Handle a signal. Called in the thread of `launcher.session.stopping.signals`."""
        name = signal.Signals(number).name
        if number == signal.SIGHUP:
            self.hangup = f"{name}: the terminal is gone"
            self._wake()
        else:
            why = CTRL_C if number == signal.SIGINT else f"interrupted ({name})"
            self.add_signal(why, is_terminated=number == signal.SIGTERM)

    # -- while we handle signals ---------------------------------------------------------------------------------

    def handle_signals(self) -> None:
        """Handle SIGTERM and SIGHUP from now on. This works only in the main thread, where Python calls handlers."""
        WATCHER.listen(self, _SIGNALS)

    @contextlib.contextmanager
    def ours(self) -> Iterator[None]:
        """Within this context, a call of the library, also handle SIGINT. This works only in the main thread."""
        WATCHER.listen(self, (signal.SIGINT,))
        try:
            yield
        finally:
            WATCHER.unlisten(self, (signal.SIGINT,))

    @staticmethod
    @contextlib.contextmanager
    def held_back() -> Iterator[Held]:
        """Hold back SIGINT within this context, and raise KeyboardInterrupt at its end. This works only in the main thread.

        It is for short calls in the user's code, which decides itself whether the run should end.
        """
        held = Held()
        WATCHER.listen(held, (signal.SIGINT,))
        try:
            yield held
        except Exception:
            if held.came:
                raise KeyboardInterrupt from None
            raise
        finally:
            WATCHER.unlisten(held, (signal.SIGINT,))
        if held.came:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def users_code(self, raise_at: int) -> Iterator[None]:
        """Within this context the user's code runs, and the `raise_at`-th signal interrupts it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before, self._raise_at = self._raise_at, raise_at
        try:
            yield
        finally:
            self._raise_at = before

    def restore_signals(self, *, is_over: bool = True) -> None:
        """Put back the earlier handlers. `is_over`: the run has ended, so the process need not be ended."""
        WATCHER.unlisten(self, _SIGNALS)
        if is_over:
            self._is_over.set()
