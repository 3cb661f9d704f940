"""Which job goes where and when, and what becomes of it; pure: facts and the time in, events out.

Rule: nothing here does I/O or reads a clock; times are seconds of a monotonic clock that the caller hands in. Every
decision is an event, and takes effect by being applied (see `launcher.engine.state`): a journal of these events, applied again, gives
the same state, and a test can run ten thousand histories a minute.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from launcher import events
from launcher.engine.state import OVER, HostPhase, HostState, RunState, UnfinishedJob
from launcher.events import Event

__all__ = ["HostPhase", "HostState", "Policies", "Scheduler", "UnfinishedJob"]

#: Seconds for which an interrupted run waits for a host whose link is gone.
_INTERRUPTED_PATIENCE = 30.0
#: A link over which nothing of a job came counts as of use after so many seconds, at most `host_loss_timeout`: a job may take hours.
_STANDS = 10.0
#: Where several hosts share the waiting jobs, a host may queue this part of its share by slots beyond its slots.
_PART_OF_SHARE = 0.5


@dataclass(frozen=True)
class Policies:
    """What to do when something fails.

    Attributes:
        retries: further attempts by kind of error; `*` for every other kind.
        on_host_loss: `wait` (for ever), `retry` (elsewhere, after host_loss_timeout) or `fail` (after it).
        host_loss_timeout: seconds since a host's link was last of use; also how long a host that is there but cannot take jobs
            is waited for.
        max_failures: failed jobs after which no further job starts and running ones are cancelled; None: no limit.
        callbacks: the callbacks that hosts were given, by name, each with whether it may stop the run: of no other is anything
            believed.
        slots: of hosts that were given a number of them, which is the most that they get.
        job_limit: seconds after which a job that has started must have an outcome, whatever its host does; None: no limit.
        end_limit: the same for a job that was told to end, from then on.
        kill_limit: the same for one that was killed.
    """

    retries: dict[str, int] = field(default_factory=dict)
    on_host_loss: str = "wait"
    host_loss_timeout: float = 600.0
    max_failures: int | None = None
    callbacks: Callable[[], Mapping[str, bool]] = dict
    slots: Mapping[str, int] = field(default_factory=dict)
    job_limit: float | None = None
    end_limit: float | None = None
    kill_limit: float | None = None

    def may_retry(self, kind: str, attempt: int) -> bool:
        """Tell whether another attempt follows one that failed by an error of this kind."""
        return attempt <= self.retries.get(kind, self.retries.get("*", 0))


class Scheduler(RunState):
    """Decides about a run's jobs and hosts.

    `plan` says what should happen next; the caller journals these events, and then acts on them. Facts from hosts go
    through `observe_*`, which return the events that follow. All of them are already applied when they are returned.
    """

    def __init__(self, hosts: list[str], policies: Policies | None = None) -> None:
        super().__init__(hosts)
        self.policies = policies or Policies()
        #: (due, job, attempt), the next one first; what no longer holds is passed over when its time comes.
        self._bounds: list[tuple[float, int, int]] = []

    def _all(self, *made: Event) -> list[Event]:
        for event in made:
            self.apply(event)
        return list(made)

    # -- facts about hosts ---------------------------------------------------------------------------------------

    def observe_ready(
        self, at: float, host: str, slots: int, python: str, gpus: tuple[str, ...], boot_id: str = ""
    ) -> list[Event]:
        """The agent of a host said welcome. A host that was given up is used again; its old attempts stay given up."""
        phase = self.hosts[host].phase
        if phase is HostPhase.UNUSABLE:
            return []
        back = phase in (HostPhase.UNKNOWN, HostPhase.LOST)
        slots = min(slots, self.policies.slots.get(host, slots))
        return self._all(events.HostReady(at, host, slots, python, gpus, back, boot_id))

    def observe_unknown(self, at: float, host: str, why: str) -> list[Event]:
        """The link to a host that was ready is gone."""
        state = self.hosts[host]
        if state.phase is not HostPhase.READY:
            return []
        return self._all(events.HostUnknown(at, host, why, tuple(sorted(state.jobs | state.collecting))))

    def observe_unusable(self, at: float, host: str, phase: str, why: str, next_step: str) -> list[Event]:
        """A host never came to take jobs."""
        if self.hosts[host].phase is not HostPhase.CONNECTING:
            return []
        return self._all(events.HostUnusable(at, host, phase, why, next_step))

    def observe_closed(self, at: float, host: str, why: str, *, may_open: bool = False) -> list[Event]:
        """A host takes no further jobs, though it may be connected; with may_open it may take some later."""
        state = self.hosts[host]
        if state.closed is not None and (may_open or not state.may_open):
            return []
        return self._all(events.HostClosed(at, host, why, may_open))

    def observe_opened(self, at: float, host: str) -> list[Event]:
        """A host that took no further job takes jobs again."""
        state = self.hosts[host]
        return self._all(events.HostOpened(at, host)) if state.closed is not None and state.may_open else []

    def observe_unprepared(self, at: float, host: str, why: str) -> list[Event]:
        """The application cannot be prepared on a host. It would fail every job at once, and so get all of them.

        If another host can be used, this one gets no further jobs, and what it has not started runs elsewhere. Otherwise its errors
        become the jobs' errors.
        """
        if not any(other.is_usable for other in self.hosts.values() if other.name != host):
            return []
        out = self.observe_closed(at, host, why)
        for job in self._not_started(host) if out else ():
            out += self._again(at, job, why)
        return out

    def observe_unfit(self, at: float, host: str, phase: str, why: str, next_step: str) -> list[Event]:
        """No job can run on a host that was reached: what it was given and has not started runs elsewhere."""
        state = self.hosts[host]
        if state.phase is not HostPhase.READY or (state.closed is not None and not state.may_open):
            return []
        waiting = self._not_started(host)
        if state.collecting or len(waiting) < len(state.jobs):
            out = self.observe_closed(at, host, why)
        else:
            out = self._all(events.HostUnusable(at, host, phase, why, next_step))
        is_alone = not any(other.is_usable for other in self.hosts.values())
        for job in waiting:
            if is_alone:
                out += self._fail(at, job, "host", f"no host can run it: {host}: {why}")
            else:
                first, _, _ = why.partition("\n")
                out += self._again(at, job, first)
        return out

    def _not_started(self, host: str) -> list[UnfinishedJob]:
        """The jobs that a host was given and is not known to have started."""
        return [self.jobs[num] for num in sorted(self.hosts[host].jobs) if not self.jobs[num].has_started]

    # -- facts about attempts ------------------------------------------------------------------------------------

    def observe_started(
        self, at: float, host: str, num: int, attempt: int, slot: int, started_at: float
    ) -> list[Event]:
        """The attempt's process began."""
        job = self.current(num, attempt, host)
        if job is None or job.has_started or job.ended is not None:
            return []
        return self._all(events.AttemptStarted(at, num, attempt, host, slot, started_at))

    def observe_ended(
        self,
        at: float,
        host: str,
        num: int,
        attempt: int,
        status: str,
        duration: float | None,
        error: dict[str, Any] | None,
    ) -> list[Event]:
        """The attempt has its outcome; its files may still be on their way."""
        job = self.current(num, attempt, host)
        if job is None or job.ended is not None:
            return []
        return self._all(events.AttemptEnded(at, num, attempt, host, status, duration, error))

    def observe_collected(self, at: float, host: str, num: int, attempt: int) -> list[Event]:
        """All files of the attempt have arrived: the job returns, or another attempt follows."""
        job = self.current(num, attempt, host)
        if job is None or job.ended is None:
            return []
        return self._settle(at, job)

    def observe_unwritable(self, at: float, host: str, num: int, attempt: int, why: str) -> list[Event]:
        """The output of the attempt can never be written here: it has failed, whatever its outcome is there, and another would fail, too."""
        job = self.current(num, attempt, host)
        if job is None:
            return []
        error = {"kind": "host", "type": "", "message": why, "traceback": "", "causes": []}
        ended = events.AttemptEnded(at, num, attempt, host, "FAILED", None, error)
        return self._all(ended, events.JobReturned(at, num, attempt, host, "FAILED", None, error, tuple(job.overrides)))

    def observe_dropped(self, at: float, host: str, num: int, attempt: int, why: str) -> list[Event]:
        """The host gave the attempt back; it never started."""
        job = self.current(num, attempt, host)
        if job is None or job.has_started or job.ended is not None:
            return []
        return self._again(at, job, why)

    def observe_missing(self, at: float, host: str, known: set[str], rebooted: bool) -> list[Event]:
        """A host that was reached again does not know attempts that were given to it.

        Without a reboot those that were not seen to start never arrived, and are sent again by the caller. The others may
        have run, and are lost.
        """
        out: list[Event] = []
        for num in sorted(self.hosts[host].jobs):
            job = self.jobs[num]
            if f"{num}.{job.attempt}" in known:
                continue
            if rebooted:
                out += self._lose(at, job, f"{host} was restarted (or its spool removed) and does not know the job")
            elif job.has_started:
                out += self._lose(
                    at, job, f"{host} does not know the job any more, though it had started: its spool is gone"
                )
        for num in sorted(self.hosts[host].collecting):
            job = self.jobs[num]
            if f"{num}.{job.attempt}" not in known:
                # The outcome is here; the files that are missing will never come.
                lost = "its output files and streams may be incomplete: the host does not have them any more"
                out += [events.Warned(at, "output files", lost, "", num, host), *self._settle(at, job)]
        return out

    # -- what the user asks --------------------------------------------------------------------------------------

    def submit(self, at: float, num: int, overrides: tuple[str, ...] = ()) -> list[Event]:
        """A new job."""
        return self._all(events.JobQueued(at, num, overrides))

    def interrupt(self, at: float, why: str, kill: bool = False) -> list[Event]:
        """Stop: nothing further starts; what runs is cancelled by the caller."""
        if self.interrupted is not None and (self.interrupted.kill or not kill):
            return []
        out = self._all(events.RunInterrupt(at, why, kill))
        for num in list(self.pending):
            out += self._fail(at, self.jobs[num], "cancelled", f"cancelled before it started: {why}")
        return out

    def cancel(self, at: float, num: int) -> list[Event]:
        """Cancel one job that waits here; one that is on a host is cancelled there by the caller."""
        job = self.jobs.get(num)
        if job is None or job.is_cancelled:
            return []
        out = self._all(events.JobCancelling(at, num))
        return out + self._fail(at, job, "cancelled", "cancelled before it started") if num in self.pending else out

    def retry(self, at: float, returned: events.JobReturned) -> list[Event]:
        """Run a job that had returned once more."""
        if returned.num in self.jobs:
            return []
        kind = (returned.error or {}).get("kind", "")
        return self._all(
            events.JobRetried(at, returned.num, returned.attempt, returned.status, kind, tuple(returned.overrides))
        )

    def fail_pending(self, at: float, num: int, kind: str, message: str) -> list[Event]:
        """End a job that never went to a host, such as one whose config does not compose."""
        return self._fail(at, self.jobs[num], kind, message)

    def resume(self, at: float, run: str) -> list[Event]:
        """Another controller takes over: what it knows of the hosts is what the last one knew, but it has no links."""
        return self._all(events.RunResumed(at, run, tuple(self.hosts)))

    def detach(self, at: float, run: str, why: str, *, hurry: bool = False) -> list[Event]:
        """Give every waiting job to a host as soon as all hosts are reached or given up; with hurry, now."""
        return self._all(events.RunDetaching(at, run, why, hurry))

    # -- decisions -----------------------------------------------------------------------------------------------

    def plan(self, at: float, now: float) -> list[Event]:
        """What should happen now: hosts given up, jobs without a host failed, jobs assigned.

        Args:
            at: the wall clock, for the events.
            now: the monotonic clock, which decides.
        """
        out: list[Event] = []
        self._note_times(now)
        for host in self.hosts.values():
            if host.lost_since is not None and now >= host.lost_since + self._patience():
                out += self.give_up(at, host.name, host.why)
        out += self._give_up_overdue(at, now)
        if self.pending and not any(host.is_usable for host in self.hosts.values()) and not self._may_open(now):
            reasons = "; ".join(f"{host.name}: {host.closed or host.why}" for host in self.hosts.values())
            for num in list(self.pending):
                out += self._fail(at, self.jobs[num], "host", f"no host can run it: {reasons}")
        if self._is_over_limit():
            out += self.interrupt(at, f"{self.counts['FAILED']} jobs failed")
        if self.interrupted is None:
            out += self._assign(at) if self.detaching is None else self._spread(at, self.detaching)
        return out

    def give_up(self, at: float, host: str, why: str, *, for_good: bool = False) -> list[Event]:
        """Give a host up: its jobs are run elsewhere or lost, as the policies say. It is taken back when it is reached
        again, unless it was given up for good.
        """
        state = self.hosts[host]
        out: list[Event] = []
        if for_good:
            out += self.observe_closed(at, host, why)
        if state.phase in OVER:
            return out
        jobs = sorted(state.jobs | state.collecting)
        out += self._all(events.HostLost(at, host, why, tuple(jobs)))
        for num in jobs:
            job = self.jobs[num]
            if job.ended is not None:
                out += self._settle(at, job)
            elif self.policies.on_host_loss == "retry" and self.interrupted is None and not job.is_cancelled:
                out += self._again(at, job, why)
            else:
                out += self._lose(at, job, f"{host} was given up: {why}")
        return out

    def deadline(self) -> float | None:
        """The monotonic time at which `plan` has something to do without any new fact; None: never."""
        due = [host.lost_since + self._patience() for host in self.hosts.values() if host.lost_since is not None]
        due += [bound for bound, _, _ in self._bounds[:1]]
        if self.pending:
            timeout = self.policies.host_loss_timeout
            due += [host.closed_since + timeout for host in self.hosts.values() if host.closed_since is not None]
        nearest = min(due, default=float("inf"))
        return None if nearest == float("inf") else nearest

    def _note_times(self, now: float) -> None:
        """Note since when hosts are as they are. A link that drops again before anything of a job came does not count."""
        stands = min(_STANDS, self.policies.host_loss_timeout)
        for host in self.hosts.values():
            if host.phase is HostPhase.READY and host.ready_since is None:
                host.ready_since = now
            if host.ready_since is not None and now - host.ready_since >= stands:
                host.unknown_since = None
            if host.phase is HostPhase.UNKNOWN:
                host.ready_since = None
                if host.unknown_since is None:
                    host.unknown_since = now
            if host.may_open and host.closed_since is None:
                host.closed_since = now

    def _limit_of(self, job: UnfinishedJob) -> float | None:
        """Seconds from now on in which a job on a host must come to its end."""
        policies = self.policies
        if self.interrupted is not None and self.interrupted.kill:
            return policies.kill_limit
        if self.interrupted is not None or job.is_cancelled:
            return policies.end_limit
        return policies.job_limit if job.has_started else None

    def _note_bounds(self, now: float) -> None:
        fresh, self.fresh = self.fresh, []
        for num in fresh:
            job = self.jobs.get(num)
            limit = self._limit_of(job) if job is not None and job.host and job.ended is None else None
            if job is None or limit is None:
                continue
            job.due = now + limit
            heapq.heappush(self._bounds, (job.due, num, job.attempt))

    def _give_up_overdue(self, at: float, now: float) -> list[Event]:
        """Give up hosts that are there, and on which a job is long past the time that it was given: nobody ends it there."""
        self._note_bounds(now)
        out: list[Event] = []
        while self._bounds and self._bounds[0][0] <= now:
            due, num, attempt = heapq.heappop(self._bounds)
            job = self.jobs.get(num)
            if job is None or job.due != due or job.attempt != attempt or job.ended is not None or not job.host:
                continue
            # Without a link the job may have ended long ago: the time begins anew with the next one.
            if self.hosts[job.host].phase is HostPhase.READY:
                why = f"job {num} is long past its time limit there, and the host answers but does not end it"
                out += self.give_up(at, job.host, why, for_good=True)
        return out

    def _patience(self) -> float:
        """How long a host without a link is waited for."""
        if self.interrupted is not None:
            return min(self.policies.host_loss_timeout, _INTERRUPTED_PATIENCE)
        return float("inf") if self.policies.on_host_loss == "wait" else self.policies.host_loss_timeout

    def _may_open(self, now: float) -> bool:
        """A host that takes no job now may take some soon."""
        timeout = self.policies.host_loss_timeout
        return any(
            host.phase not in OVER and host.closed_since is not None and now < host.closed_since + timeout
            for host in self.hosts.values()
        )

    def _is_over_limit(self) -> bool:
        limit = self.policies.max_failures
        return limit is not None and self.interrupted is None and self.counts["FAILED"] - self.forgiven >= limit > 0

    # -- assignments ---------------------------------------------------------------------------------------------

    def _assign(self, at: float) -> list[Event]:
        out: list[Event] = []
        is_alone = sum(host.is_usable for host in self.hosts.values()) <= 1
        # Free slots first, everywhere; then the queues. Otherwise one host's queue would take what another could run.
        for beyond_slots in (False, True):
            progress = True
            while self.pending and progress:
                progress = False
                for host in self.hosts.values():
                    room = host.room(is_alone=is_alone)
                    if not beyond_slots:
                        room = min(room, host.slots - len(host.jobs))
                    elif not is_alone:
                        room = min(room, host.slots + self._share(host) - len(host.jobs))
                    if room <= 0:
                        continue
                    num = self._next_for(host.name)
                    if num is None:
                        continue
                    job = self.jobs[num]
                    out += self._all(events.JobAssigned(at, num, job.attempt + 1, host.name))
                    progress = True
        return out

    def _share(self, host: HostState) -> int:
        """How many jobs a host may have queued while others could take them.

        What was quick may be followed by what takes hours: then the others have as much of it, and nobody is idle meanwhile.
        """
        slots = sum(other.slots for other in self.hosts.values() if other.is_usable)
        return int(_PART_OF_SHARE * len(self.pending) * host.slots / slots)

    def _next_for(self, host: str) -> int | None:
        """The first waiting job, passing over one that failed there while another host could take it."""
        for num in self.pending:
            failed_on = self.jobs[num].failed_on
            if host not in failed_on:
                return num
            if not any(other.is_usable and other.name not in failed_on for other in self.hosts.values()):
                return num
        return None

    def _spread(self, at: float, detaching: events.RunDetaching) -> list[Event]:
        """Give all waiting jobs to the hosts, each its share by slots: nobody will be there to hand them out later."""
        phases = {host.phase for host in self.hosts.values()}
        ready = [host for host in self.hosts.values() if host.phase is HostPhase.READY and host.closed is None]
        if not ready or (not detaching.hurry and phases & {HostPhase.CONNECTING, HostPhase.UNKNOWN}):
            return []
        out: list[Event] = []
        load = [((len(host.jobs) + 1) / max(host.slots, 1), index) for index, host in enumerate(ready)]
        heapq.heapify(load)
        for num in list(self.pending):
            job = self.jobs[num]
            passed = []
            while load and ready[load[0][1]].name in job.failed_on:
                passed.append(heapq.heappop(load))
            # Where it failed everywhere, the least busy of those.
            _, index = heapq.heappop(load) if load else passed.pop(0)
            for one in passed:
                heapq.heappush(load, one)
            host = ready[index]
            out += self._all(events.JobAssigned(at, num, job.attempt + 1, host.name))
            heapq.heappush(load, ((len(host.jobs) + 1) / max(host.slots, 1), index))
        return out

    # -- outcomes ------------------------------------------------------------------------------------------------

    def _settle(self, at: float, job: UnfinishedJob) -> list[Event]:
        """The attempt is over: another one, or the job's end."""
        ended = job.ended or {}
        kind = (ended["error"] or {}).get("kind", "")
        if (
            ended["status"] == "FAILED"
            and self.interrupted is None
            and not job.is_cancelled
            and self.policies.may_retry(kind, job.attempt)
        ):
            return self._all(events.JobRequeued(at, job.num, job.attempt, job.host, f"retried after: {kind}"))
        status, duration, error = ended["status"], ended["duration"], ended["error"]
        return self._all(events.JobReturned(at, job.num, job.attempt, job.host, status, duration, error, job.overrides))

    def _again(self, at: float, job: UnfinishedJob, why: str) -> list[Event]:
        """The attempt was given up or never started: another one, unless the job was cancelled in the meantime."""
        out = self._all(events.JobRequeued(at, job.num, job.attempt, job.host, why))
        if self.interrupted is not None:
            out += self._fail(at, job, "cancelled", f"cancelled before it started: {self.interrupted.why}")
        elif job.is_cancelled:
            out += self._fail(at, job, "cancelled", "cancelled before it started")
        return out

    def _fail(self, at: float, job: UnfinishedJob, kind: str, message: str) -> list[Event]:
        """End a job here, without a host."""
        error = {"kind": kind, "type": "", "message": message, "traceback": "", "causes": []}
        attempt = job.attempt or 1
        return self._all(events.JobReturned(at, job.num, attempt, job.host, "FAILED", None, error, job.overrides))

    def _lose(self, at: float, job: UnfinishedJob, why: str) -> list[Event]:
        error = {"kind": "lost", "type": "", "message": why, "traceback": "", "causes": []}
        out = self._all(events.AttemptEnded(at, job.num, job.attempt, job.host, "FAILED", None, error))
        return out + self._settle(at, job)
