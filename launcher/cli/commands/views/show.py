"""`launcher show`: show the state of a run, job by job; or one job with all its attempts.

Rule: the journal has what this machine knows. If no process drives the run, the agents on the hosts are asked for the rest. That
only reads, so it can be done at any time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from launcher.cli import arguments
from launcher.cli.parameters import Option
from launcher.errors import HostError, UsageError
from launcher.util.text.terminal_text import clean, clean_line

if TYPE_CHECKING:
    from launcher.events import Warned
    from launcher.hosts.host_spec import HostSpec
    from launcher.runs.journal_reader import JournalReader
    from launcher.runs.status import AttemptStatus, JobStatusLine, RunStatus
    from launcher.tables.table import Row, Table

__all__ = ["show"]

#: Rows of the table without --all; failed jobs come first, if no column is sorted by.
_ROWS = 50
_All = Annotated[bool, Option("--all", "-a", help="Show all jobs.")]
_Offline = Annotated[bool, Option("--offline", help="Ask no host; show what this machine knows.")]
#: The source of a warning about files that stay on a host.
LEFT = "files"
_ORDER = {"FAILED": 0, "running": 1, "assigned": 2, "waiting": 3, "COMPLETED": 4}


def show(
    run: arguments.RunOrJob = "last",
    is_all: _All = False,
    is_offline: _Offline = False,
    sort: arguments.Sort = None,
    is_json: arguments.Json = False,
) -> None:
    """Show the state of RUN and its jobs; with RUN#NUM, one job with all its attempts and its traceback."""
    from launcher.events import Warned
    from launcher.runs import index
    from launcher.runs.journal_reader import JournalReader
    from launcher.runs.status import read_jobs, read_status
    from launcher.tables.cells import json_cell
    from launcher.tables.table import Table, read_rows, sort_rows

    reference = index.parse(run)
    status = read_status(reference.entry)
    with JournalReader(reference.entry.journal) as reader:
        jobs = read_jobs(reader, reference.num)
        warnings = [event for _, event in reader.events_of("warning") if isinstance(event, Warned)]
        if reference.num is not None:
            for job in jobs:
                job.value = _value(reader, job)
                job.environment = _environment(reader, job)
                job.is_warm = _is_warm(reader, job)
        if status.state in ("died", "detached") and status.open and not is_offline:
            from launcher.runs import ownership

            if ownership.is_ours(reference.entry.folder):
                _ask_hosts(reader, jobs)
            else:
                # The folder would choose which host to ask, and how to log in there.
                print(
                    "launcher: this run is not known to be yours, so no host is asked; --offline shows the same",
                    file=sys.stderr,
                )
        rows, unread = read_rows(reader, jobs)
    if reference.num is not None and not jobs:
        raise UsageError(
            f"run {status.run} has no job {reference.num}; 'launcher show {status.run} --all' lists those that it has"
        )
    ordered = rows if sort is None else sort_rows(rows, sort)
    if is_json:
        arguments.print_json(
            run=status.to_json(),
            jobs=[
                {**row.job.to_json(), "values": {name: json_cell(cell) for name, cell in row.values.items()}}
                for row in ordered
            ],
            warnings=[event.to_json() for event in warnings],
        )
    elif reference.num is not None:
        _print_job(status, jobs[0])
    else:
        if sort is None:
            ordered = sorted(rows, key=lambda row: (_ORDER.get(row.job.state, 9), row.job.num))
        _print_run(Table(status, rows, unread), ordered, None if is_all else _ROWS, sort or "")
        _print_warnings(warnings)


def _print_warnings(warnings: Sequence[Warned]) -> None:
    """Print the last warning about files that stay on each host, and how many others there are."""
    from launcher.display.text import count

    left = {event.host: event for event in warnings if event.source == LEFT}
    for event in left.values():
        print(f"warning: {clean(event.message)}")
    others = sum(event.source != LEFT for event in warnings)
    if others:
        print(f"{count(others, 'more warning' if left else 'warning')} (--json shows them)")


def _value(reader: JournalReader, job: JobStatusLine) -> str:
    """What a completed job returned, as plain data. Empty if it may not be decoded."""
    from launcher.results.plain import shown_value

    stored = reader.result(job.num, job.attempt) if job.state == "COMPLETED" else None
    return "" if stored is None or reader.meta().get("results") == "never" else shown_value(stored)


def _environment(reader: JournalReader, job: JobStatusLine) -> dict[str, str] | None:
    """The environment that a job ran in: its key, and the hash and name of the lock, which the run keeps. None for none."""
    from launcher.results.job_returns import environment_of

    stored = reader.result(job.num, job.attempt)
    key = environment_of(stored.envelope.code) if stored is not None else ""
    if stored is None or not key:
        return None
    from launcher.environments.lock import locks_from_bytes

    sha256 = str(stored.envelope.code["environment"].get("lock", ""))
    try:
        kept = locks_from_bytes(reader.blob("environments")).get(stored.host)
    except ValueError:
        kept = None  # whoever repeats the job is told that it is damaged
    return {"key": key, "lock": clean_line(sha256), "name": clean_line(kept.name) if kept is not None else ""}


def _is_warm(reader: JournalReader, job: JobStatusLine) -> bool:
    """Whether the job was forked from an interpreter that had waited for its run."""
    stored = reader.result(job.num, job.attempt)
    return stored is not None and stored.envelope.code.get("warm") is True


def _ask_hosts(reader: JournalReader, jobs: list[JobStatusLine]) -> None:
    """Add what the hosts know of a run that no process drives; a host that does not answer is named."""
    import concurrent.futures

    from launcher.agents.queries.query import AgentQuery
    from launcher.runs import record as run_record

    record = run_record.read(reader)
    open_attempts = {
        (job.host, f"{job.num}.{job.attempt}"): job.attempts[-1]
        for job in jobs
        if job.attempts and job.state not in ("COMPLETED", "FAILED")
    }
    hosts = {host for host, _ in open_attempts}
    specs = [spec for spec in run_record.hosts_of(record, {}) if spec.name in hosts]

    def ask(spec: HostSpec) -> dict[str, dict[str, Any]]:
        try:
            with AgentQuery(spec, "look", record.run) as talk:
                return talk.attempts()
        except HostError as error:
            print(f"launcher: {clean(error)}", file=sys.stderr)
            return {}

    with concurrent.futures.ThreadPoolExecutor(max_workers=16) as pool:
        for spec, known in zip(specs, pool.map(ask, specs), strict=True):
            for attempt, told in known.items():
                status = open_attempts.get((spec.name, attempt))
                if status is not None:
                    status.on_host = str(told.get("status") or told.get("state") or "")


def _print_run(table: Table, ordered: Sequence[Row], limit: int | None, sort: str = "") -> None:
    from launcher.display.table import Column, print_table, styled
    from launcher.display.text import count, error_line, seconds, shorten, varying
    from launcher.display.values import best_lines, value_cells, value_names

    status = table.status
    driven = f" by {status.driver}" if status.driver else ""
    print(styled(f"run {status.run}: {status.state}{driven}", "bold", sys.stdout))
    print(f"  {status.mode} of {clean(status.task)} on {', '.join(status.hosts)}, started {_when(status.started)}")
    print(f"  results in {clean_line(status.folder)}")
    hooks = ", ".join(f"{hook} {state}" for hook, state in status.end_hooks.items())
    if hooks:
        print(f"  end hook: {hooks}")
    print(
        f"  {count(status.jobs, 'job')}: {status.completed:,} completed, {status.failed:,} failed, {status.open:,} open"
    )
    if status.state in ("died", "detached"):
        print(f"  next: launcher attach {status.run}")
    names = value_names(table, sort)
    columns = [
        Column("job", is_number=True),
        *(Column(name) for name in ("state", "host")),
        *(Column(name, is_number=True) for name in ("attempts", "time", *names)),
        *(Column(name, may_fold=True) for name in ("overrides", "error")),
    ]
    chosen = ordered[:limit]
    common, different = varying([row.job.overrides for row in table.rows])
    of = {row.job.num: overrides for row, overrides in zip(table.rows, different, strict=True)}
    styles = {"FAILED": "red", "running": "green"}
    rows = []
    for row in chosen:
        job = row.job
        cells = [
            str(job.num),
            _state(job),
            job.host or "-",
            str(job.attempt),
            seconds(job.duration),
            *value_cells(row, names),
            of[job.num],
            shorten(error_line(job.error), 200),
        ]
        rows.append((cells, styles.get(job.state, "")))
    print()
    if common:
        print(styled(f"all jobs: {common}", "dim", sys.stdout))
    print_table(columns, rows, sys.stdout)
    if len(ordered) > len(chosen):
        print(f"... and {len(ordered) - len(chosen):,} more (--all)")
    for line in best_lines(table, ordered, sort):
        print(line)


def _state(job: JobStatusLine) -> str:
    if job.state in ("COMPLETED", "FAILED") or not job.attempts:
        return job.state
    return _on_host(job.attempts[-1].on_host) or job.state


def _on_host(told: str) -> str:
    """What the host says of an attempt whose JobReturn is not here; empty if it was not asked."""
    return f"{told}, not collected yet" if told in ("COMPLETED", "FAILED") else told


def _print_job(status: RunStatus, job: JobStatusLine) -> None:
    from launcher.display.text import clean_lines, error_line, report_text, seconds
    from launcher.display.usage import usage_text

    took = f" after {seconds(job.duration)}" if job.duration else ""
    print(f"job {status.run}#{job.num}: {_state(job)}{took}{', stopped early' if job.is_stopped else ''}")
    if job.overrides:
        print(f"  overrides: {clean(' '.join(job.overrides))}")
    print(f"  output in {clean_line(job.output_dir)}")
    if job.reported:
        print(f"  reported: {report_text(job.step, job.reported)}")
    if job.value:
        print(f"  value: {job.value}")
    used = usage_text(job.resources_used)
    if used:
        print(f"  used: {used}")
    if job.environment is not None:
        told = job.environment
        print(f"  environment: {told['key'][:12]} of {told['name'] or 'the lock'} ({told['lock'][:12]})")
    if job.is_warm:
        print("  warm start: its packages were imported before the run")
    for attempt in job.attempts:
        print(f"  attempt {attempt.attempt} on {attempt.host}: {_attempt(attempt)}")
        if attempt.error:
            print(f"    {clean(error_line(attempt.error))}")
        if attempt.why:
            print(f"    {clean(attempt.why)}")
        if attempt is not job.attempts[-1] and usage_text(attempt.resources_used):
            print(f"    used: {usage_text(attempt.resources_used)}")
    error: dict[str, Any] = job.error or {}
    if error and not job.attempts:
        print(f"  {clean(error_line(error))}")
    if error.get("traceback"):
        print("  remote traceback:")
        for line in clean_lines(error["traceback"].rstrip()):
            print(f"    {line}")


def _attempt(attempt: AttemptStatus) -> str:
    from launcher.display.text import seconds

    text = attempt.state
    if text in ("assigned", "running"):
        text = _on_host(attempt.on_host) or text
    if attempt.duration is not None:
        text += f" after {seconds(attempt.duration)}"
    if attempt.started_at is not None:
        text += f", started {_when(attempt.started_at)}"
    elif attempt.assigned_at is not None:
        text += f", assigned {_when(attempt.assigned_at)}"
    return text


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
