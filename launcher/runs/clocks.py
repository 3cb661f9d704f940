"""The times of hosts, moved to the clock of this machine.

Rule: a host's clock may be wrong by any amount, and a host may send any number. What it says is moved by one offset for each host, which is
measured, and nothing of a run lies before its begin or after its end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from launcher.runs.status import AttemptStatus, JobStatusLine

__all__ = ["is_time", "offsets_of", "times_of"]

_LATEST = 1e11


def is_time(at: float | None) -> TypeGuard[float]:
    """Whether it can be a time in seconds since the epoch. A host may send any number."""
    return at is not None and abs(at) <= _LATEST


def offsets_of(jobs: Iterable[JobStatusLine]) -> dict[str, float]:
    """Return by how many seconds the clock of each host is behind ours. A host that started no job is not among them."""
    offsets: dict[str, float] = {}
    for job in jobs:
        for attempt in job.attempts:
            if attempt.started_at is not None and is_time(attempt.host_started_at):
                offset = attempt.started_at - attempt.host_started_at
                # The message that it has started took some time, at least once hardly any.
                offsets[attempt.host] = min(offset, offsets.get(attempt.host, offset))
    return offsets


def times_of(attempt: AttemptStatus, offset: float, begin: float, end: float) -> tuple[float, float]:
    """Return from when to when an attempt ran that has started, by the clock of this machine.

    Args:
        offset: that of its host.
        begin, end: those of the run.
    """
    assert attempt.started_at is not None
    start = attempt.started_at
    if is_time(attempt.host_started_at):
        start = attempt.host_started_at + offset
    # An attempt lies within its run, whatever its host says of its times.
    start = min(max(start, begin), end)
    over = end if attempt.ended_at is None else attempt.ended_at
    if attempt.duration is not None:
        over = start + attempt.duration
    return start, min(max(start, over), end)
