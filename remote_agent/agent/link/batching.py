"""What the agent says to its controller often is held back for a moment, so that it is said together.

Rule: who speaks seldom is heard at once. Only what follows upon many others within a short time waits, and never longer than
a moment: a message costs who sends it, who carries it and who hears it as much as twenty do.
"""

from collections import deque
from typing import Deque

__all__ = ["HOLD", "Batching"]

#: Seconds for which something is held at most. The controller lets more gather for as long, see `launcher.engine.dispatcher`.
HOLD = 0.02
#: So many times within so many seconds are often. Held for HOLD each time, it stays often.
_OFTEN_COUNT = 10
_OFTEN_SECONDS = 0.4


class Batching:
    """Counts how often somebody speaks. Times are those of a monotonic clock, which the caller reads."""

    def __init__(self) -> None:
        self._sent_at: Deque[float] = deque([float("-inf")] * _OFTEN_COUNT, _OFTEN_COUNT)

    def delay(self, now: float) -> float:
        """Seconds for which what is to be said now is held back yet; 0: it is to be said."""
        if now - self._sent_at[0] >= _OFTEN_SECONDS:
            return 0.0
        return max(0.0, self._sent_at[-1] + HOLD - now)

    def note_sent(self, now: float) -> None:
        """It was said."""
        self._sent_at.append(now)
