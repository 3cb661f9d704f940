"""Where everything meets that the dispatcher has to decide about, in one order.

Rule: what hosts tell waits here only up to a cap of bytes: beyond it their reader threads wait, so that a journal that
cannot be written, or a flood, costs a bounded amount of memory. What the user asks is never kept waiting.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from launcher.host_caps import limit

__all__ = ["Inbox"]

#: Bytes of payloads, and number of things, that wait before readers do.
_MAX_BYTES = limit("waiting")
_MAX_COUNT = 50_000


class Inbox:
    """A queue in which only bulk is held back."""

    def __init__(self, max_bytes: int = _MAX_BYTES, max_count: int = _MAX_COUNT) -> None:
        self._items: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._max_count = max_count
        self._is_closed = False
        self._condition = threading.Condition()

    def put(self, item: Any) -> None:
        """Put something that must not wait."""
        with self._condition:
            self._put(item, 0)

    def put_bulk(self, item: Any, size: int) -> None:
        """Put something of so many bytes; waits while there is too much. After `close` it is dropped."""
        with self._condition:
            self._condition.wait_for(lambda: self._is_closed or not self._is_full)
            if not self._is_closed:
                self._put(item, size)

    @property
    def _is_full(self) -> bool:
        return self._bytes >= self._max_bytes or len(self._items) >= self._max_count

    def _put(self, item: Any, size: int) -> None:
        self._items.append((item, size))
        self._bytes += size
        self._condition.notify_all()

    def take(self, limit: int, timeout: float | None) -> list[Any]:
        """Up to `limit` things, in order; waits for the first one for timeout seconds, None: for ever."""
        with self._condition:
            self._condition.wait_for(lambda: self._items, timeout)
            taken: list[Any] = []
            while self._items and len(taken) < limit:
                item, size = self._items.popleft()
                self._bytes -= size
                taken.append(item)
            self._condition.notify_all()
        return taken

    def close(self) -> None:
        """Nobody takes any more: let those who wait go on."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
