"""The queue of everything that the dispatcher decides about, in one order.

Rule: facts from hosts wait here up to a limit of bytes. Beyond it, the reader threads wait. So a journal that cannot be written, or
a host that floods us, takes a bounded amount of memory. Requests of the user never wait.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from typing import Generic, TypeVar

from launcher.hosts.limits import limit

__all__ = ["Inbox"]

#: Readers wait if the queue has this many bytes of payloads, or this many items.
_MAX_BYTES = limit("waiting")
_MAX_COUNT = 50_000


T = TypeVar("T")


class Inbox(Generic[T]):
    """A queue whose bound applies only to facts from hosts."""

    def __init__(self, max_bytes: int = _MAX_BYTES, max_count: int = _MAX_COUNT) -> None:
        self._items: deque[tuple[T, int, str]] = deque()
        self._bytes = 0
        #: Host -> bytes and number of its waiting items.
        self._of: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        self._max_bytes = max_bytes
        self._max_count = max_count
        self._is_closed = False
        self._condition = threading.Condition()

    def put(self, item: T) -> None:
        """Put an item that must not wait."""
        with self._condition:
            self._put(item, 0)

    def put_bulk(self, item: T, size: int, of: str = "") -> None:
        """Put a host's item of this many bytes. Waits while the queue is full. After `close`, the item is dropped."""
        with self._condition:
            self._condition.wait_for(lambda: self._is_closed or not self._is_full(of))
            if not self._is_closed:
                self._put(item, size, of)

    def _is_full(self, of: str) -> bool:
        """Whether the queue is full, or this host has used its share, so that a host that floods us does not delay others."""
        if self._bytes >= self._max_bytes or len(self._items) >= self._max_count:
            return True
        theirs = self._of[of]
        share = limit("hosts_share")
        return bool(of) and (theirs[0] >= self._max_bytes // share or theirs[1] >= self._max_count // share)

    def _put(self, item: T, size: int, of: str = "") -> None:
        self._items.append((item, size, of))
        self._count(size, 1, of)
        self._condition.notify_all()

    def _count(self, size: int, number: int, of: str) -> None:
        self._bytes += size
        theirs = self._of[of]
        self._of[of] = (theirs[0] + size, theirs[1] + number)

    def get(self, limit: int, timeout: float | None) -> list[T]:
        """Return up to `limit` items, in order. Waits up to `timeout` seconds for the first one, or for ever if it is None."""
        with self._condition:
            self._condition.wait_for(lambda: self._items, timeout)
            taken: list[T] = []
            while self._items and len(taken) < limit:
                item, size, of = self._items.popleft()
                self._count(-size, -1, of)
                taken.append(item)
            self._condition.notify_all()
        return taken

    def close(self) -> None:
        """Let waiting threads go on, because nobody reads the queue any more."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
