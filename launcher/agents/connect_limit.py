"""Limits how many hosts are connected to at the same time. With hundreds, each would wait for all others and time out.

Rule: a host keeps its turn for at most some seconds, and then goes on without it. So a host that does not answer, or a user who must
touch a key, delays the others only for a moment. If there are many hosts, only a few begin, so that the first results do not wait for
hundreds of logins.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ConnectLimit", "Turn"]

#: A login takes about 20 ms of one core here, and some round trips. Starting an agent costs only the host.
_AT_ONCE = 16
#: The longest time that a turn is kept, in seconds.
_KEPT = 3.0
#: With more hosts than this, how many begin, and for how many seconds.
_AT_FIRST = 4
_FIRST_SECONDS = 5.0


class ConnectLimit:
    """Limits how many of a run's hosts are connected to at the same time.

    Args:
        hosts: how many the run has.
    """

    def __init__(self, hosts: int) -> None:
        first = _AT_FIRST if hosts > _AT_ONCE else _AT_ONCE
        self.turns = threading.Semaphore(first)
        self._more = _AT_ONCE - first
        self._guard = threading.Lock()

    def turn(self, stop: threading.Event) -> Turn:
        """Return a turn to enter; see `Turn`."""
        with self._guard:
            more, self._more = self._more, 0
        if more:
            opening = threading.Timer(_FIRST_SECONDS, self.turns.release, (more,))
            opening.daemon = True
            opening.start()
        return Turn(self.turns, stop)


class Turn:
    """A context manager. Entering it waits for a turn.

    Args:
        turns: the semaphore of turns.
        stop: set if the turn is not wanted any more. Then entering does not wait.
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
        """Give the turn back. May be called twice, and by any thread."""
        with self._guard:
            had_it, self._has_it = self._has_it, False
        self._timer.cancel()
        if had_it:
            self._turns.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()
