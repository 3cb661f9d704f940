"""The spans of a run, made from its journal alone.

Rule: hosts make none. What they have recorded of times is moved to the clock of this machine, and each span lies within the run. A run
has the same spans with the same ids each time they are made, so a trace that is sent again does not double.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from launcher import events
from launcher.errors import LauncherError
from launcher.runs import record as run_record
from launcher.runs.clocks import offsets_of, times_of
from launcher.runs.index import Entry
from launcher.runs.journal_reader import JournalReader
from launcher.runs.status import AttemptStatus, JobStatusLine, RunStatus, read_jobs, read_status
from launcher.tracing.context import TraceContext, context_of
from launcher.tracing.host_spans import HostSpans
from launcher.tracing.span import Moment, Span, failed
from launcher.util.frozen import frozen
from remote_agent.protocol.trace import attempt_span, span_name

__all__ = ["RunTrace", "read_trace"]

_START_HOOKS = ("on_run_start ", "on_multirun_start ")


@dataclass
class RunTrace:
    """The trace of a run.

    Attributes:
        spans: the root first. They are made as they are read.
        pythons: the version of Python that each host has said.
    """

    status: RunStatus
    context: TraceContext
    spans: Iterator[Span]
    pythons: Mapping[str, str] = field(default_factory=dict)


@frozen
class _Run:
    """What all spans of a run need."""

    context: TraceContext
    root: str
    begin: float
    end: float
    offsets: Mapping[str, float]

    def name(self, of: str) -> str:
        return span_name(self.context.trace, of)

    def within(self, at: float) -> float:
        return min(max(at, self.begin), self.end)


def read_trace(entry: Entry) -> RunTrace:
    """Read the trace of a run.

    Raises:
        LauncherError: the run's folder is gone, or its journal is damaged.
    """
    status = read_status(entry)
    with JournalReader(entry.journal) as reader:
        context = context_of(status.run, reader.meta().get("traceparent", ""))
        jobs = read_jobs(reader)
        end = max(status.ended or reader.last_event_at() or status.started, status.started)
        run = _Run(context, span_name(context.trace, "run"), status.started, end, offsets_of(jobs))
        hooks = _hooks(reader, run)
        # The controller connects when the start hook has ended, or has begun to before it.
        starts = [hook.end for hook in hooks.get(("", None, None), ()) if hook.name.startswith(_START_HOOKS)]
        hosts = HostSpans(run.name, run.root, max([run.begin, *starts]), run.end)
        hosts.read(reader)
        root = _root(reader, status, run)

    def spans() -> Iterator[Span]:
        yield root
        yield from hosts.spans
        yield from hooks.pop(("", None, None), ())
        for job in jobs:
            yield from _job(job, run, hooks)

    return RunTrace(status, context, spans(), hosts.pythons)


def _root(reader: JournalReader, status: RunStatus, run: _Run) -> Span:
    attributes: dict[str, Any] = {
        "remote_launcher.run.id": status.run,
        "remote_launcher.run.mode": status.mode,
        "remote_launcher.run.state": status.state,
        "remote_launcher.jobs.completed": status.completed,
        "remote_launcher.jobs.failed": status.failed,
        "remote_launcher.jobs.open": status.open,
        "remote_launcher.hosts": status.hosts,
    }
    try:
        code = run_record.read(reader).code
    except LauncherError:
        code = None  # the run died before it had a record
    if code is not None and code["commit"]:
        attributes["vcs.ref.head.revision"] = str(code["commit"])
        attributes["remote_launcher.code.dirty"] = bool(code["dirty"])
    interrupt = reader.last_event("run_interrupt")
    problem = ""
    if status.state == "interrupted" and isinstance(interrupt, events.RunInterrupt):
        problem = interrupt.why
    elif status.failed:
        problem = f"{status.failed} of {status.jobs} jobs failed"
    name = f"{'multirun' if status.mode == 'MULTIRUN' else 'run'} {status.task}".rstrip()
    moments = [
        Moment(event.at, "warning", {"remote_launcher.source": event.source, "remote_launcher.message": event.message})
        for _, event in reader.events_of("warning")
        if isinstance(event, events.Warned) and event.num is None and not event.host
    ]
    return Span(run.root, run.context.parent, name, run.begin, run.end, attributes, problem=problem, moments=moments)


_Key = tuple[str, int | None, int | None]


def _hooks(reader: JournalReader, run: _Run) -> dict[_Key, list[Span]]:
    """Return the hooks whose times are known, by host (empty for the controller), job and attempt. An earlier version wrote no times."""
    found: dict[_Key, list[Span]] = defaultdict(list)
    problems: dict[tuple[str, str, int | None], str] = {}
    for _, event in reader.events_of("warning"):
        if isinstance(event, events.Warned) and event.source.startswith("callback "):
            problems.setdefault((event.source, event.host, event.num), event.message)
    for seq, event in reader.events_of("hook"):
        if not isinstance(event, events.HookFired) or event.began_at is None or event.seconds is None:
            continue
        is_here = event.side == "controller"
        offset = 0.0 if is_here else run.offsets.get(event.host, 0.0)
        begin = run.within(event.began_at + offset)
        end = run.within(begin + max(event.seconds, 0.0))
        host = "" if is_here else event.host
        key: _Key = (host, event.num, event.attempt)
        if is_here:
            parent = run.root if event.num is None else run.name(f"job/{event.num}")
        else:
            parent = attempt_span(run.context.trace, f"{event.num}.{event.attempt}")
        about = {"remote_launcher.hook": event.hook, "remote_launcher.callback": event.callback}
        name = f"{event.hook} {event.callback}"
        problem = ""
        if not event.ok:
            problem = problems.get((f"callback {event.callback}.{event.hook}", event.host, event.num), "it raised")
        found[key].append(Span(run.name(f"hook/{seq}"), parent, name, begin, end, about, host=host, problem=problem))
    return found


def _job(job: JobStatusLine, run: _Run, hooks: dict[_Key, list[Span]]) -> Iterator[Span]:
    begin = run.within(run.begin if job.queued_at is None else job.queued_at)
    end = max(begin, run.within(run.end if job.returned_at is None else job.returned_at))
    name = run.name(f"job/{job.num}")
    about: dict[str, Any] = {
        "remote_launcher.job.num": job.num,
        "remote_launcher.job.state": job.state,
        "remote_launcher.job.overrides": job.overrides,
    }
    if job.is_stopped:
        about["remote_launcher.job.stopped"] = True
    yield failed(Span(name, run.root, f"job {job.num}", begin, end, about), job.error, end)
    over = None
    for attempt in job.attempts:
        spans = list(_attempt(job.num, attempt, name, run, hooks.pop((attempt.host, job.num, attempt.attempt), [])))
        over = spans[0].end if spans else over
        yield from spans
    if over is not None and job.returned_at is not None:
        yield Span(run.name(f"job/{job.num}/collect"), name, "collect", min(over, end), end, {})
    yield from hooks.pop(("", job.num, None), ())


def _attempt(num: int, attempt: AttemptStatus, job: str, run: _Run, hooks: list[Span]) -> Iterator[Span]:
    """Yield the span of an attempt, and its parts: waiting for a slot, the hooks, and the application between them."""
    if attempt.assigned_at is None:
        return  # its job was taken over from another run
    attempt_id = f"{num}.{attempt.attempt}"
    name = attempt_span(run.context.trace, attempt_id)
    assigned = run.within(attempt.assigned_at)
    over = run.within(run.end if attempt.ended_at is None else attempt.ended_at)
    parts = []
    if attempt.started_at is not None:
        start, over = times_of(attempt, run.offsets.get(attempt.host, 0.0), run.begin, run.end)
        assigned = min(assigned, start)
        work_begin = max([start, *(hook.end for hook in hooks if hook.name.startswith("on_job_start "))])
        work_end = min([over, *(hook.begin for hook in hooks if hook.name.startswith("on_job_end "))])
        over = max([over, *(hook.end for hook in hooks)])
        parts = [
            Span(run.name(f"attempt/{attempt_id}/queue"), name, "queue", assigned, start, {}, host=attempt.host),
            Span(
                run.name(f"attempt/{attempt_id}/work"), name, "work", work_begin, max(work_begin, work_end), {},
                host=attempt.host,
            ),
        ]  # fmt: skip
    about: dict[str, Any] = {
        "remote_launcher.job.num": num,
        "remote_launcher.attempt": attempt.attempt,
        "remote_launcher.attempt.state": attempt.state,
    }
    if attempt.slot is not None:
        about["remote_launcher.slot"] = attempt.slot
    whole = Span(name, job, f"attempt {attempt_id}", assigned, max(assigned, over), about, host=attempt.host)
    if attempt.state == "given up":
        whole = whole.with_problem(attempt.why)
    yield failed(whole, attempt.error, whole.end)
    yield from parts
    yield from hooks
