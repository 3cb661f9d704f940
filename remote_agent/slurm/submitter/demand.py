"""How many allocations a run needs, and how many of those that wait nobody needs.

Rule: an allocation that has a free slot, or has not begun, is for jobs that wait. Some more may wait than are needed, because jobs end and fail
all the time. Nothing here asks anybody.
"""

from typing import Dict, List, NamedTuple, Optional

__all__ = ["BEYOND", "Demand", "Limit", "ShortJobs", "divided"]

#: So many allocations may wait that nobody needs now, while there is any job that waits.
BEYOND = 2
#: So many jobs, one after the other, must be short.
_SHORT_JOBS = 10
_SHORT = 60.0
#: Seconds after which a request for which there was no room is made again: at first, and from then on.
_PAUSES = (5.0, 10.0, 20.0, 30.0, 60.0)


class Demand(NamedTuple):
    """Jobs of a class that wait, and the allocations that there are for them.

    Attributes:
        jobs: how many nobody has taken, those among them whose end hooks are owed.
        slots: of each allocation.
        free: slots of allocations that have begun.
        coming: allocations that were asked for and have not begun.
    """

    jobs: int
    slots: int
    free: int
    coming: int

    @property
    def needed(self) -> int:
        """How many allocations that have not begun the jobs need."""
        return max(0, -(-(self.jobs - self.free) // self.slots))

    @property
    def missing(self) -> int:
        """How many more allocations to ask for."""
        return max(0, self.needed - self.coming)

    @property
    def excess(self) -> int:
        """How many of those that have not begun are to be cancelled: all of them if no job waits."""
        return self.coming if not self.jobs else max(0, self.coming - self.needed - BEYOND)


def divided(missing: Dict[str, int], room: Optional[int]) -> List[str]:
    """Return the classes for which there is something to ask, as many as there is room for. `room`: how many more may run at once; None for any."""
    classes = [klass for klass, count in sorted(missing.items()) if count]
    return classes if room is None else classes[: max(0, room)]


class ShortJobs:
    """Notices that a run's jobs are too short for an allocation each."""

    def __init__(self) -> None:
        self._seen = 0

    def ended(self, duration: Optional[float]) -> bool:
        """A job has ended. Returns whether it is time to say that jobs are short; that is so at most once."""
        if self._seen >= _SHORT_JOBS or duration is None:
            return False
        # A long one ends the watch.
        self._seen = self._seen + 1 if duration < _SHORT else _SHORT_JOBS + 1
        return self._seen == _SHORT_JOBS


class Limit:
    """How much to ask for where Slurm lets a user have only so many jobs, and when to ask again."""

    def __init__(self) -> None:
        #: The most of one request; None for what Slurm says.
        self._most: Optional[int] = None
        self._may_grow = False
        #: So many allocations there were when not one more was taken; and until when that counts.
        self._full: Optional[int] = None
        self._again_at = 0.0
        self._pauses = 0
        self._is_told = False

    def most(self, of_request: int, outstanding: int, now: float) -> int:
        """How many to ask for at most. `of_request`: the most that one request may have. `outstanding`: how many there are."""
        if self._full is not None and now >= self._again_at:
            self._full, self._may_grow = None, True
        most = of_request if self._most is None else min(of_request, self._most)
        return most if self._full is None else min(most, self._full - outstanding)

    def refused(self, count: int, outstanding: int, now: float) -> bool:
        """So many were too many. Returns whether to tell the user that there is no room, which is so once."""
        self._most, self._may_grow = max(1, count // 2), False
        if count > 1:
            return False
        self._full = outstanding
        self._again_at = now + _PAUSES[min(self._pauses, len(_PAUSES) - 1)]
        self._pauses += 1
        is_told, self._is_told = self._is_told, True
        return not is_told

    def taken(self) -> None:
        """A request was taken."""
        self._pauses = 0
        if self._may_grow and self._most is not None:
            self._most *= 2

    def next(self, now: float) -> float:
        """When to ask again."""
        return now if self._full is None else self._again_at
