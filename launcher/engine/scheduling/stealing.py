"""Which jobs are taken back from hosts where they wait, because another host is idle.

Rule: nothing is decided here about a job. A host is asked for attempts, and a job gets another attempt only when its host has said
that this one never starts. So an answer that is lost costs nothing: the next welcome says which attempts the host has, and what
it gave back is sent to it again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from launcher.engine.scheduling.placing import HostView
from launcher.engine.scheduling.state import HostPhase, HostState, RunState, UnfinishedJob

__all__ = ["WorkStealing"]

#: A job for which its host seems to have a slot is taken back if it has not started within this many seconds.
_SOON = 1.0
#: Jobs that will start within this many seconds are not taken back. It would take about as long.
_WORTH = 0.1


@dataclass
class WorkStealing:
    """Remembers what was asked, and since when jobs wait while there is an idle host. A journal has none of that.

    Attributes:
        asked: number of a job -> attempt and host. The host has not answered yet.
        look_at: the monotonic time at which to choose again, even without a new fact; infinity for never.
    """

    state: RunState
    asked: dict[int, tuple[int, str]] = field(default_factory=dict)
    look_at: float = math.inf
    _waits_since: dict[int, float] = field(default_factory=dict)

    def choose(self, now: float, prepared: set[str], able: set[str]) -> dict[str, list[str]]:
        """Return host -> attempts to ask for. See `Scheduler.take_back`."""
        self.look_at = math.inf
        views = [HostView(self.state, host) for host in self.state.hosts.values() if host.phase is HostPhase.READY]
        idle = [view for view in views if view.host.name in prepared and self._is_idle(view)]
        if not idle:
            self._waits_since = {}
            return {}
        self.asked = {num: asked for num, asked in self.asked.items() if self._waits(num, *asked)}
        for num in self.asked:
            self._place(self.state.jobs[num], idle)
        before, self._waits_since = self._waits_since, {}
        chosen: dict[str, list[str]] = {}
        busy = [view for view in views if view.host.name in able and view.host.jobs]
        # The one whose jobs would wait longest comes first.
        for view in sorted(busy, key=lambda one: -_seconds_of_work(one.host, len(one.host.jobs))):
            if not self.state.sized and all(other.waiting >= 0 for other in idle):
                break
            hosts = [other.host for other in idle]
            jobs = self._ripe(view, hosts, before, now)
            share = self._share(len(jobs), view.host, hosts) if not self.state.sized else 0
            taken = [job for place, job in enumerate(jobs) if self._place(job, idle) or place < share]
            for job in taken:
                self.asked[job.num] = (job.attempt, view.host.name)
            if taken:
                chosen[view.host.name] = [f"{job.num}.{job.attempt}" for job in taken]
        return chosen

    def forget(self, host: str) -> None:
        """Forget what this host was asked for: it has a new link, over which no answer comes."""
        self.asked = {num: asked for num, asked in self.asked.items() if asked[1] != host}

    def _is_idle(self, view: HostView) -> bool:
        """Whether some job would start there at once. A host where a job waits that should have room cannot start any."""
        if view.host.closed is not None or (view.waiting >= 0 and not self.state.sized):
            return False
        return sum(not self.state.jobs[num].has_started for num in view.host.jobs) <= max(view.waiting, 0)

    @staticmethod
    def _place(job: UnfinishedJob, idle: list[HostView]) -> bool:
        """Count a job for an idle host where it would start. Returns False if there is none."""
        for view in idle:
            if _may_take(view.host, job) and view.has_room(job.needs):
                view.add(job.num, job.needs)
                return True
        return False

    def _waits(self, num: int, attempt: int, host: str) -> bool:
        job = self.state.current(num, attempt, host)
        return job is not None and not job.has_started and self.state.hosts[host].phase is HostPhase.READY

    def _ripe(self, view: HostView, idle: list[HostState], before: dict[int, float], now: float) -> list[UnfinishedJob]:
        """Return the jobs to take back from a host, those first that it would start last."""
        host = view.host
        waiting = [self.state.jobs[num] for num in sorted(host.jobs, reverse=True)]
        waiting = [job for job in waiting if not (job.has_started or job.is_ending or job.num in self.asked)]
        beyond_slots = view.waiting - sum(asked[1] == host.name for asked in self.asked.values())
        ripe = []
        for place, job in enumerate(waiting):
            if not any(_may_take(other, job) for other in idle):
                continue
            since = self._waits_since[job.num] = before.get(job.num, now)
            if now >= since + _SOON or (
                place < beyond_slots and _seconds_of_work(host, beyond_slots - place) >= _WORTH
            ):
                ripe.append(job)
            else:
                self.look_at = min(self.look_at, since + _SOON)
        return ripe

    @staticmethod
    def _share(jobs: int, host: HostState, idle: list[HostState]) -> int:
        """Return how many of these jobs the idle hosts would do while the host does the rest."""
        seconds = host.job_seconds or 1.0
        rate = host.slots / seconds
        idle_rate = sum(other.slots / max(other.job_seconds or seconds, 0.001) for other in idle)
        return int(jobs * idle_rate / (idle_rate + rate))


def _may_take(host: HostState, job: UnfinishedJob) -> bool:
    """Whether a job that waits on another host could run on this one."""
    return host.name not in (job.host, *job.failed_on) and host.may_hold(job.needs)


def _seconds_of_work(host: HostState, jobs: int) -> float:
    """Return how long the host takes for this many jobs. Where nothing is known of them, they count as long."""
    seconds = host.job_seconds
    return math.inf if seconds is None else seconds * jobs / host.slots
