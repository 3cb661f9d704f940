"""What `launcher top` shows, as rows of text with their styles: for a terminal that is drawn again and again, and for a pipe.

Rule: it is pure. All text of hosts and jobs goes through `clean_line` or `shorten`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from launcher.display.gpus import use_of
from launcher.display.text import clean_line, clock, count, shorten, size, whole_seconds

if TYPE_CHECKING:
    from launcher.agents.queries.gpus import HostGpu
    from launcher.agents.queries.host_use import JobThere, RunThere
    from launcher.terminal.top.use import AskedHost, RunHere

__all__ = ["Row", "top_rows"]

#: A text and its style.
Row = tuple[str, str]
#: Running jobs of a run on a host that have a row.
_MOST_JOBS = 16


def top_rows(
    hosts: Sequence[AskedHost], runs: Mapping[str, RunHere], now: float, problems: Mapping[str, str] | None = None
) -> Iterator[Row]:
    """Yield all rows: each host with its runs and their jobs, and then the runs here. `problems`: runs whose journals cannot be read."""
    for host in hosts:
        yield from _host(host, runs, now)
    yield "here", "bold"
    if not runs:
        yield "  no run that has not ended", "dim"
    for run in runs.values():
        yield _here(run, now), "dim" if run.status.state == "detached" else ""
    for name, problem in (problems or {}).items():
        yield f"  run {clean_line(name)}  {shorten(problem, 300)}", "yellow"


def _host(host: AskedHost, runs: Mapping[str, RunHere], now: float) -> Iterator[Row]:
    if host.use is None:
        yield f"{host.label}  {shorten(host.error, 400) or 'asking ...'}", "red" if host.error else "dim"
        return
    use, told = host.use, []
    if use.load is not None:
        told.append(f"load {use.load:.1f}" + (f" of {count(use.cpus, 'CPU')}" if use.cpus else ""))
    if use.memory is not None and use.memory_free is not None:
        told.append(f"memory {size(max(use.memory - use.memory_free, 0))} of {size(use.memory)}")
    yield f"{host.label}  {'  '.join(told)}", "bold"
    if host.error:
        last = f" (this is of {clock(host.answered_at)})" if host.answered_at is not None else ""
        yield f"  does not answer{last}: {shorten(host.error, 300)}", "red"
    if host.gpus is not None:
        yield from ((f"  {_gpu(gpu, now)}", "") for gpu in host.gpus.gpus)
    if not use.runs:
        yield "  no run of yours", "dim"
    for run in use.runs:
        yield from _run(run, runs.get(run.run))


def _gpu(gpu: HostGpu, now: float) -> str:
    if not gpu.uuid:
        return f"GPU {gpu.number}  cannot be read"
    memory = "" if gpu.used is None or gpu.total is None else f"  {size(gpu.used)} of {size(gpu.total)}"
    return f"GPU {gpu.number}  {clean_line(gpu.name)}{memory}: {use_of(gpu, now)}"


def _run(run: RunThere, here: RunHere | None) -> Iterator[Row]:
    host = here.host_of(run.host) if here is not None else None
    slots = f"/{host.slots}" if host is not None and host.slots and not host.is_cluster else ""
    task = f"  {shorten(here.status.task, 60)}" if here is not None else ""
    reason = f": {shorten(host.queue_reason, 100)}" if host is not None and host.queue_reason and run.queued else ""
    yield f"  run {clean_line(run.run)}{task}  {run.running}{slots} running, {run.queued} queued{reason}", "green"
    for job in run.jobs[:_MOST_JOBS]:
        yield f"    {_job(job, here)}", ""
    if run.running > _MOST_JOBS:
        yield f"    ... and {run.running - _MOST_JOBS} more", "dim"


def _job(job: JobThere, here: RunHere | None) -> str:
    overrides = "" if here is None else shorten(" ".join(here.tally.overrides.get(job.num, ())), 80)
    attempt = f", attempt {job.attempt}" if job.attempt > 1 else ""
    return f"job {job.num}{attempt}  {whole_seconds(job.seconds)}  {overrides}".rstrip()


def _here(run: RunHere, now: float) -> str:
    status = run.status
    who = {"running": f"driven by {status.driver}", "detached": "left to its hosts", "died": "its controller has died"}
    done = f"{status.completed:,} completed, {status.failed:,} failed of {status.jobs:,}, {run.tally.waiting:,} waiting here"
    since = whole_seconds(max(now - status.started, 0.0))
    return f"  run {clean_line(status.run)}  {shorten(status.task, 60)}  {who.get(status.state, status.state)}  {since}  {done}"
