"""Decides which job goes where and when, and what becomes of it. It is pure: facts and the time go in, events come out.

Rule: nothing here does I/O or reads a clock. The caller passes the seconds of a monotonic clock. Every decision is an event, and
takes effect when it is applied (see `launcher.engine.scheduling.state`). So a journal's events, applied again, give the same state, and a
test can run ten thousand histories a minute.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from launcher import events
from launcher.engine.scheduling.placing import Placing
from launcher.engine.scheduling.policies import Policies
from launcher.engine.scheduling.state import OVER, HostPhase, RunState, UnfinishedJob
from launcher.engine.scheduling.stealing import WorkStealing
from launcher.engine.scheduling.time_limits import TimeLimits
from launcher.events import Event
from remote_agent.job import ResourcesUsed
from remote_agent.protocol.report import Report
from remote_agent.protocol.specs.resources import Resources, Room

__all__ = ["Scheduler"]

_STOPPED = "stopped before it started"


class Scheduler(RunState):
    """Decides about a run's jobs and hosts.

    `plan` returns what should happen next. The caller journals these events, and then acts on them. `observe_*` take facts
    from hosts, and return the events that follow. All events are already applied when they are returned.
    """

    def __init__(self, hosts: list[str], policies: Policies | None = None) -> None:
        super().__init__(hosts)
        self.policies = policies or Policies()
        self._limits = TimeLimits(self, self.policies)
        self._stealing = WorkStealing(self)
        self._placing = Placing(self)

    def _all(self, *made: Event) -> list[Event]:
        for event in made:
            self.apply(event)
        return list(made)

    # -- facts about hosts ---------------------------------------------------------------------------------------

    def observe_ready(
        self,
        at: float,
        host: str,
        slots: int,
        python: str,
        gpus: tuple[str, ...],
        boot_id: str = "",
        room: Room | None = None,
    ) -> list[Event]:
        """Observe an agent's welcome. A host that was given up is used again, but its old attempts stay given up."""
        phase = self.hosts[host].phase
        if phase is HostPhase.UNUSABLE:
            return []
        self._stealing.forget(host)
        back = phase in (HostPhase.UNKNOWN, HostPhase.LOST)
        most = self.policies.slots.get(host)
        if most is not None:
            slots = min(slots, most)
            room = room._replace(most=most) if room is not None else None
        told = room.to_json() if room is not None else None
        return self._all(events.HostReady(at, host, slots, python, gpus, back, boot_id, told))

    def observe_unknown(self, at: float, host: str, why: str) -> list[Event]:
        """Observe that the link to a ready host is gone."""
        state = self.hosts[host]
        if state.phase is not HostPhase.READY:
            return []
        return self._all(events.HostUnknown(at, host, why, tuple(sorted(state.jobs | state.collecting))))

    def observe_unusable(self, at: float, host: str, phase: str, why: str, next_step: str) -> list[Event]:
        """Observe that a host cannot be used: it never accepted jobs."""
        if self.hosts[host].phase is not HostPhase.CONNECTING:
            return []
        return self._all(events.HostUnusable(at, host, phase, why, next_step))

    def observe_closed(self, at: float, host: str, why: str, *, may_open: bool = False) -> list[Event]:
        """Observe that a host takes no more jobs, though it may be connected. With `may_open`, it may take some later."""
        state = self.hosts[host]
        if state.closed is not None and (may_open or not state.may_open):
            return []
        return self._all(events.HostClosed(at, host, why, may_open))

    def observe_opened(self, at: float, host: str) -> list[Event]:
        """Observe that a host that had closed takes jobs again."""
        state = self.hosts[host]
        return self._all(events.HostOpened(at, host)) if state.closed is not None and state.may_open else []

    def observe_unprepared(self, at: float, host: str, why: str) -> list[Event]:
        """Observe that a host cannot prepare the application. It would fail each job at once, and so would get all of them.

        If another host can be used, this one gets no more jobs, and those that it has not started run elsewhere. Otherwise its
        errors become the jobs' errors.
        """
        if not any(other.is_usable for other in self.hosts.values() if other.name != host):
            return []
        out = self.observe_closed(at, host, why)
        for job in self._not_started(host) if out else ():
            out += self._try_again(at, job, why)
        return out

    def observe_unfit(self, at: float, host: str, phase: str, why: str, next_step: str) -> list[Event]:
        """Observe that no job can run on a host that was reached. Jobs that it has not started run elsewhere."""
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
                out += self._try_again(at, job, first)
        return out

    def _not_started(self, host: str) -> list[UnfinishedJob]:
        """Return the jobs that a host has and is not known to have started."""
        return [self.jobs[num] for num in sorted(self.hosts[host].jobs) if not self.jobs[num].has_started]

    # -- facts about attempts ------------------------------------------------------------------------------------

    def observe_started(
        self, at: float, host: str, num: int, attempt: int, slot: int, started_at: float
    ) -> list[Event]:
        """Observe that an attempt's process has begun."""
        job = self.current(num, attempt, host)
        if job is None or job.has_started or job.ended is not None:
            return []
        return self._all(events.AttemptStarted(at, num, attempt, host, slot, started_at))

    def observe_reported(
        self, at: float, host: str, num: int, attempt: int, number: int, report: Report
    ) -> list[Event]:
        """Observe what an attempt has reported. On a new link, everything that its host has comes again."""
        job = self.current(num, attempt, host)
        if job is None or job.ended is not None or number <= job.reported:
            return []
        written = report.to_json()
        return self._all(events.JobReported(at, num, attempt, host, number, report.at, report.step, written["values"]))

    def observe_ended(
        self,
        at: float,
        host: str,
        num: int,
        attempt: int,
        status: str,
        duration: float | None,
        error: dict[str, Any] | None,
        *,
        stopped: bool = False,
        resources_used: dict[str, Any] | None = None,
        again: bool = False,
    ) -> list[Event]:
        """Observe that an attempt has its outcome. Its files may still be on their way. `again`: its host has made the next one itself."""
        job = self.current(num, attempt, host)
        if job is None or job.ended is not None:
            return []
        return self._all(
            events.AttemptEnded(at, num, attempt, host, status, duration, error, stopped, resources_used, again)
        )

    def observe_collected(self, at: float, host: str, num: int, attempt: int, size: int = 0) -> list[Event]:
        """Observe that all files of an attempt have arrived, `size` bytes with its output. The job returns, or another attempt follows."""
        job = self.current(num, attempt, host)
        if job is None or job.ended is None:
            return []
        return self._settle(at, job, size)

    def observe_unwritable(self, at: float, host: str, num: int, attempt: int, why: str) -> list[Event]:
        """Observe that an attempt's output can never be written here. It has failed, whatever its outcome, and so would another one."""
        job = self.current(num, attempt, host)
        if job is None:
            return []
        error = {"kind": "host", "type": "", "message": why, "traceback": "", "causes": []}
        ended = events.AttemptEnded(at, num, attempt, host, "FAILED", None, error)
        return self._all(ended, events.JobReturned(at, num, attempt, host, "FAILED", None, error, tuple(job.overrides)))

    def observe_dropped(
        self, at: float, host: str, num: int, attempt: int, why: str, *, asked: bool = False, again: bool = False
    ) -> list[Event]:
        """Observe that a host gave an attempt back, which never started. `asked`: because it was asked to. `again`: see `observe_ended`."""
        job = self.current(num, attempt, host)
        if job is None or job.has_started or job.ended is not None:
            return []
        out = self._try_again(at, job, "another host was idle" if asked else why, is_taken_back=asked)
        if again and num in self.pending:
            out += self._all(events.JobAssigned(at, num, attempt + 1, host))
        return out

    def observe_missing(self, at: float, host: str, known: set[str], rebooted: bool) -> list[Event]:
        """Observe that a host that was reached again does not know attempts that it was given.

        If it has not rebooted, those that were not seen to start never arrived, and the caller sends them again. The others
        may have run, and are lost.
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
                # The outcome is here. The missing files will never come.
                lost = "its output files and streams may be incomplete: the host does not have them any more"
                out += [events.Warned(at, "output files", lost, "", num, host), *self._settle(at, job)]
        return out

    # -- requests ------------------------------------------------------------------------------------------------

    def submit(
        self, at: float, num: int, overrides: tuple[str, ...] = (), needs: Resources | None = None
    ) -> list[Event]:
        """Add a job. `needs`: what it needs of its host, if it says so itself."""
        return self._all(events.JobQueued(at, num, overrides, needs.to_json() if needs is not None else None))

    def interrupt(self, at: float, why: str, kill: bool = False) -> list[Event]:
        """Start nothing more. The caller cancels what runs."""
        if self.interrupted is not None and (self.interrupted.kill or not kill):
            return []
        out = self._all(events.RunInterrupt(at, why, kill))
        for num in list(self.pending):
            out += self._fail(at, self.jobs[num], "cancelled", f"cancelled before it started: {why}")
        return out

    def cancel(self, at: float, num: int) -> list[Event]:
        """Cancel a job that waits here. If it is on a host, the caller cancels it there."""
        job = self.jobs.get(num)
        if job is None or job.is_cancelled:
            return []
        out = self._all(events.JobCancelling(at, num))
        return out + self._fail(at, job, "cancelled", "cancelled before it started") if num in self.pending else out

    def stop(self, at: float, num: int) -> list[Event]:
        """Ask a job to stop. One that waits here never starts. If it is on a host, the caller asks it there."""
        job = self.jobs.get(num)
        if job is None or job.is_ending or job.ended is not None:
            return []
        out = self._all(events.JobStopping(at, num))
        return out + self._fail(at, job, "cancelled", _STOPPED) if num in self.pending else out

    def take_over(self, at: float, returned: events.JobReturned, of_run: str, of_num: int) -> list[Event]:
        """Add a job that an earlier run has completed."""
        num, attempt, host = returned.num, returned.attempt, returned.host
        return self._all(
            events.JobQueued(at, num, returned.overrides),
            events.JobTakenOver(at, num, of_run, of_num, attempt, host),
            dataclasses.replace(returned, at=at),
        )

    def retry(self, at: float, returned: events.JobReturned, needs: Resources | None = None) -> list[Event]:
        """Run a job that has returned once more. `needs`: see `submit`."""
        if returned.num in self.jobs:
            return []
        kind = (returned.error or {}).get("kind", "")
        told = needs.to_json() if needs is not None else None
        return self._all(
            events.JobRetried(
                at, returned.num, returned.attempt, returned.status, kind, tuple(returned.overrides), told
            )
        )

    def fail_pending(self, at: float, num: int, kind: str, message: str) -> list[Event]:
        """End a job that never went to a host, for example because its config does not compose."""
        return self._fail(at, self.jobs[num], kind, message)

    def resume(self, at: float, run: str) -> list[Event]:
        """Let another controller take over. It knows of the hosts what the last one knew, but has no links."""
        return self._all(events.RunResumed(at, run, tuple(self.hosts)))

    def detach(self, at: float, run: str, why: str, *, hurry: bool = False) -> list[Event]:
        """Give every waiting job to a host when all hosts are either reached or given up. With `hurry`, do so now."""
        return self._all(events.RunDetaching(at, run, why, hurry))

    # -- decisions -----------------------------------------------------------------------------------------------

    def plan(self, at: float, now: float) -> list[Event]:
        """Return what should happen now: hosts to give up, jobs without a host to fail, jobs to assign.

        Args:
            at: the wall clock, for the events.
            now: the monotonic clock, which decides.
        """
        out: list[Event] = []
        self._limits.note(now)
        for host in self._limits.lost(now):
            out += self.give_up(at, host.name, host.why)
        for name, why in self._limits.overdue(now):
            out += self.give_up(at, name, why, for_good=True)
        for num, why in self._placing.hopeless(lambda host: self._limits.may_open(host, now)):
            out += self._fail(at, self.jobs[num], "host", why)
        if self._is_over_limit():
            out += self.interrupt(at, f"{self.counts['FAILED']} jobs failed")
        if self.interrupted is None:
            for num, host_name in self._placing.assign() if self.detaching is None else self._spread(self.detaching):
                out += self._all(events.JobAssigned(at, num, self.jobs[num].attempt + 1, host_name))
        return out

    def _spread(self, detaching: events.RunDetaching) -> Iterator[tuple[int, str]]:
        phases = {host.phase for host in self.hosts.values()}
        if not detaching.hurry and phases & {HostPhase.CONNECTING, HostPhase.UNKNOWN}:
            return iter(())
        return self._placing.spread()

    def take_back(self, now: float, prepared: set[str], able: set[str]) -> dict[str, list[str]]:
        """Return host -> attempts that it is asked to give back, because another host is idle. Call it after `plan`.

        Nothing is decided by that: a job waits again only when its host says that the attempt never starts there.

        Args:
            now: the monotonic clock.
            prepared: hosts where a job can start at once.
            able: hosts that give attempts back if they are asked.
        """
        if self.interrupted is not None or self.detaching is not None:
            return {}
        return self._stealing.choose(now, prepared, able)

    def was_asked(self, num: int, attempt: int, host: str) -> bool:
        """Whether the host was asked for this attempt."""
        return self._stealing.asked.get(num) == (attempt, host)

    def give_up(self, at: float, host: str, why: str, *, for_good: bool = False) -> list[Event]:
        """Give up a host. Its jobs run elsewhere or are lost, as the policies say. If it is reached again, it is used again,
        unless it was given up for good.
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
            elif self.policies.on_host_loss == "retry" and self.interrupted is None and not job.is_ending:
                out += self._try_again(at, job, why)
            else:
                out += self._lose(at, job, f"{host} was given up: {why}")
        return out

    def deadline(self) -> float | None:
        """Return the monotonic time at which `plan` has something to do without a new fact; None: never."""
        nearest = min(self._limits.nearest(), self._stealing.look_at)
        return None if nearest == float("inf") else nearest

    def _is_over_limit(self) -> bool:
        limit = self.policies.max_failures
        return limit is not None and self.interrupted is None and self.counts["FAILED"] - self.forgiven >= limit > 0

    # -- outcomes ------------------------------------------------------------------------------------------------

    def _settle(self, at: float, job: UnfinishedJob, size: int = 0) -> list[Event]:
        """End an attempt. Another one follows, or the job ends."""
        ended = job.ended or {}
        kind = (ended["error"] or {}).get("kind", "")
        may_follow = ended["status"] == "FAILED" and self.interrupted is None and not job.is_ending
        if may_follow and ended["again"] and self.hosts[job.host].phase not in OVER:
            host = job.host
            return self._all(
                events.JobRequeued(at, job.num, job.attempt, host, f"run again there after: {kind}"),
                events.JobAssigned(at, job.num, job.attempt + 1, host),
            )
        if may_follow and self.policies.may_retry(kind, job.attempt - job.unstarted):
            return self._all(events.JobRequeued(at, job.num, job.attempt, job.host, f"retried after: {kind}"))
        status, duration, error = ended["status"], ended["duration"], ended["error"]
        used = ended["resources_used"]
        if used is not None:
            used = {**used, "bytes_out": (ResourcesUsed.from_json(used).bytes_out or 0) + size}
        return self._all(
            events.JobReturned(
                at, job.num, job.attempt, job.host, status, duration, error, job.overrides, ended["stopped"], used
            )
        )

    def _try_again(self, at: float, job: UnfinishedJob, why: str, *, is_taken_back: bool = False) -> list[Event]:
        """Replace an attempt that was given up or never started, unless the job was cancelled in the meantime."""
        out = self._all(events.JobRequeued(at, job.num, job.attempt, job.host, why, is_taken_back))
        if self.interrupted is not None:
            out += self._fail(at, job, "cancelled", f"cancelled before it started: {self.interrupted.why}")
        elif job.is_cancelled:
            out += self._fail(at, job, "cancelled", "cancelled before it started")
        elif job.is_stopping:
            out += self._fail(at, job, "cancelled", _STOPPED)
        return out

    def _fail(self, at: float, job: UnfinishedJob, kind: str, message: str) -> list[Event]:
        """End a job here without a host."""
        error = {"kind": kind, "type": "", "message": message, "traceback": "", "causes": []}
        attempt = job.attempt or 1
        return self._all(events.JobReturned(at, job.num, attempt, job.host, "FAILED", None, error, job.overrides))

    def _lose(self, at: float, job: UnfinishedJob, why: str) -> list[Event]:
        error = {"kind": "lost", "type": "", "message": why, "traceback": "", "causes": []}
        out = self._all(events.AttemptEnded(at, job.num, job.attempt, job.host, "FAILED", None, error))
        return out + self._settle(at, job)
