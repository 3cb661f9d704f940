"""The allocations that a run has, or has asked for: how many of a class have not begun, how many slots are free, and which to cancel.

Rule: what Slurm listed the last time counts, with what the allocations' own logs have said since. Before Slurm was asked, all of a request count.
"""

from collections import Counter
from typing import Dict, List, NamedTuple, Sequence, Set, Tuple

from remote_agent.slurm.batch.batch import Listed, Phase
from remote_agent.slurm.batch.classes import DEFAULT
from remote_agent.slurm.pool.incarnations import EPILOGUE, Incarnation, Incarnations
from remote_agent.slurm.pool.pool import Pool
from remote_agent.slurm.submitter.submitter_log import SubmitterLog

__all__ = ["Supply"]


class _Seen(NamedTuple):
    """What Slurm listed of a request: how many wait, and which run. `over`: those whose logs said before that they are over."""

    waiting: int
    alive: Set[str]
    over: Set[str]


class Supply:
    """The allocations of a run, as the submitter's log, the incarnations' logs and Slurm tell."""

    def __init__(self, log: SubmitterLog, incarnations: Incarnations, pool: Pool) -> None:
        self._log = log
        self._incarnations = incarnations
        self._pool = pool
        self._seen: Dict[str, _Seen] = {}
        #: Requests of which those that waited were cancelled.
        self._withdrawn: Set[str] = set()

    def class_of(self, request: str) -> str:
        """The class for which a request is."""
        asked = self._log.requests.get(request)
        return asked.klass if asked is not None else DEFAULT

    def is_withdrawn(self, request: str) -> bool:
        """Whether allocations of a request were cancelled because nobody needs them."""
        return request in self._withdrawn

    def polled(self, names: Sequence[str], found: Sequence[Listed]) -> None:
        """Slurm was asked for the requests of these names, and has listed this."""
        for name in names:
            over = self._over(name)
            own = [one for one in found if one.name == name]
            self._seen[name] = _Seen(
                len([one for one in own if one.phase is Phase.WAITING]),
                {one.job for one in own if one.phase is Phase.ALIVE} - over,
                over,
            )

    # -- counts --------------------------------------------------------------------------------------------------

    def outstanding(self) -> int:
        """How many allocations have been asked for and have not ended."""
        return sum(self._outstanding(name) for name in self._log.requests)

    def outstanding_of(self, klass: str) -> int:
        """How many of these are for a class."""
        return sum(self._outstanding(name) for name, asked in self._log.requests.items() if asked.klass == klass)

    def at_once(self) -> int:
        """How many of these may run at the same time."""
        return sum(
            min(self._outstanding(name), asked.at_once or asked.tasks) for name, asked in self._log.requests.items()
        )

    def of(self, klass: str, *, is_many: bool) -> Tuple[int, int]:
        """Return how many allocations for a class have not begun, and how many slots are free of those that have. `is_many`: each takes more
        than one job.
        """
        begun = [one for one in self._begun() if self.class_of(one.request) == klass]
        taken = Counter(self._pool.takers().values())
        free = 0
        for one in begun:
            done = len([attempt for attempt in one.attempts.values() if attempt.final is not None])
            asked = self._log.requests.get(one.request)
            slots = asked.slots if asked is not None else 1
            free += max(0, slots - max(0, taken[one.name] - done) if is_many else 1 - taken[one.name])
        return max(0, self.outstanding_of(klass) - len(begun)), free

    def _begun(self) -> List[Incarnation]:
        return [one for one in self._incarnations if one.has_begun and not one.is_over and one.request != EPILOGUE]

    def _outstanding(self, name: str) -> int:
        over, seen = self._over(name), self._seen.get(name)
        if seen is None:
            return max(0, self._log.requests[name].tasks - len(over))
        return max(0, seen.waiting + len(seen.alive) - len(over - seen.over))

    def _over(self, name: str) -> Set[str]:
        """Those of a request whose last start is over."""
        last: Dict[int, Incarnation] = {}
        for one in self._incarnations:
            if one.request == name and (one.job not in last or one.restart > last[one.job].restart):
                last[one.job] = one
        return {str(job) for job, one in last.items() if one.is_over}

    # -- what nobody needs ---------------------------------------------------------------------------------------

    def withdraw(self, klass: str, excess: int) -> List[str]:
        """Return the names of requests of which all that wait are to be cancelled, if so many of a class are not needed. Slurm can do so only with
        all of a request.
        """
        found = []
        for name, asked in self._log.requests.items():
            seen = self._seen.get(name)
            if asked.klass == klass and seen is not None and 0 < seen.waiting <= excess:
                excess -= seen.waiting
                self._seen[name] = seen._replace(waiting=0)
                self._withdrawn.add(name)
                found.append(name)
        return found
