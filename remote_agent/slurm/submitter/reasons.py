"""Why allocations wait, as Slurm says: what the user hears of it, and which of them wait in vain.

Rule: a reason is told when it is new, and once more when Slurm first says when it expects to start those that wait for it.
"""

from typing import Callable, Dict, List, Sequence, Set, Tuple

from remote_agent.slurm.batch.batch import Listed, Phase, expected_start

__all__ = ["Reasons"]

#: Seconds for which an allocation waits for a reason that never goes away by itself, before its jobs fail.
_PATIENCE = 60.0


class Reasons:
    """The reasons that Slurm listed the last time. `is_hopeless`: whether one never goes away by itself."""

    def __init__(self, is_hopeless: Callable[[str], bool]) -> None:
        self._is_hopeless = is_hopeless
        #: Reason -> since when.
        self._since: Dict[str, float] = {}
        #: Of these it was said when Slurm expects to start them.
        self._expected: Set[str] = set()

    def see(self, found: Sequence[Listed], now: float) -> Tuple[List[str], List[str]]:
        """Slurm has listed this. Returns what to tell the user, and the reasons for which allocations have waited in vain for long enough."""
        notes = []
        reasons = sorted({one.reason for one in found if one.phase is Phase.WAITING and one.reason})
        for reason in reasons:
            start = expected_start(found, reason)
            if reason not in self._since or (start and reason not in self._expected):
                notes.append("slurm: allocations wait: {}{}".format(reason, start))
            if start:
                self._expected.add(reason)
        self._expected.intersection_update(reasons)
        self._since = {reason: self._since.get(reason, now) for reason in reasons}
        return notes, [one for one in reasons if self._is_hopeless(one) and now - self._since[one] >= _PATIENCE]
