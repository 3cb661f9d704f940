"""Which attempts were acknowledged, in little memory: a hundred thousand consecutive ones are one entry.

Rule: an attempt that was acknowledged is never accepted again, so a controller that sends a job twice does not start it twice.
"""

import bisect
from typing import Dict, List, Tuple

__all__ = ["Acknowledged"]


class Acknowledged:
    """A set of attempts by name. It is stored as ranges of job numbers, for each number of an attempt."""

    def __init__(self) -> None:
        #: number of an attempt -> the first job of each range; `_behind` has the job after its last one
        self._first: Dict[int, List[int]] = {}
        self._behind: Dict[int, List[int]] = {}

    def add(self, attempt_id: str) -> None:
        """Add an attempt."""
        num, number = _parts(attempt_id)
        first, behind = self._first.setdefault(number, []), self._behind.setdefault(number, [])
        at = bisect.bisect_right(first, num)
        if at and num < behind[at - 1]:
            return
        touches_left = bool(at) and behind[at - 1] == num
        touches_right = at < len(first) and first[at] == num + 1
        if touches_left and touches_right:
            behind[at - 1] = behind.pop(at)
            del first[at]
        elif touches_left:
            behind[at - 1] = num + 1
        elif touches_right:
            first[at] = num
        else:
            first.insert(at, num)
            behind.insert(at, num + 1)

    def __contains__(self, attempt_id: str) -> bool:
        num, number = _parts(attempt_id)
        at = bisect.bisect_right(self._first.get(number, []), num)
        return bool(at) and num < self._behind[number][at - 1]

    @property
    def entries(self) -> int:
        """The number of ranges, which decides the memory."""
        return sum(len(ranges) for ranges in self._first.values())


def _parts(attempt_id: str) -> Tuple[int, int]:
    num, _, number = attempt_id.partition(".")
    return int(num), int(number)
