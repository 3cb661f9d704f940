"""Counts a run's events: jobs by host, and the failures to show. It does not grow with finished jobs.

Rule: it is pure: events go in, numbers come out. One thread at a time adds events, and the display holds its lock to read it.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from launcher import events
from launcher.display.estimate import Durations
from launcher.display.text import environment_text, shorten
from launcher.util.exhaustive import assert_never
from launcher.util.frozen import frozen

__all__ = ["EnvironmentTally", "FailureGroup", "HostTally", "Row", "Tally"]

#: How many rows are kept for the summary. The rest is only counted.
MAX_FAILURES = 1000
MAX_COMPLETED = 1000
MAX_GROUPS = 100
#: Steps that are kept of each host's environment. A link that is lost again and again makes many.
MAX_STEPS = 100
#: How many job numbers are shown for each distinct failure.
MAX_NUMS = 20
#: How the note begins in which a host says why its allocations wait (`remote_agent.slurm.submitter.asking`).
_QUEUE = "slurm: allocations wait: "
_FRAME = re.compile(r'^  File "([^"]*)", line (\d+), in (.*)$', re.MULTILINE)


@dataclass
class EnvironmentTally:
    """How a host came to its environment.

    Attributes:
        key: its name there; empty until it is ready.
        is_new: it was built for this run.
        total: the bytes of its files.
        fetched: those of them that the host got from its own internet for this run.
        steps: each state that it was in, with its begin and the bytes that were there at the begin and at the end.
    """

    key: str = ""
    is_new: bool = False
    total: int = 0
    fetched: int = 0
    steps: list[EnvironmentStep] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As plain data. `ready` is the last step."""
        return {
            "key": self.key or None,
            "is_new": self.is_new,
            "bytes": self.total,
            "fetched": self.fetched,
            "steps": [vars(one) for one in self.steps],
        }

    def add(self, state: str, at: float, done: int, total: int) -> None:
        """Count a change."""
        if self.steps and self.steps[-1].state == state:
            self.steps[-1].bytes, self.steps[-1].total = done, total
        elif len(self.steps) < MAX_STEPS:
            self.steps.append(EnvironmentStep(state, at, done, done, total))
        self.total = total


@dataclass
class EnvironmentStep:
    """One of them. `bytes_before`, `bytes`: of `total`, those that were on the host at its begin and at its end."""

    state: str
    at: float
    bytes_before: int
    bytes: int
    total: int


@dataclass
class HostTally:
    """The state of one host in words, and its jobs by state."""

    name: str
    state: str = "connecting"
    detail: str = ""
    slots: int = 0
    #: A batch system runs its jobs, and `slots` is only the most that it may have.
    is_cluster: bool = False
    python: str = ""
    gpus: tuple[str, ...] = ()
    queued: int = 0
    #: The running jobs, in the order in which they started, and when that was.
    running_jobs: dict[int, float] = field(default_factory=dict)
    completed: int = 0
    failed: int = 0
    unknown_since: float | None = None
    was_ready: bool = False
    #: What is being done for its environment, in words; empty if nothing is.
    environment: str = ""
    #: How it came to its environment; None where it has none.
    environment_steps: EnvironmentTally | None = None
    #: Why its jobs wait in the queue of its batch system, as that said last; empty if it has said nothing.
    queue_reason: str = ""

    @property
    def running(self) -> int:
        """The number of running jobs."""
        return len(self.running_jobs)


@frozen
class Row:
    """A job that has returned, for the table of the summary. `group` is the index of its distinct failure."""

    num: int
    host: str
    attempt: int
    status: str
    duration: float | None
    overrides: tuple[str, ...]
    error: dict[str, Any] | None
    group: int | None = None


@dataclass
class FailureGroup:
    """Failures with the same kind, type and last frames of the traceback."""

    first: Row
    count: int = 0
    nums: list[int] = field(default_factory=list)


class Tally:
    """Counts the events of a run. Call it with each event."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.run = ""
        self.mode = ""
        self.folder = ""
        self.hosts: dict[str, HostTally] = {}
        self.total = 0
        self.waiting = 0
        self.completed = 0
        self.failed = 0
        self.retried = 0
        self.taken_over = 0
        #: Whether the next JobReturned is that of a job that was taken over.
        self._is_taking_over = False
        self.kinds: Counter[str] = Counter()
        self.failures: list[Row] = []
        self.done: list[Row] = []
        self.groups: list[FailureGroup] = []
        self._group_of: dict[tuple[str, ...], int] = {}
        self.ungrouped = 0
        self.warnings = 0
        self.started = 0
        self.interrupted = ""
        #: Output pattern -> the number of completed jobs without a file that it matches.
        self.unmatched: Counter[str] = Counter()
        self.ended = False
        self.started_at: float | None = None
        #: When a run that had ended was resumed. Its time counts from then.
        self.taken_up_at: float | None = None
        self.ended_at: float | None = None
        #: When this process first saw a job start, and how many have returned since. They give the estimate of the time left.
        self._first_start: float | None = None
        self._returned_since = 0
        self._where: dict[int, tuple[str, str]] = {}
        #: The last report of each running job.
        self.reports: dict[int, events.JobReported] = {}
        #: The overrides of each job that has not returned.
        self.overrides: dict[int, tuple[str, ...]] = {}
        #: How long jobs took that have completed.
        self.durations = Durations()

    def __call__(self, event: events.Event) -> None:
        """Count an event."""
        with self.lock:
            self._count(event)

    def _count(self, event: events.Event) -> None:  # noqa: C901, PLR0915 - one case for each event
        match event:
            case events.RunStarted():
                self._on_run_started(event)
            case events.JobQueued():
                self.total += 1
                self.waiting += 1
                self._where[event.num] = ("waiting", "")
                if event.overrides:
                    self.overrides[event.num] = event.overrides
            case events.JobAssigned():
                self._move(event.num, "queued", event.host)
            case events.AttemptStarted():
                self._on_attempt_started(event)
            case events.JobReported():
                if self._where.get(event.num) == ("running", event.host):
                    self.reports[event.num] = event
            case events.AttemptEnded():
                self._move(event.num, "collecting", event.host)
            case events.JobReturned():
                self._on_job_returned(event)
            case events.Note():
                if event.host and event.message.startswith(_QUEUE):
                    self._host(event.host).queue_reason = event.message.removeprefix(_QUEUE)
            case events.JobTakenOver():
                self.taken_over += 1
                self._is_taking_over = True
            case events.OutputsUnmatched():
                self.unmatched.update(event.patterns)
            case events.Warned():
                self.warnings += 1
            case events.HostReady():
                self._on_host_ready(event)
            case events.EnvironmentChanged():
                self._host(event.host).environment = environment_text(
                    event.state, event.done, event.total, event.fetched
                )
                self._environment(event.host).add(event.state, event.at, event.done, event.total)
            case events.EnvironmentReady():
                self._on_environment_ready(event)
            case events.HostUnknown():
                host = self._host(event.host)
                host.state, host.detail, host.unknown_since = "unknown", event.why, event.at
            case events.HostLost():
                host = self._host(event.host)
                host.state, host.detail, host.unknown_since = "lost", event.why, None
            case events.HostUnusable():
                host = self._host(event.host)
                host.state, host.detail, host.was_ready = "unusable", f"{event.phase}: {event.why}", False
            case events.RunInterrupt():
                self.interrupted = self.interrupted or event.why
            case events.RunEnded():
                self.ended = True
                self.ended_at = event.at
            case events.JobRequeued():
                self.retried += not event.is_taken_back
                self._move(event.num, "waiting", "")
            case events.HostClosed():
                host = self._host(event.host)
                host.state, host.detail = "closed", event.why
            case events.HostOpened():
                self._on_host_opened(event)
            case events.JobRetried():
                self._on_job_retried(event)
            case events.RunResumed():
                self._on_run_resumed(event)
            case events.RunDetached():
                self.ended_at = event.at
            case (
                events.CodeSent()
                | events.HookFired()
                | events.JobCancelling()
                | events.JobStopping()
                | events.OutputArrived()
                | events.RunDetaching()
                | events.WayChosen()
            ):
                pass
            case _:
                assert_never(event)

    # -- properties ----------------------------------------------------------------------------------------------

    @property
    def returned(self) -> int:
        """The number of jobs that have their JobReturn."""
        return self.completed + self.failed

    @property
    def running(self) -> int:
        """The number of jobs whose process runs, as far as is known."""
        return sum(host.running for host in self.hosts.values())

    @property
    def running_jobs(self) -> list[int]:
        """The numbers of the running jobs, host by host."""
        return [num for host in self.hosts.values() for num in host.running_jobs]

    def elapsed(self, at: float) -> float | None:
        """Seconds since the run began, or since it was resumed if it had ended before."""
        begun = self.started_at if self.taken_up_at is None else self.taken_up_at
        return None if begun is None else max(at - begun, 0.0)

    @property
    def returned_since(self) -> int:
        """The number of jobs that have returned since this process first saw a job start."""
        return self._returned_since

    def place_of(self, num: int) -> tuple[str, str]:
        """Where a job is: `waiting`, `queued`, `running` or `collecting`, and the host; empty if it has returned."""
        return self._where.get(num, ("", ""))

    def waiting_jobs(self, limit: int) -> list[int]:
        """The numbers of the jobs that wait, those on a host first, at most so many."""
        places = ("queued", "waiting")
        waiting = (num for wanted in places for num, (place, _) in self._where.items() if place == wanted)
        return list(itertools.islice(waiting, limit))

    def seconds_left(self, at: float, total: int) -> float | None:
        """An estimate for the jobs that have not returned, at the rate so far; None if there is no rate yet."""
        if self._first_start is None or at <= self._first_start or not self._returned_since or self.returned >= total:
            return None
        return (total - self.returned) * (at - self._first_start) / self._returned_since

    @property
    def has_no_usable_host(self) -> bool:
        """Whether every host was unusable before it got a job."""
        return (
            bool(self.hosts)
            and not any(host.was_ready for host in self.hosts.values())
            and any(host.state == "unusable" for host in self.hosts.values())
        )

    # -- the run -------------------------------------------------------------------------------------------------

    def _on_run_started(self, event: events.RunStarted) -> None:
        self.run, self.mode, self.folder = event.run, event.mode, event.folder
        self.started_at = event.at
        for name in event.hosts:
            self._host(name)

    def _on_run_resumed(self, event: events.RunResumed) -> None:
        """Begin again, because another process has resumed the run."""
        self.run = self.run or event.run
        self.started_at = event.at if self.started_at is None else self.started_at
        if self.ended:
            self.ended, self.ended_at, self.taken_up_at = False, None, event.at
            self.interrupted = ""
        self._first_start, self._returned_since = event.at, 0
        for name in event.hosts:
            host = self._host(name)
            host.state, host.detail, host.unknown_since = "connecting", "", None

    # -- hosts ---------------------------------------------------------------------------------------------------

    def _host(self, name: str) -> HostTally:
        host = self.hosts.get(name)
        if host is None:
            host = self.hosts[name] = HostTally(name)
        return host

    def _on_host_ready(self, event: events.HostReady) -> None:
        host = self._host(event.host)
        host.state, host.detail, host.unknown_since, host.was_ready = "ready", "", None, True
        host.slots, host.python, host.gpus = event.slots, event.python, tuple(event.gpus)
        host.is_cluster = event.is_cluster

    def _environment(self, name: str) -> EnvironmentTally:
        host = self._host(name)
        if host.environment_steps is None:
            host.environment_steps = EnvironmentTally()
        return host.environment_steps

    def _on_environment_ready(self, event: events.EnvironmentReady) -> None:
        self._host(event.host).environment = ""
        told = self._environment(event.host)
        told.key, told.is_new, told.fetched = event.key, event.is_new, event.fetched
        told.add("ready", event.at, event.total, event.total)

    # -- jobs ----------------------------------------------------------------------------------------------------

    def _on_host_opened(self, event: events.HostOpened) -> None:
        host = self._host(event.host)
        if host.state == "closed":
            host.state, host.detail = "ready", ""

    def _on_attempt_started(self, event: events.AttemptStarted) -> None:
        self.started += 1
        if self._first_start is None:
            self._first_start = event.at
        self._move(event.num, "running", event.host)
        self.hosts[event.host].running_jobs[event.num] = event.at

    def _on_job_retried(self, event: events.JobRetried) -> None:
        """Uncount the JobReturn of a job that runs again."""
        row = next((row for row in self.failures if row.num == event.num), None)
        if row is None:
            self.total += 1
        else:
            self._forget(row)
        self._move(event.num, "waiting", "")
        if event.overrides:
            self.overrides[event.num] = event.overrides

    def _forget(self, row: Row) -> None:
        self.failures.remove(row)
        self.failed -= 1
        self.kinds -= Counter({(row.error or {}).get("kind", "unknown"): 1})
        if row.host in self.hosts:
            self.hosts[row.host].failed -= 1
        if row.group is not None:
            group = self.groups[row.group]
            group.count -= 1
            if row.num in group.nums:
                group.nums.remove(row.num)

    def _on_job_returned(self, event: events.JobReturned) -> None:
        self._move(event.num, "", "")
        self.overrides.pop(event.num, None)
        # A job that was taken over says nothing of this run's hosts, nor of its rate.
        is_own, self._is_taking_over = not self._is_taking_over, False
        self._returned_since += is_own
        host = self._host(event.host) if event.host and is_own else None
        row = Row(
            event.num, event.host, event.attempt, event.status, event.duration, tuple(event.overrides), event.error
        )
        if event.status == "COMPLETED":
            self.completed += 1
            if is_own and event.duration is not None:
                self.durations.add(event.duration)
            if host is not None:
                host.completed += 1
            if len(self.done) < MAX_COMPLETED:
                self.done.append(row)
            return
        self.failed += 1
        if host is not None:
            host.failed += 1
        self.kinds[(event.error or {}).get("kind", "unknown")] += 1
        group = self._group(row)
        if len(self.failures) < MAX_FAILURES:
            # The group keeps the traceback, once.
            error = None if event.error is None else {**event.error, "traceback": "", "causes": []}
            self.failures.append(replace(row, error=error, group=group))

    def _move(self, num: int, place: str, host: str) -> None:
        """Move a job to another state. An empty state removes it."""
        before, on = self._where.pop(num, ("", ""))
        self._add(before, on, num, -1)
        self._add(place, host, num, 1)
        if place:
            self._where[num] = (place, host)

    def _add(self, place: str, host: str, num: int, by: int) -> None:
        if place == "waiting":
            self.waiting += by
        elif place == "queued":
            self._host(host).queued += by
        elif place == "running" and by > 0:
            self._host(host).running_jobs[num] = 0.0
        elif place == "running":
            self._host(host).running_jobs.pop(num, None)
            self.reports.pop(num, None)

    def _group(self, row: Row) -> int | None:
        """Count a failure in the group of equal failures. Returns the group's index; None if there are too many groups."""
        key = signature(row.error or {})
        index = self._group_of.get(key)
        if index is None:
            if len(self.groups) >= MAX_GROUPS:
                self.ungrouped += 1
                return None
            index = self._group_of[key] = len(self.groups)
            self.groups.append(FailureGroup(row))
        group = self.groups[index]
        group.count += 1
        if len(group.nums) < MAX_NUMS:
            group.nums.append(row.num)
        return index


def signature(error: dict[str, Any]) -> tuple[str, ...]:
    """Return what equal failures share: kind, type, signal or exit code, and where the error was raised.

    The message counts only if there is no traceback, because messages often have numbers of the job in them.
    """
    frames = _FRAME.findall(error.get("traceback") or "")[-3:]
    where = tuple(f"{file.rpartition('/')[2]}:{line}:{function}" for file, line, function in frames)
    if not where:
        where = (re.sub(r"\d+", "#", shorten(error.get("message") or "", 200)),)
    kind = str(error.get("kind", ""))
    return (kind, str(error.get("type", "")), str(error.get("signal")), str(error.get("exit_code")), *where)
