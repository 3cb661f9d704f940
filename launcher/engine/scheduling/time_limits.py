"""How long a run waits: for a host without a link, for one that takes no jobs, for a job to end, for one that was asked to end.

Rule: these are monotonic times, which mean nothing to another process. So they are noted here, and no event has them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from launcher.engine.scheduling.policies import Policies
from launcher.engine.scheduling.state import OVER, HostPhase, HostState, RunState, UnfinishedJob

__all__ = ["TimeLimits"]

#: How many seconds an interrupted run waits for a host whose link is gone.
_INTERRUPTED_PATIENCE = 30.0
#: A link that brings nothing of a job counts as working after this many seconds (at most `host_loss_timeout`): a job may take hours.
_WORKS_AFTER = 10.0


class TimeLimits:
    """Those of a run's hosts and jobs."""

    def __init__(self, state: RunState, policies: Policies) -> None:
        self._state = state
        self._policies = policies
        #: (due, job, attempt), the next one first. Entries that no longer hold are skipped when their time comes.
        self._bounds: list[tuple[float, int, int]] = []

    def note(self, now: float) -> None:
        """Note since when hosts are in their state. A link that drops before it has brought anything of a job does not count."""
        works_after = min(_WORKS_AFTER, self._policies.host_loss_timeout)
        for host in self._state.hosts.values():
            if host.phase is HostPhase.READY and host.ready_since is None:
                host.ready_since = now
            if host.ready_since is not None and now - host.ready_since >= works_after:
                host.unknown_since = None
            if host.phase is HostPhase.UNKNOWN:
                host.ready_since = None
                if host.unknown_since is None:
                    host.unknown_since = now
            if host.may_open and host.closed_since is None:
                host.closed_since = now

    def lost(self, now: float) -> Iterator[HostState]:
        """The hosts that have been without a link for too long."""
        for host in self._state.hosts.values():
            if host.lost_since is not None and now >= host.lost_since + self._patience():
                yield host

    def overdue(self, now: float) -> Iterator[tuple[str, str]]:
        """The connected hosts that have not ended a job long after its time limit, each with the text of that."""
        self._note_bounds(now)
        while self._bounds and self._bounds[0][0] <= now:
            due, num, attempt = heapq.heappop(self._bounds)
            job = self._state.jobs.get(num)
            if job is None or job.due != due or job.attempt != attempt or job.ended is not None or not job.host:
                continue
            # Without a link, the job may have ended long ago. Its time begins again with the next link.
            if self._state.hosts[job.host].phase is HostPhase.READY:
                yield job.host, f"job {num} is long past its time limit, and the host answers but has not ended it"

    def may_open(self, host: HostState, now: float) -> bool:
        """Whether a host that takes no job now may take some soon."""
        timeout = self._policies.host_loss_timeout
        return host.phase not in OVER and host.closed_since is not None and now < host.closed_since + timeout

    def nearest(self) -> float:
        """Return the time at which the next limit is reached; infinity for none."""
        hosts = self._state.hosts.values()
        due = [host.lost_since + self._patience() for host in hosts if host.lost_since is not None]
        due += [bound for bound, _, _ in self._bounds[:1]]
        if self._state.pending:
            timeout = self._policies.host_loss_timeout
            due += [host.closed_since + timeout for host in hosts if host.closed_since is not None]
        return min(due, default=float("inf"))

    def _note_bounds(self, now: float) -> None:
        fresh, self._state.fresh = self._state.fresh, []
        for num in fresh:
            job = self._state.jobs.get(num)
            limit = self._limit_of(job) if job is not None and job.host and job.ended is None else None
            if job is None or limit is None:
                continue
            job.due = now + limit
            heapq.heappush(self._bounds, (job.due, num, job.attempt))

    def _limit_of(self, job: UnfinishedJob) -> float | None:
        """Return within how many seconds from now a job on a host must end."""
        policies, interrupted = self._policies, self._state.interrupted
        if interrupted is not None and interrupted.kill:
            return policies.kill_limit
        if interrupted is not None or job.is_cancelled:
            return policies.end_limit
        return policies.job_limit if job.has_started else None

    def _patience(self) -> float:
        """Return how many seconds to wait for a host without a link."""
        if self._state.interrupted is not None:
            return min(self._policies.host_loss_timeout, _INTERRUPTED_PATIENCE)
        return float("inf") if self._policies.on_host_loss == "wait" else self._policies.host_loss_timeout
