"""What a notebook shows of a run: a bar, and a table of its jobs, from the journal alone.

Rule: it can be shown while the run goes on, and nothing is unpickled for it.
"""

from __future__ import annotations

from launcher.tables.cells import cell_text
from launcher.tables.table import Row, Table
from launcher.util.text.html import progress_html, table_html
from launcher.util.text.quantities import size
from remote_agent.job import ResourcesUsed

__all__ = ["run_html"]

#: How many jobs, settings and values a table has.
_ROWS, _NAMES = 50, 6
#: Failed jobs first, then those that run.
_ORDER = {"FAILED": 0, "running": 1, "assigned": 2, "waiting": 3, "COMPLETED": 4}


def run_html(table: Table) -> str:
    """The run as HTML: how far it is, and its jobs, those that failed first."""
    status = table.status
    settings, values = table.varying[:_NAMES], table.values[:_NAMES]
    headers = ["job", "state", "host", "time", "CPU time", "memory", *settings, *values, "error"]
    ordered = sorted(table.rows, key=lambda row: (_ORDER.get(row.job.state, 9), row.job.num))
    rows = [_cells(row, settings, values) for row in ordered[:_ROWS]]
    left_out = len(ordered) - len(rows)
    caption = f"{status.completed:,} completed, {status.failed:,} failed, {status.open:,} open"
    more = f"... and {left_out:,} more jobs" if left_out else ""
    return progress_html(status.completed + status.failed, status.jobs, caption) + table_html(
        f"run {status.run}: {status.state}", headers, rows, more
    )


def _cells(row: Row, settings: list[str], values: list[str]) -> list[str]:
    job = row.job
    error = job.error or {}
    return [
        str(job.num),
        job.state,
        job.host,
        _seconds(job.duration),
        *_used(job.resources_used),
        *(cell_text(row.settings.get(name)) for name in settings),
        *(cell_text(row.values.get(name)) for name in values),
        f"{error.get('type') or error.get('kind')}: {error.get('message', '')}" if error else "",
    ]


def _used(used: ResourcesUsed | None) -> list[str]:
    if used is None:
        return ["", ""]
    return [_seconds(used.cpu_seconds), "" if used.peak_memory is None else size(used.peak_memory)]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"
