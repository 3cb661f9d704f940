"""Which jobs of several sizes may start on a host. The agent goes by it, and the controller, which has to know what the agent will do.

Rule: jobs start in their order. The first one that has no room waits for it, and others pass it only as long as all that pass have room
beside it. So it starts at the latest when those have ended that ran when it became the first, and no stream of small jobs can hold it up.
"""

import heapq
from collections import OrderedDict
from typing import Callable, Dict, Generic, Hashable, Iterator, List, Optional, Tuple, TypeVar

__all__ = ["Admission", "SizedQueue"]

T = TypeVar("T", bound=Hashable)
S = TypeVar("S", bound=Hashable)
#: What a job takes, or a host has: one number for each resource.
Amounts = Tuple[int, ...]


class SizedQueue(Generic[T, S]):
    """Items in their order, each with a size. The first one of each size is found without a look at the others."""

    def __init__(self) -> None:
        self._all: "OrderedDict[T, S]" = OrderedDict()
        #: Size -> item -> its place.
        self._by_size: "Dict[S, OrderedDict[T, int]]" = {}
        self._begin = self._end = 0

    def append(self, item: T, size: S) -> None:
        """Add an item behind all others."""
        self._all[item] = size
        self._by_size.setdefault(size, OrderedDict())[item] = self._end
        self._end += 1

    def prepend(self, item: T, size: S) -> None:
        """Add an item before all others."""
        self._all[item] = size
        self._all.move_to_end(item, last=False)
        alike = self._by_size.setdefault(size, OrderedDict())
        self._begin -= 1
        alike[item] = self._begin
        alike.move_to_end(item, last=False)

    def remove(self, item: T) -> None:
        """Remove an item.

        Raises:
            KeyError: it is not there.
        """
        size = self._all.pop(item)
        items = self._by_size[size]
        del items[item]
        if not items:
            del self._by_size[size]

    def sizes(self) -> "List[S]":
        """Return each size that there is, that of the first item first."""
        return [size for _, size in sorted((next(iter(one.values())), size) for size, one in self._by_size.items())]

    def of_size(self, size: S) -> Iterator[T]:
        """Yield the items of a size in their order."""
        return iter(self._by_size.get(size, ()))

    def place(self, item: T) -> int:
        """Return a number that is less than that of every item behind it."""
        return self._by_size[self._all[item]][item]

    def __iter__(self) -> Iterator[T]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, item: object) -> bool:
        return item in self._all

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SizedQueue) and list(self._all.items()) == list(other._all.items())

    __hash__ = None  # type: ignore[assignment]


class Admission:
    """What of a host is taken, and who has room there.

    Attributes:
        has: what there is.
        used: what running jobs take.
        first: the item that waits as the first, and what it needs; None if none waits for room.
    """

    def __init__(self, has: Amounts) -> None:
        self.has = has
        self.used: Amounts = (0,) * len(has)
        self.first: Optional[Tuple[Hashable, Amounts]] = None
        self._passed = self.used
        self._turn = 0

    def copy(self) -> "Admission":
        """Return one that is as this one is now."""
        made = Admission(self.has)
        made.__dict__.update(self.__dict__)
        return made

    def can_hold(self, need: Amounts) -> bool:
        """Whether there would be room if nothing ran."""
        return all(n <= h for n, h in zip(need, self.has))

    def fits(self, need: Amounts) -> bool:
        """Whether a job that stands behind the first one may start now."""
        if not self._has_free(need):
            return False
        return self.first is None or all(
            p + n + f <= h for p, n, f, h in zip(self._passed, need, self.first[1], self.has)
        )

    def take(self, need: Amounts) -> int:
        """Count a job that starts. Returns what `release` wants to know of it: which first one it has passed, if any."""
        self.used = tuple(u + n for u, n in zip(self.used, need))
        if self.first is None:
            return 0
        self._passed = tuple(p + n for p, n in zip(self._passed, need))
        return self._turn

    def release(self, need: Amounts, passed: int) -> None:
        """Count a job no more that has ended."""
        self.used = tuple(u - n for u, n in zip(self.used, need))
        if passed and passed == self._turn:
            self._passed = tuple(p - n for p, n in zip(self._passed, need))

    def wait(self, first: Optional[Tuple[Hashable, Amounts]]) -> None:
        """Set who waits as the first one from now on; None for nobody."""
        if first != self.first:
            self._passed = (0,) * len(self.has)
            self._turn += 1
        self.first = first

    def choose(
        self, queue: "SizedQueue[T, S]", need_of: Callable[[S], Amounts], most: Optional[int] = None
    ) -> "List[Tuple[T, int]]":
        """Return the items that start now, in their order, and count them. Those that are too large for the host are left out.

        Args:
            need_of: what an item of this size takes.
            most: how many items are wanted at the most.

        Returns:
            Each with what `release` wants to know.
        """
        waiting = []
        for index, size in enumerate(queue.sizes()):
            need = need_of(size)
            if self.can_hold(need):
                items = queue.of_size(size)
                item = next(items)
                waiting.append((queue.place(item), index, item, need, items))
        heapq.heapify(waiting)
        chosen: "List[Tuple[T, int]]" = []
        has_first = False
        while waiting and (most is None or len(chosen) < most):
            # If one has no room, no other one of its size has, so the rest of them is left out, too.
            _, index, item, need, items = heapq.heappop(waiting)
            if not has_first and not self._has_free(need):
                has_first = True
                self.wait((item, need))
                continue
            if not has_first and self.first is not None and self.first[0] == item:
                self.wait(None)
            if not has_first or self.fits(need):
                chosen.append((item, self.take(need)))
                following = next(items, None)
                if following is not None:
                    heapq.heappush(waiting, (queue.place(following), index, following, need, items))
        if not waiting and not has_first:
            self.wait(None)
        return chosen

    def _has_free(self, need: Amounts) -> bool:
        return all(u + n <= h for u, n, h in zip(self.used, need, self.has))
