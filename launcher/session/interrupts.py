"""What asks a run to stop or to be left: Ctrl-C, SIGTERM, SIGHUP, a hook that aborts, another process.

Rule: the first signal is a fact like any other: it cancels, hooks finish, everything is collected. The second interrupts what of the
user's runs, kills, and has the controller leave; if it has not ended a few seconds later, whatever it waits for, the process is
ended. Nothing else is ever cut in two: an exception is raised by a handler only inside of a hook, or where the user's configs are drawn.
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
from launcher.session.signals import WATCHER

__all__ = ["CTRL_C", "Held", "Interrupts"]

CTRL_C = "interrupted (Ctrl-C)"
#: Seconds from the second signal until the controller waits no more for hosts, and until the process is ended.
PATIENCE = 2.5
END = 4.5
_LAST = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def _nothing() -> None:
    """The default: nobody is woken."""


def _no_text() -> str:
    return ""


class Held:
    """A SIGINT that is held back."""

    def __init__(self) -> None:
        self.came = False

    def handled(self, number: int) -> None:
        """In the main thread."""
        self.came = True

    def arrived(self, number: int) -> None:
        """It is dealt with where it was held back."""


class Interrupts:
    """The interrupts of one session.

    Args:
        stop: called with why, and whether to kill, at each interrupt. As the others it is called in any thread but by no handler.
        tell: called with a line for the user when a signal came.
        waits_for: says what the run waits for.
        what_is_left: says what is left where, when the process is about to be ended.
        wake: called when the driver of the run has to look up.
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
        #: How many signals of the user there were, as the thread of `launcher.session.signals` knows it, and as handlers do.
        self.signals = 0
        #: The last of them was SIGTERM.
        self.is_terminated = False
        self._by_handler = 0
        #: Why the controller is to leave; empty as long as it is not.
        self.hangup = ""
        #: Monotonic time from which on nothing is waited for; None before the second signal.
        self._leave_at: float | None = None
        self._is_over = threading.Event()
        #: The number of the signal at which code of the user, in which the main thread is now, is interrupted; 0: nothing is.
        self._raise_at = 0
        #: Code of the user was interrupted by a handler.
        self.has_raised = False

    def __bool__(self) -> bool:
        return self.count > 0

    @property
    def must_detach(self) -> bool:
        """There was a second signal, and the time is up that hosts had to send what they have."""
        return self._leave_at is not None and time.monotonic() >= self._leave_at

    @property
    def must_give_up(self) -> bool:
        """As `must_detach`, and a second later: whoever was to leave does not."""
        return self._leave_at is not None and time.monotonic() >= self._leave_at + _LAST

    def add(self, why: str, *, kill: bool = False) -> None:
        """One more; the second, and one with kill, kills."""
        with self._lock:
            self.count += 1 + kill
            self.why = why
            is_kill = self.count > 1
        self._stop(why, is_kill)

    def error(self, text: str = "") -> RunInterrupted:
        """The exception that ends the run."""
        return RunInterrupted(text or self.why, is_terminated=self.is_terminated)

    def add_signal(self, why: str, *, is_terminated: bool = False) -> None:
        """Note that the user asked to stop, by a signal or by Ctrl-C in their own code around the run."""
        with self._lock:
            self.signals += 1
            self.is_terminated = is_terminated
            number = self.signals
            if number == 2:
                self._leave_at = time.monotonic() + PATIENCE
                threading.Thread(target=self._end_in_time, name="end", daemon=True).start()
            elif number > 2:
                self._leave_at = time.monotonic()
        # Told from a thread of its own: a terminal that takes nothing holds up neither the signal nor its successor.
        told = threading.Thread(target=self._show_to_user, args=(number, why), name="tell", daemon=True)
        told.start()
        self.add(why)
        self._wake()

    def add_ctrl_c(self) -> None:
        """KeyboardInterrupt was raised in code of the user, which is over by it."""
        self._by_handler += 1
        self.add_signal(CTRL_C)

    def _show_to_user(self, number: int, why: str) -> None:
        if number == 1:
            waits = self._waits_for()
            self._tell(
                f"{why}: jobs are cancelled, hooks finish, results so far come back"
                + (f"; waiting for {waits}" if waits else "")
                + f"; once more leaves within {END + 0.5:.0f} s"
            )
        elif number == 2:
            self._tell(f"{why}, again: what runs is killed, and the run is left")

    def _end_in_time(self) -> None:
        if self._is_over.wait(END):
            return
        text = [""]

        def collect() -> None:
            text[0] = self._what_is_left()

        collector = threading.Thread(target=collect, name="what is left", daemon=True)
        collector.start()
        collector.join(0.3)
        # A progress display may have hidden the cursor.
        show = b"\x1b[?25h" if sys.stderr is not None and os.isatty(2) else b""
        with contextlib.suppress(OSError):
            os.set_blocking(2, False)
            os.write(2, show + f"launcher: {text[0] or self.why}\n".encode(errors="backslashreplace"))
        self._end_process(143 if self.is_terminated else 130)

    # -- as Listener ---------------------------------------------------------------------------------------------

    def handled(self, number: int) -> None:
        """In the main thread.

        Raises:
            KeyboardInterrupt: code of the user runs there, and this signal interrupts it.
        """
        if number == signal.SIGHUP:
            return
        self._by_handler += 1
        if self._raise_at and not self.has_raised and max(self._by_handler, self.signals) >= self._raise_at:
            self.has_raised = True
            raise KeyboardInterrupt

    def arrived(self, number: int) -> None:
        """Called in the thread of `launcher.session.signals`."""
        name = signal.Signals(number).name
        if number == signal.SIGHUP:
            self.hangup = f"{name}: the terminal is gone"
            self._wake()
        else:
            why = CTRL_C if number == signal.SIGINT else f"interrupted ({name})"
            self.add_signal(why, is_terminated=number == signal.SIGTERM)

    # -- where signals are ours ----------------------------------------------------------------------------------

    def handle_signals(self) -> None:
        """Take SIGTERM and SIGHUP from now on; only in the main thread, where Python has handlers."""
        WATCHER.listen(self, _SIGNALS)

    @contextlib.contextmanager
    def ours(self) -> Iterator[None]:
        """Take SIGINT too, for as long as this thread is in a call of the library; where that is the main one."""
        WATCHER.listen(self, (signal.SIGINT,))
        try:
            yield
        finally:
            WATCHER.unlisten(self, (signal.SIGINT,))

    @staticmethod
    @contextlib.contextmanager
    def held_back() -> Iterator[Held]:
        """Hold back SIGINT while this thread, where it is the main one, writes something down; KeyboardInterrupt follows.

        For calls that take a moment, in code of the user: that the run is to end is his to say.
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
        """Code of the user runs, which the signal of that number interrupts."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before, self._raise_at = self._raise_at, raise_at
        try:
            yield
        finally:
            self._raise_at = before

    def restore_signals(self, *, is_over: bool = True) -> None:
        """Put back the handlers that were there before. `is_over`: the run has ended, and nothing need end the process."""
        WATCHER.unlisten(self, _SIGNALS)
        if is_over:
            self._is_over.set()
