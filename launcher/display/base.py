"""What the displays share: the counting comes first, and goes on when there is nobody left to show anything to.

Rule: a display that cannot write (a closed pipe, a full disk behind stdout) falls silent, once and visibly; the run and its
exit code do not depend on it.
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

    from launcher.session.live_output import LiveOutput

__all__ = ["BaseDisplay"]


class BaseDisplay:
    """A context manager; call it with each event, from any thread.

    Args:
        live: shows what the run's one job prints; what the display says is then said through it, in one order.

    Attributes:
        tally: what has been counted so far.
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
        """Show what has come, and leave the terminal at the beginning of a line."""
        if self._live_output is None:
            return
        self._live_output.tell(lambda: None)
        try:
            self._live_output.close()
        except KeyboardInterrupt:
            # The run has ended, and its report follows.
            print("launcher: interrupted; the rest of what the job printed is in its folder", file=sys.stderr)

    def __call__(self, event: events.Event) -> None:
        """Count an event, and tell it."""
        with self._lock:
            self.tally(event)
            if self._live_output is not None:
                self._live_output(event)
            self._attempt(lambda: self.tell(event))

    def wait_shown(self) -> None:
        """What a job has printed is on the screen, before a hook of the controller prints something."""
        if self._live_output is not None:
            self._live_output.wait_shown()

    def say(self, write: Callable[[], None]) -> None:
        """Write something of ours, now or behind what the job has printed so far."""
        if self._live_output is None:
            write()
        else:
            self._live_output.tell(lambda: self._attempt(write))

    def _attempt(self, act: Callable[[], None]) -> None:
        if self._is_silent:
            return
        try:
            act()
        except Exception as error:  # noqa: BLE001 - whatever it is, the run is worth more than its display
            self._is_silent = True
            if not isinstance(error, BrokenPipeError):
                print(
                    f"launcher: the display ends here ({type(error).__name__}: {clean(error)}); the run goes on",
                    file=sys.stderr,
                )

    def tell(self, event: events.Event) -> None:
        """Show an event that has been counted."""
        raise NotImplementedError
