"""Batching: if the agent sends many messages within a short time, they wait for a moment and are sent together.

Rule: a message that comes after a pause is sent at once. Only a message that follows many others waits, and never longer than
HOLD: one message costs sender, network and receiver as much as twenty that go together.
"""

from collections import deque
from typing import Deque

__all__ = ["HOLD", "Batching"]

#: The longest time that a message waits, in seconds. The controller waits as long for more, see `launcher.engine.dispatcher`.
HOLD = 0.02
#: This many messages in this many seconds count as many. They still do if each of them waits for HOLD.
_OFTEN_COUNT = 10
_OFTEN_SECONDS = 0.4


class Batching:
    """Counts how often messages are sent. The caller passes the times of a monotonic clock."""

    def __init__(self) -> None:
        self._sent_at: Deque[float] = deque([float("-inf")] * _OFTEN_COUNT, _OFTEN_COUNT)

    def delay(self, now: float) -> float:
        """Return how many seconds a message should wait now. With 0, send it."""
        if now - self._sent_at[0] >= _OFTEN_SECONDS:
            return 0.0
        return max(0.0, self._sent_at[-1] + HOLD - now)

    def note_sent(self, now: float) -> None:
        """Count a message that was sent."""
        self._sent_at.append(now)
