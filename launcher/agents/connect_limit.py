"""Limits how many hosts are connected to at once: with hundreds, each would wait for all others and time out.

Rule: a turn is kept for some seconds at most; after that its holder goes on without it. So a host that does not answer, or a user who
has to touch a key, delays the others only a moment.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Turn"]

#: A login takes about 20 ms of one core here, and some round trips; the start of an agent is the host's.
_AT_ONCE = 16
#: Seconds for which a turn is kept at most.
_KEPT = 3.0
_turns = threading.Semaphore(_AT_ONCE)


class Turn:
    """A context manager; entering it waits for a turn.

    Args:
        stop: set by whoever no longer wants it: then it is entered at once.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._has_it = False
        self._guard = threading.Lock()
        self._timer = threading.Timer(_KEPT, self.give_back)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        while not self._stop.is_set():
            if _turns.acquire(timeout=0.25):
                self._has_it = True
                self._timer.start()
                break
        return self

    def give_back(self) -> None:
        """It is not needed any more, or not now. May be called twice, and from any thread."""
        with self._guard:
            had_it, self._has_it = self._has_it, False
        self._timer.cancel()
        if had_it:
            _turns.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()
