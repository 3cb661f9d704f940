"""What a run would do, for people.

Rule: a long list is cut, and it is said how much is left out. `--json` has all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TextIO

from launcher.display.text import clean, clean_line, count, shorten, size, some, varying

if TYPE_CHECKING:
    from launcher.setup.dry_run import DryRun, PlannedHost

__all__ = ["print_dry_run"]

#: How many rows the table of jobs has.
MAX_ROWS = 30


def print_dry_run(plan: DryRun, stream: TextIO) -> None:
    """Write what a run would do to a stream."""
    stream.writelines(f"{line}\n" for line in _lines(plan))


def _lines(plan: DryRun) -> Iterator[str]:
    jobs = "jobs that its sweeper decides" if plan.jobs is None else count(len(plan.running), "job")
    yield f"{clean_line(plan.task)} would run {jobs}; results in {clean_line(plan.folder)}"
    yield "nothing was sent, and no hook fired"
    yield from _sent(plan)
    yield ""
    yield from (_host_line(plan, host) for host in plan.hosts)
    yield from _job_lines(plan)
    if plan.warnings or plan.notes:
        yield ""
    for source, message in plan.warnings:
        yield f"warning: {clean_line(source)}: {clean(message)}"
    yield from (f"note: {clean(note)}" for note in plan.notes)
    if plan.unknown:
        yield ""
        yield "not known without logging in:"
        yield from (f"  {clean(one)}" for one in plan.unknown)


def _sent(plan: DryRun) -> Iterator[str]:
    if plan.files:
        yield f"code: {count(plan.files, 'file')}, {size(plan.code_bytes)}, to each host that has nothing of it"
    elif all(not host.gets_code for host in plan.hosts):
        yield "code: none is sent; it is used in place"
    configs = sum(job.config_bytes for job in plan.jobs or ())
    of_jobs = f"; configs of all jobs: {size(configs)}" if plan.jobs else ""
    yield f"task and callbacks, which all jobs share: {size(plan.shared_bytes)}{of_jobs}"
    if plan.by_value:
        yield f"pickled by value, so the host needs this Python's minor version: {clean_line(', '.join(plan.by_value))}"


def _host_line(plan: DryRun, host: PlannedHost) -> str:
    if host.slots is None or host.slots == "auto":
        slots = "one job per CPU" if host.slots == "auto" else "one job per GPU, or one"
    else:
        slots = f"{count(int(host.slots), 'job')} at once"
    parts = [slots, *([_amounts(host.has)] if _amounts(host.has) else [])]
    if plan.jobs is not None:
        running = len(plan.running)
        takes = "all jobs" if host.jobs == running else f"{host.jobs:,} of the {count(running, 'job')}"
        parts.append(f"could take {takes}")
    if host.environment is not None:
        last = f", last time environment {host.environment.last_key[:12]}" if host.environment.last_key else ""
        parts.append(f"packages of {clean_line(host.environment.source)} (lock {host.environment.lock[:12]}{last})")
    return f"{clean_line(host.name)}: {'; '.join(parts)}"


def _amounts(has: Mapping[str, int | None]) -> str:
    told = [f"{name}={size(value) if name == 'memory' else value}" for name, value in has.items() if value is not None]
    return f"has {', '.join(told)}" if told else ""


def _job_lines(plan: DryRun) -> Iterator[str]:
    if not plan.jobs:
        return
    failing = plan.failing
    rest = [job for job in plan.running if job.failure is None]
    shown = [*failing, *rest, *(job for job in plan.jobs if job.taken_from)][:MAX_ROWS]
    common, different = varying([job.overrides for job in shown])
    every = {job.hosts for job in rest}
    yield ""
    if common:
        yield f"all jobs: {common}" if len(shown) == len(plan.jobs) else f"these jobs: {common}"
    for job, overrides in zip(shown, different, strict=True):
        needs = f"  needs {_amounts(job.needs).removeprefix('has ')}" if job.needs else ""
        hosts = f"  on {clean_line(', '.join(job.hosts))}" if len(every) > 1 and job.hosts else ""
        taken = f"  is taken over from {job.taken_from}" if job.taken_from else ""
        failure = f"  FAILS: {shorten(job.failure[1], 300)}" if job.failure is not None else ""
        yield f"  {job.num}  {overrides}{needs}{hosts}{taken}{failure}".rstrip()
    if len(plan.jobs) > len(shown):
        yield f"  ... and {count(len(plan.jobs) - len(shown), 'more job')}"
    if failing:
        yield f"would fail before they are sent: {count(len(failing), 'job')} ({some([job.num for job in failing])})"
