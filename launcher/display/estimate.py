"""When jobs and the run will probably end, by how long jobs have taken so far.

Rule: it says nothing before there is a base: two jobs that have completed. It says nothing, too, of what nobody can know: when a
queue lets a job start, and how long a job goes on that has taken longer than all before it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launcher.display.tally import Tally

__all__ = ["Durations", "run_left"]

#: How many of the last durations count.
_KEPT = 200
#: How many completed jobs make a base.
_BASE = 2


class Durations:
    """How long the last jobs took that have completed, in seconds."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_KEPT)

    def add(self, duration: float) -> None:
        """Count a job."""
        self._last.append(max(duration, 0.0))

    @property
    def typical(self) -> float | None:
        """The median; None if there is no base."""
        if len(self._last) < _BASE:
            return None
        return sorted(self._last)[len(self._last) // 2]

    @property
    def longest(self) -> float | None:
        """The longest; None if there is no base."""
        return max(self._last) if len(self._last) >= _BASE else None


def run_left(tally: Tally, at: float, total: int) -> float | None:
    """Return the seconds until all jobs have probably returned; None if that cannot be said.

    When each slot has had some jobs, the rate so far counts, which includes everything between jobs. Before that, the durations count.
    """
    hosts = [host for host in tally.hosts.values() if host.state == "ready"]
    slots = sum(host.slots for host in hosts)
    left = total - tally.returned
    typical, longest = tally.durations.typical, tally.durations.longest
    if typical is None or longest is None or left <= 0 or not slots or tally.interrupted:
        return None
    if any(host.queue_reason and host.queued for host in tally.hosts.values()):
        return None
    times = [at - since for host in tally.hosts.values() for since in host.running_jobs.values()]
    rest = [max(typical - time, 0.0) for time in times if time <= longest]
    if len(rest) < len(times) and left <= len(times):
        return None  # only what takes longer than all before it is left
    waiting = max(left - len(times), 0)
    at_least = max([*rest, typical if waiting else 0.0])
    rate = tally.seconds_left(at, total) if tally.returned_since >= 2 * slots else None
    return max(at_least, rate if rate is not None else (waiting * typical + sum(rest)) / min(slots, left))
