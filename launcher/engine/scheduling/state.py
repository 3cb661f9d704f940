"""The state of a run's jobs and hosts, made from its events.

Rule: only `apply` changes the state. It takes events and no clock, so a journal's events, applied again, give the same state. The
state does not grow with finished jobs.

`unknown_since`, `ready_since` and `closed_since` are exceptions: they are monotonic times, which mean nothing to another process.
The scheduler sets them when it first plans with the fact. A journal does not have them.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from launcher import events
from launcher.events import Event
from launcher.util.exhaustive import assert_never
from remote_agent.protocol.specs.resources import Resources, Room
from remote_agent.shared.room import SizedQueue

__all__ = ["OVER", "HostPhase", "HostState", "RunState", "UnfinishedJob"]

#: A host's queue holds this many seconds of work beyond its slots, so that a free slot never waits for a round trip.
_HORIZON = 0.25
#: A job of this many seconds is not queued ahead on a host if another host may be free sooner.
_LONG = 1.0
_MAX_QUEUED = 256
#: After this many results, a host that had closed because it was full gets more jobs at once. Doubled each time that it closes.
_CALM = 16
_MAX_CALM = 1024


class HostPhase(enum.Enum):
    """The phase of a host."""

    CONNECTING = "connecting"
    READY = "ready"
    UNKNOWN = "unknown"
    LOST = "lost"
    UNUSABLE = "unusable"


#: A host in one of these has no job.
OVER = (HostPhase.LOST, HostPhase.UNUSABLE)


@dataclass
class UnfinishedJob:
    """An unfinished job. `attempt` is its last attempt, and `host` the host of that; empty while it waits. `needs`: what it takes of its
    host, if it says so itself.
    """

    num: int
    attempt: int = 0
    host: str = ""
    has_started: bool = False
    ended: dict[str, Any] | None = None
    failed_on: set[str] = field(default_factory=set)
    overrides: tuple[str, ...] = ()
    is_cancelled: bool = False
    is_stopping: bool = False
    #: The number of its attempt's last report.
    reported: int = 0
    needs: Resources | None = None
    #: How many of its attempts came back unstarted. They do not count as tries.
    unstarted: int = 0
    #: Those that began, for the next one: number, host and kind of error of each.
    earlier: list[dict[str, Any]] = field(default_factory=list)
    #: Its place in the order in which jobs were assigned. A host starts them in this order.
    place: int = 0
    #: The monotonic time at which its host is given up if the job has not ended. The scheduler sets it, like the times of a host.
    due: float | None = field(default=None, compare=False)

    @property
    def is_ending(self) -> bool:
        """Whether the user wants it to end, so that it gets no further attempt."""
        return self.is_cancelled or self.is_stopping


@dataclass
class HostState:
    """A host. `jobs` have no outcome yet; of those in `collecting`, files are still coming.

    `closed` says why it takes no more jobs, though it may be connected; `may_open`: this may end by itself. `unknown_since`: when
    its link was lost. A welcome does not reset it until something comes through (see the scheduler).

    `most_ahead`: how many jobs may be queued on it beyond its slots; None for no limit. A host that closed by itself and opens
    again has little room. So that it does not close and open again and again, it gets only as many jobs as it has slots, until
    `calm` results have come.

    `slots`: how many jobs run there at once that do not say what they need. `size`: what of it all jobs may take; None until it is known.
    """

    name: str
    phase: HostPhase = HostPhase.CONNECTING
    slots: int = 1
    size: Room | None = None
    jobs: set[int] = field(default_factory=set)
    collecting: set[int] = field(default_factory=set)
    job_seconds: float | None = None
    why: str = ""
    closed: str | None = None
    may_open: bool = False
    boot_id: str = ""
    most_ahead: int | None = None
    calm: int = _CALM
    results: int = 0
    unknown_since: float | None = None
    ready_since: float | None = field(default=None, compare=False)
    closed_since: float | None = None

    @property
    def is_usable(self) -> bool:
        """Whether it takes jobs, now or when it is reached (again)."""
        return self.phase not in OVER and self.closed is None

    @property
    def lost_since(self) -> float | None:
        """Since when it has had no working link; None if it has one now."""
        return self.unknown_since if self.phase is HostPhase.UNKNOWN else None

    def has_closed(self) -> None:
        """Record that the host was full and gave jobs back."""
        self.most_ahead, self.results = 0, 0
        self.calm = min(2 * self.calm, _MAX_CALM)

    def has_result(self) -> None:
        """Record that a job ended there."""
        if self.most_ahead is None:
            return
        self.results += 1
        if self.results >= self.calm:
            self.results = 0
            self.most_ahead = max(1, 2 * self.most_ahead)
            if self.most_ahead >= _MAX_QUEUED:
                self.most_ahead = None

    def may_hold(self, needs: Resources | None) -> bool:
        """Whether it is large enough for such a job, or may turn out to be."""
        if self.size is not None:
            return not self.size.lacks(needs)
        # An agent of an earlier version knows only jobs that are alike.
        return needs is None or self.phase is not HostPhase.READY

    def lacks(self, needs: Resources | None) -> str:
        """Return why it is not large enough for such a job."""
        return (
            self.size.lacks(needs) if self.size is not None else "its agent knows no jobs with `resources` of their own"
        )

    def weight(self, needs: Resources | None) -> float:
        """Return how many slots such a job takes."""
        if needs is None or self.size is None:
            return 1
        return self.slots * max(
            (need / there for need, there in zip(needs.amounts, self.size.has.amounts, strict=True) if there), default=0
        )

    def ahead(self, *, is_alone: bool = True) -> int:
        """Return how many jobs may wait there. `is_alone`: no other host could take them."""
        if not is_alone and (self.job_seconds is None or self.job_seconds > _LONG):
            # Nothing is known yet, or a job takes much longer than a round trip. The first free host gets what waits.
            ahead = 0
        elif self.job_seconds is None:
            ahead = self.slots
        else:
            ahead = int(self.slots * _HORIZON / max(self.job_seconds, 0.0005))
            ahead = min(max(ahead, 1), _MAX_QUEUED)
        if self.most_ahead is not None:
            ahead = min(ahead, self.most_ahead)
        return ahead


class RunState:
    """The hosts, the jobs that have not returned, and counts of those that have."""

    def __init__(self, hosts: list[str]) -> None:
        self.hosts: dict[str, HostState] = {name: HostState(name) for name in hosts}
        self.jobs: dict[int, UnfinishedJob] = {}
        self.pending: SizedQueue[int, Resources | None] = SizedQueue()
        #: How many jobs say themselves what they need.
        self.sized = 0
        self.next_num = 0
        self._assigned = 0
        self.counts: Counter[str] = Counter()
        self.interrupted: events.RunInterrupt | None = None
        self.detaching: events.RunDetaching | None = None
        self.forgiven = 0
        #: Jobs on hosts whose time limit begins again, because they have started or were asked to end.
        self.fresh: list[int] = []

    @property
    def is_idle(self) -> bool:
        """Whether no job is unfinished."""
        return not self.jobs

    def current(self, num: int, attempt: int, host: str) -> UnfinishedJob | None:
        """Return the job if this is its current attempt, on this host; None for an earlier one that comes back late."""
        job = self.jobs.get(num)
        if job is None or job.attempt != attempt or job.host != host or num in self.pending:
            return None
        return job

    def apply(self, event: Event) -> None:  # noqa: C901 - one case for each event
        """Apply an event to the state. The most frequent events come first; some change nothing."""
        match event:
            case events.JobQueued():
                self._add(UnfinishedJob(event.num, overrides=tuple(event.overrides)), event.needs)
                self.next_num = max(self.next_num, event.num + 1)
            case events.JobAssigned():
                self._apply_job_assigned(event)
            case events.AttemptStarted():
                self.jobs[event.num].has_started = True
                self.fresh.append(event.num)
                self._note_working_link(event.host, None)
            case events.JobReported():
                self.jobs[event.num].reported = event.number
            case events.AttemptEnded():
                self._apply_attempt_ended(event)
            case events.JobReturned():
                self._apply_job_returned(event)
            case events.JobCancelling():
                self.jobs[event.num].is_cancelled = True
                self.fresh.append(event.num)
            case events.JobStopping():
                self.jobs[event.num].is_stopping = True
            case events.JobRequeued():
                self._apply_job_requeued(event)
            case events.JobRetried():
                self._apply_job_retried(event)
            case events.HostReady():
                host = self.hosts[event.host]
                host.phase, host.slots, host.ready_since, host.why = HostPhase.READY, event.slots, None, ""
                host.boot_id = event.boot_id
                host.size = Room.from_json(event.room) if event.room is not None else None
                # If a time limit passed without a link, that is not the jobs' fault.
                self.fresh += host.jobs
            case events.HostUnknown():
                host = self.hosts[event.host]
                host.phase, host.why = HostPhase.UNKNOWN, event.why
            case events.HostUnusable():
                host = self.hosts[event.host]
                host.phase, host.why = HostPhase.UNUSABLE, event.why
            case events.HostClosed():
                host = self.hosts[event.host]
                host.closed, host.may_open, host.closed_since = event.why, event.may_open, None
                if event.may_open:
                    host.has_closed()
            case events.HostOpened():
                host = self.hosts[event.host]
                host.closed, host.may_open, host.closed_since = None, False, None
            case events.HostLost():
                host = self.hosts[event.host]
                host.phase, host.why, host.unknown_since, host.ready_since = HostPhase.LOST, event.why, None, None
            case events.RunResumed():
                self._apply_run_resumed(event)
            case events.RunDetaching():
                self.detaching = event
            case events.RunInterrupt():
                self.interrupted = event
                for host in self.hosts.values():
                    self.fresh += host.jobs
            case (
                events.CodeSent()
                | events.EnvironmentChanged()
                | events.EnvironmentReady()
                | events.HookFired()
                | events.JobTakenOver()
                | events.Note()
                | events.OutputArrived()
                | events.OutputsUnmatched()
                | events.RunDetached()
                | events.RunEnded()
                | events.RunStarted()
                | events.Warned()
                | events.WayChosen()
            ):
                pass
            case _:
                assert_never(event)

    # -- jobs ----------------------------------------------------------------------------------------------------

    def _add(self, job: UnfinishedJob, needs: dict[str, Any] | None) -> None:
        job.needs = Resources.from_json(needs) if needs is not None else None
        self.sized += needs is not None
        self.jobs[job.num] = job
        self.pending.append(job.num, job.needs)

    def _apply_job_assigned(self, event: events.JobAssigned) -> None:
        job = self.jobs[event.num]
        self.pending.remove(event.num)
        job.attempt, job.host, job.has_started, job.ended = event.attempt, event.host, False, None
        job.reported = 0
        self._assigned += 1
        job.place = self._assigned
        self.hosts[event.host].jobs.add(event.num)

    def _apply_attempt_ended(self, event: events.AttemptEnded) -> None:
        job = self.jobs[event.num]
        job.ended = {
            "status": event.status,
            "duration": event.duration,
            "error": event.error,
            "stopped": event.stopped,
            "resources_used": event.resources_used,
            "again": event.again,
        }
        host = self.hosts[event.host]
        host.jobs.discard(event.num)
        host.collecting.add(event.num)
        if event.status == "FAILED":
            job.failed_on.add(event.host)
        self._note_working_link(event.host, event.error)
        host.has_result()
        if event.duration is not None:
            before = host.job_seconds
            host.job_seconds = event.duration if before is None else 0.8 * before + 0.2 * event.duration

    def _apply_job_requeued(self, event: events.JobRequeued) -> None:
        job = self.jobs[event.num]
        self._remove_from_host(event.num, event.host)
        if job.has_started or job.ended is not None:
            kind = ((job.ended or {}).get("error") or {}).get("kind", "lost")
            job.earlier.append({"attempt": event.attempt, "host": event.host, "kind": kind})
        if self.hosts[event.host].phase is HostPhase.LOST:
            job.failed_on.add(event.host)
        elif not job.has_started and job.ended is None:
            job.unstarted += 1
        job.host, job.ended, job.has_started = "", None, False
        self.pending.prepend(event.num, job.needs)

    def _apply_job_returned(self, event: events.JobReturned) -> None:
        self._remove_from_host(event.num, event.host)
        self._note_working_link(event.host, event.error)
        if event.num in self.pending:
            self.pending.remove(event.num)
        self.sized -= self.jobs.pop(event.num).needs is not None
        self.counts[event.status] += 1
        if event.error:
            self.counts["kind:" + event.error["kind"]] += 1

    def _apply_job_retried(self, event: events.JobRetried) -> None:
        job = UnfinishedJob(event.num, attempt=event.attempt, overrides=tuple(event.overrides))
        job.earlier.append({"attempt": event.attempt, "host": "", "kind": event.error_kind})
        self._add(job, event.needs)
        self.counts[event.status] -= 1
        if event.error_kind:
            self.counts["kind:" + event.error_kind] -= 1
        # The user asked for it, so neither an earlier interrupt nor earlier failures prevent it.
        self.interrupted = None
        self.forgiven = self.counts["FAILED"]

    def _note_working_link(self, host: str, error: dict[str, Any] | None) -> None:
        """Record that something of a job came from a host, so its link works. An error `lost` did not come from the host."""
        state = self.hosts.get(host)
        if state is not None and (error is None or error["kind"] != "lost"):
            state.unknown_since = None

    def _remove_from_host(self, num: int, host: str) -> None:
        state = self.hosts.get(host)
        if state is not None:
            state.jobs.discard(num)
            state.collecting.discard(num)

    # -- the run -------------------------------------------------------------------------------------------------

    def _apply_run_resumed(self, event: events.RunResumed) -> None:
        self.detaching = None
        for host in self.hosts.values():
            # A host that was given up, or that refused, gets another chance. Its old attempts stay given up.
            known = host.phase in (HostPhase.READY, HostPhase.UNKNOWN) or bool(host.jobs or host.collecting)
            host.phase = HostPhase.UNKNOWN if known else HostPhase.CONNECTING
            host.unknown_since, host.ready_since = None, None
            host.why = "another controller has taken over the run" if known else ""
            host.closed, host.may_open, host.closed_since, host.size = None, False, None, None
