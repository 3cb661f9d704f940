"""The end of a run: a table with failures first, the remote traceback of each distinct failure, and the same as JSON.

Rule: if something is left out, the summary says how much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from launcher.display.lines import cut
from launcher.display.tally import FailureGroup, Row, Tally
from launcher.display.text import clean, clean_line, count, error_line, seconds, shorten, varying

if TYPE_CHECKING:
    from rich.console import Console

    from launcher.tables.table import Row as ValueRow
    from launcher.tables.table import Table

__all__ = ["REPORT_VERSION", "print_summary", "summary_json"]

REPORT_VERSION = 1
#: How many rows the table has, and how many tracebacks follow.
MAX_ROWS = 30
MAX_TRACEBACKS = 10


def print_summary(
    tally: Tally,
    stream: TextIO,
    *,
    max_rows: int = MAX_ROWS,
    unreached: tuple[str, ...] = (),
    has_shown: Callable[[str], bool] = lambda text: False,
    values: Table | None = None,
    sort: str = "",
) -> None:
    """Write the summary of a run to a stream.

    Args:
        has_shown: whether a traceback is on the screen already.
        values: what came back from the jobs.
        sort: the column by which completed jobs are sorted, which `values` has.

    Raises:
        BrokenPipeError: the reader of the stream is gone.
    """
    from launcher.display.console import PatientConsole

    console = PatientConsole(file=stream, highlight=False, width=None if stream.isatty() else 160)
    with tally.lock:
        if not tally.has_no_usable_host:
            # Show the hosts' errors once, instead of with each job.
            _print_jobs(tally, console, max_rows, has_shown, values, sort)
        _print_sum(tally, console, unreached)


def _print_jobs(
    tally: Tally, console: Console, max_rows: int, has_shown: Callable[[str], bool], values: Table | None, sort: str
) -> None:
    if tally.returned > 1 or tally.failed:
        _print_table(tally, console, max_rows, values, sort)
    for group in tally.groups[:MAX_TRACEBACKS]:
        if not group.count:
            continue  # its jobs were run again
        if tally.mode == "RUN" and has_shown((group.first.error or {}).get("traceback") or ""):
            continue  # the job itself has printed it, above
        if (group.first.error or {}).get("traceback") or tally.failed > max_rows:
            _print_failure(console, group)
    _print_left_out(tally, console)


def _print_table(tally: Tally, console: Console, max_rows: int, values: Table | None, sort: str) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    from launcher.display.values import best_lines, value_cells, value_names
    from launcher.tables.table import sort_rows

    failures = sorted(tally.failures, key=lambda row: row.num)[:max_rows]
    ordered = sort_rows(values.rows, sort) if values is not None and sort else []
    done = [_completed(row) for row in ordered if row.job.state == "COMPLETED"] or sorted(
        tally.done, key=lambda row: row.num
    )
    completed = done[: max(max_rows - len(failures), 0)]
    names = value_names(values, sort) if values is not None else []
    cells_of = {row.job.num: value_cells(row, names) for row in values.rows} if values is not None else {}
    table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("job", justify="right", no_wrap=True)
    table.add_column("host", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for name in names:
        table.add_column(Text(name), justify="right")
    table.add_column("overrides", overflow="fold")
    table.add_column("error", overflow="fold")
    known = [*tally.failures, *(tally.done if not ordered else completed)]
    common, different = varying([row.overrides for row in known])
    of = {row.num: overrides for row, overrides in zip(known, different, strict=True)}
    for row in [*failures, *completed]:
        style = "" if row.status == "COMPLETED" else "red"
        cells = _cells(row, of[row.num], cells_of.get(row.num, [""] * len(names)))
        table.add_row(*(Text(text, style) for text in cells))
    console.print()
    if common:
        console.print(Text(f"all jobs: {common}", "dim"), soft_wrap=True)
    console.print(table)
    left_failed, left_done = tally.failed - len(failures), tally.completed - len(completed)
    if left_failed or left_done:
        parts = [
            f"{left_failed:,} more failed" if left_failed else "",
            f"{left_done:,} more completed" if left_done else "",
        ]
        console.print(Text(f"... and {', '.join(filter(None, parts))}", "dim"))
    for line in best_lines(values, ordered, sort) if values is not None else []:
        console.print(Text(line), soft_wrap=True)


def _completed(row: ValueRow) -> Row:
    job = row.job
    return Row(job.num, job.host, job.attempt, job.state, job.duration, job.overrides, None)


def _cells(row: Row, overrides: str, values: list[str]) -> list[str]:
    status = row.status if row.attempt <= 1 else f"{row.status} ({row.attempt})"
    return [
        str(row.num),
        row.host or "-",
        status,
        seconds(row.duration),
        *values,
        overrides,
        shorten(error_line(row.error), 200),
    ]


def _print_failure(console: Console, group: FailureGroup) -> None:
    from rich.text import Text

    row = group.first
    nums = ", ".join(str(num) for num in sorted(group.nums))
    more = f" and {group.count - len(group.nums):,} more" if group.count > len(group.nums) else ""
    whose = f"job {nums}" if group.count == 1 else f"{count(group.count, 'job')} ({nums}{more})"
    first = f" of job {row.num}" if group.count > 1 else ""
    where = f" on {row.host}" if row.host else ""
    console.print()
    console.print(
        Text(f"{whose}{where if group.count == 1 else ''}: {shorten(error_line(row.error), 500)}", "bold red")
    )
    trace = clean((row.error or {}).get("traceback") or "").rstrip()
    if trace:
        console.print(Text(f"  remote traceback{first}{where if group.count > 1 else ''}:", "dim"))
        for line in cut(trace.splitlines()):
            console.print(Text(f"    {line}"), soft_wrap=True)


def _print_left_out(tally: Tally, console: Console) -> None:
    from rich.text import Text

    left = len(tally.groups) - MAX_TRACEBACKS
    if left > 0 or tally.ungrouped:
        rest = f"{left} more distinct failures" if left > 0 else ""
        beyond = f"{count(tally.ungrouped, 'failed job')} whose errors were not compared" if tally.ungrouped else ""
        console.print()
        console.print(Text(f"... and {'; '.join(filter(None, (rest, beyond)))}", "dim"))


def _print_sum(tally: Tally, console: Console, unreached: tuple[str, ...]) -> None:
    from rich.text import Text

    parts = [f"{tally.completed:,} completed", f"{tally.failed:,} failed"]
    if tally.kinds:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in tally.kinds.most_common())
        parts[1] += f" ({kinds})"
    if tally.taken_over:
        parts[0] += f" ({tally.taken_over:,} of them before)"
    if tally.retried:
        parts.append(f"{count(tally.retried, 'attempt')} repeated")
    if tally.warnings:
        parts.append(count(tally.warnings, "warning"))
    took = ""
    if tally.ended_at is not None and (elapsed := tally.elapsed(tally.ended_at)) is not None:
        took = f" in {seconds(elapsed)}"
    where = f"; results in {clean_line(tally.folder)}" if tally.folder else ""
    console.print()
    style = "bold green" if not tally.failed and not tally.interrupted else "bold"
    console.print(Text(f"{', '.join(parts)}{took}{where}", style), soft_wrap=True)
    for pattern, jobs in sorted(tally.unmatched.items()):
        whose = (
            "any completed job"
            if jobs >= tally.completed
            else f"{jobs:,} of the {count(tally.completed, 'completed job')}"
        )
        said = f"output pattern {shorten(repr(pattern), 200)} matched no file of {whose}"
        console.print(Text(said, "bold yellow"), soft_wrap=True)
    if unreached:
        names = ", ".join(unreached)
        console.print(Text(f"hosts that could not be reached to end the run: {names}", "bold yellow"), soft_wrap=True)


def summary_json(tally: Tally, *, exit_code: int, unreached: tuple[str, ...] = (), error: Any = None) -> dict[str, Any]:
    """Return the summary as plain data for programs. `version` is the version of its format.

    `failures` has at most a thousand failed jobs, and `failures_left_out` says how many more there are. Each has a
    `failure` that is an index into `distinct_failures`, whose `error` has the traceback.
    """
    with tally.lock:
        return {
            "version": REPORT_VERSION,
            "run": tally.run,
            "mode": tally.mode,
            "folder": tally.folder,
            "exit_code": exit_code,
            "error": error,
            "interrupted": tally.interrupted or None,
            "jobs": tally.total,
            "completed": tally.completed,
            "failed": tally.failed,
            "failed_by_kind": dict(tally.kinds),
            "repeated_attempts": tally.retried,
            "taken_over": tally.taken_over,
            "warnings": tally.warnings,
            "unmatched_outputs": dict(tally.unmatched),
            "started_at": tally.started_at,
            "taken_up_at": tally.taken_up_at,
            "ended_at": tally.ended_at,
            "hosts": [
                {
                    "name": host.name,
                    "state": host.state,
                    "detail": host.detail,
                    "slots": host.slots,
                    "python": host.python,
                    "gpus": list(host.gpus),
                    "environment": host.environment_steps.to_json() if host.environment_steps is not None else None,
                    "completed": host.completed,
                    "failed": host.failed,
                }
                for host in tally.hosts.values()
            ],
            "unreached": list(unreached),
            "failures": [
                {
                    "num": row.num,
                    "host": row.host,
                    "attempt": row.attempt,
                    "duration": row.duration,
                    "overrides": list(row.overrides),
                    "error": {key: value for key, value in (row.error or {}).items() if key != "traceback"},
                    "failure": row.group,
                }
                for row in sorted(tally.failures, key=lambda row: row.num)
            ],
            "failures_left_out": tally.failed - len(tally.failures),
            "distinct_failures": [
                {"jobs": group.count, "nums": group.nums, "error": group.first.error} for group in tally.groups
            ],
        }
