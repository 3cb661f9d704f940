"""Which waiting job goes to which host, by what jobs need and hosts have.

Rule: a host gets what it has room for, in the order of the jobs. A job that has no room anywhere is given to a host that is large enough
before a later one takes the room there: the host lets it start as soon as it can (`remote_agent.shared.room`). What a host has room for is
worked out here as the host does it. It alone decides: a job too many waits there.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

from launcher.engine.scheduling.state import HostPhase, HostState, RunState
from remote_agent.protocol.specs.resources import Resources
from remote_agent.shared.room import Admission, SizedQueue

__all__ = ["HostView", "Placing"]

#: If several hosts share the waiting jobs, a host may queue this part of its share (by slots) beyond its slots.
_PART_OF_SHARE = 0.5
_SIZE_STEP = "ask for less in `resources`, or correct what the hosts file says that the host has"


class HostView:
    """Which of a host's jobs run there and which wait, as far as it is known here.

    Attributes:
        waiting: how many jobs wait there. If all jobs are alike, it is negative while there are free slots.
    """

    def __init__(self, state: RunState, host: HostState) -> None:
        self.host = host
        self._admission: Admission | None = None
        self.waiting = len(host.jobs) - host.slots
        if host.size is None or not state.sized:
            return
        admission = self._admission = Admission(host.size.amounts)
        queue: SizedQueue[int, Resources | None] = SizedQueue()
        for num in sorted(host.jobs, key=lambda num: state.jobs[num].place):
            job = state.jobs[num]
            if job.has_started:
                admission.take(host.size.need(job.needs))
            else:
                queue.append(num, job.needs)
        self.waiting = len(queue) - len(admission.choose(queue, self._need))

    def _need(self, needs: Resources | None) -> tuple[int, ...]:
        assert self.host.size is not None
        return self.host.size.need(needs)

    def has_room(self, needs: Resources | None) -> bool:
        """Whether such a job would start there at once."""
        if self._admission is None:
            return self.waiting < 0
        return self._admission.fits(self._need(needs))

    def add(self, num: int, needs: Resources | None) -> None:
        """Count a job that is given to the host."""
        if self._admission is None:
            self.waiting += 1
        elif self.has_room(needs):
            self._admission.take(self._need(needs))
        else:
            self.waiting += 1
            if self._admission.first is None:
                self._admission.wait((num, self._need(needs)))


class Placing:
    """Chooses. The state is changed by the caller, between two jobs."""

    def __init__(self, state: RunState) -> None:
        self._state = state

    def hopeless(self, may_open: Callable[[HostState], bool]) -> Iterator[tuple[int, str]]:
        """Yield the waiting jobs that no host can run, each with the reason.

        Args:
            may_open: whether a host that takes no job now may take some soon.
        """
        hosts = self._state.hosts.values()
        for needs in self._state.pending.sizes():
            if any(host.may_hold(needs) and (host.is_usable or may_open(host)) for host in hosts):
                continue
            reasons = [
                f"{host.name}: {host.lacks(needs) if host.is_usable else host.closed or host.why}" for host in hosts
            ]
            step = f"; {_SIZE_STEP}" if any(host.is_usable for host in hosts) else ""
            for num in list(self._state.pending.of_size(needs)):
                yield num, f"no host can run it: {'; '.join(reasons)}{step}"

    def assign(self) -> Iterator[tuple[int, str]]:
        """Yield (job, host): who gets what now."""
        usable = sum(host.is_usable for host in self._state.hosts.values())
        views = [
            HostView(self._state, host)
            for host in self._state.hosts.values()
            if host.phase is HostPhase.READY and host.closed is None
        ]
        # Fill what is free on all hosts before any queue. Otherwise one host's queue would get what another could run.
        for beyond in (False, True):
            progress = True
            while self._state.pending and progress:
                progress = False
                for view in views:
                    num = self._ahead(view, is_alone=usable <= 1) if beyond else self._next(view, views)
                    if num is not None:
                        needs = self._state.jobs[num].needs
                        yield num, view.host.name
                        view.add(num, needs)
                        progress = True

    def _next(self, view: HostView, views: list[HostView]) -> int | None:
        """Return the next job that starts on a host at once, or the one that must not be passed any more and waits there."""
        blocked: int | None = None
        for needs in self._state.pending.sizes():
            num = self._first(needs, view.host)
            if num is None:
                continue
            if not view.has_room(needs):
                blocked = num if blocked is None else blocked
                continue
            if blocked is None or view.waiting > 0 or self._fits_anywhere(blocked, views):
                return num
            return blocked
        return None

    def _fits_anywhere(self, num: int, views: list[HostView]) -> bool:
        needs = self._state.jobs[num].needs
        return any(view.host.may_hold(needs) and view.has_room(needs) for view in views)

    def _ahead(self, view: HostView, *, is_alone: bool) -> int | None:
        """Return the next job that waits on a host, so that what becomes free there does not wait for a round trip."""
        host = view.host
        ahead = host.ahead(is_alone=is_alone)
        if not is_alone:
            # Jobs that take hours may follow quick ones. Then the other hosts have their part of them, and none is idle.
            slots = sum(other.slots for other in self._state.hosts.values() if other.is_usable)
            ahead = min(ahead, int(_PART_OF_SHARE * len(self._state.pending) * host.slots / slots))
        if ahead <= view.waiting:
            return None
        return next(
            (num for needs in self._state.pending.sizes() if (num := self._first(needs, host)) is not None), None
        )

    def _first(self, needs: Resources | None, host: HostState) -> int | None:
        """Return the first waiting job of this size, without those that failed on this host if another host could take them."""
        if not host.may_hold(needs):
            return None
        for num in self._state.pending.of_size(needs):
            failed_on = self._state.jobs[num].failed_on
            if host.name not in failed_on:
                return num
            others = [other for other in self._state.hosts.values() if other.is_usable and other.may_hold(needs)]
            if all(other.name in failed_on for other in others):
                return num
        return None

    def spread(self) -> Iterator[tuple[int, str]]:
        """Yield (job, host) for all waiting jobs: each host gets its share, by slots, because nobody will be there to assign them later."""
        state = self._state
        ready = [host for host in state.hosts.values() if host.phase is HostPhase.READY and host.closed is None]
        #: How many slots are taken there by what it has.
        taken = [sum(host.weight(state.jobs[num].needs) for num in host.jobs) for host in ready]
        load = [
            ((slots + 1) / max(host.slots, 1), index)
            for index, (slots, host) in enumerate(zip(taken, ready, strict=True))
        ]
        heapq.heapify(load)
        for num in list(state.pending):
            job = state.jobs[num]
            passed = []
            chosen, fallback = None, None
            while load and chosen is None:
                one = heapq.heappop(load)
                passed.append(one)
                host = ready[one[1]]
                if host.may_hold(job.needs) and host.name not in job.failed_on:
                    chosen = one
                elif host.may_hold(job.needs):
                    # If it failed on all of them, choose the least busy one.
                    fallback = fallback or one
            chosen = chosen or fallback
            for one in passed:
                if one is not chosen:
                    heapq.heappush(load, one)
            if chosen is None:
                continue
            index = chosen[1]
            host = ready[index]
            yield num, host.name
            taken[index] += host.weight(job.needs)
            heapq.heappush(load, ((taken[index] + 1) / max(host.slots, 1), index))
