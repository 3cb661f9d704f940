"""What the displays share: the counting comes first, and goes on when there is nobody left to show anything to.

Rule: a display that cannot write (a closed pipe, a full disk behind stdout) falls silent, once and visibly; the run and its
exit code do not depend on it.
"""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from launcher import events
from launcher.display.tally import Tally
from launcher.display.text import clean

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BaseDisplay"]


class BaseDisplay:
    """A context manager; call it with each event, from any thread."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._lock = threading.Lock()
        self._is_silent = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""

    def __call__(self, event: events.Event) -> None:
        """Count an event, and tell it."""
        with self._lock:
            self._tally(event)
            if self._is_silent:
                return
            try:
                self.tell(event)
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
