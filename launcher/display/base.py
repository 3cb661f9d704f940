"""The base of the displays. It counts each event first, even if nothing can be shown any more.

Rule: a display that cannot write (a closed pipe, a full disk behind stdout) says so once and stops. The run and its exit code do not
depend on it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from launcher import events
from launcher.display.tally import Tally
from launcher.display.text import clean

if TYPE_CHECKING:
    from typing_extensions import Self

    from launcher.display.controls import Controls
    from launcher.live.output import LiveOutput

__all__ = ["BaseDisplay"]


class BaseDisplay:
    """A context manager. Any thread may call it with an event.

    Args:
        live: shows what the only job of a run prints. The display's lines then go through it, so that the order is right.

    Attributes:
        tally: the counts so far.
    """

    def __init__(self, tally: Tally, live: LiveOutput | None = None) -> None:
        self.tally = tally
        self._live_output = live
        self._lock = threading.Lock()
        self._is_silent = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show what is left, and leave the terminal's cursor at the beginning of a line."""
        if self._live_output is None:
            return
        self._live_output.enqueue(lambda: None)
        try:
            self._live_output.close()
        except KeyboardInterrupt:
            # The run has ended, and its summary follows.
            print("launcher: interrupted; the rest of the job's output is in its folder", file=sys.stderr)

    def __call__(self, event: events.Event) -> None:
        """Count an event, and show it."""
        with self._lock:
            self.tally(event)
            if self._live_output is not None:
                self._live_output(event)
            self.attempt(lambda: self.show(event))

    def wait_shown(self) -> None:
        """Wait until what a job printed is on the screen, before a hook of the controller prints something."""
        if self._live_output is not None:
            self._live_output.wait_shown()

    def write(self, act: Callable[[], None]) -> None:
        """Write our own text: now, or after what the job has printed so far."""
        if self._live_output is None:
            act()
        else:
            self._live_output.enqueue(lambda: self.attempt(act))

    def use(self, controls: Controls) -> None:
        """Offer the user what can be done to the run. Only a terminal has keys for it."""

    def attempt(self, act: Callable[[], None], *, is_last: bool = False) -> None:
        """Do what writes. If it fails, say so once, and write nothing more. `is_last`: try it even then."""
        was_silent = self._is_silent
        if was_silent and not is_last:
            return
        try:
            act()
        except Exception as error:  # noqa: BLE001 - whatever it is, the run matters more than its display
            self._is_silent = True
            if not was_silent and not isinstance(error, BrokenPipeError):
                print(
                    f"launcher: nothing more can be shown ({type(error).__name__}: {clean(error)}); the run goes on",
                    file=sys.stderr,
                )

    def show(self, event: events.Event) -> None:
        """Show an event that has been counted."""
        raise NotImplementedError
