"""Limits how many hosts are connected to at the same time. With hundreds, each would wait for all others and time out.

Rule: a turn is kept for some seconds at most; after that its holder goes on without it. So a host that does not answer, or a user who
has to touch a key, delays the others only a moment. With many hosts few begin, so that the first results do not wait for hundreds of logins.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ConnectLimit", "Turn"]

#: A login takes about 20 ms of one core here, and some round trips; the start of an agent is the host's.
_AT_ONCE = 16
#: Seconds for which a turn is kept at most.
_KEPT = 3.0
#: Where there are more hosts than that: how many begin, and for how many seconds.
_AT_FIRST = 4
_FIRST_SECONDS = 5.0


class ConnectLimit:
    """How many of a run's hosts are connected to at once.

    Args:
        hosts: how many the run has.
    """

    def __init__(self, hosts: int) -> None:
        first = _AT_FIRST if hosts > _AT_ONCE else _AT_ONCE
        self.turns = threading.Semaphore(first)
        self._more = _AT_ONCE - first
        self._guard = threading.Lock()

    def turn(self, stop: threading.Event) -> Turn:
        """A turn, to be entered; see `Turn`."""
        with self._guard:
            more, self._more = self._more, 0
        if more:
            opening = threading.Timer(_FIRST_SECONDS, self.turns.release, (more,))
            opening.daemon = True
            opening.start()
        return Turn(self.turns, stop)


class Turn:
    """A context manager; entering it waits for a turn.

    Args:
        turns: what it takes one of.
        stop: set if the turn is not wanted any more. Then it is entered at once.
    """

    def __init__(self, turns: threading.Semaphore, stop: threading.Event) -> None:
        self._turns = turns
        self._stop = stop
        self._has_it = False
        self._guard = threading.Lock()
        self._timer = threading.Timer(_KEPT, self.give_back)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        while not self._stop.is_set():
            if self._turns.acquire(timeout=0.25):
                self._has_it = True
                self._timer.start()
                break
        return self

    def give_back(self) -> None:
        """Give the turn back. May be called twice, and from any thread."""
        with self._guard:
            had_it, self._has_it = self._has_it, False
        self._timer.cancel()
        if had_it:
            self._turns.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()
