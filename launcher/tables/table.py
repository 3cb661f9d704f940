"""The table of a run: a row for each job, with what was set and what came back. It is read from the journal alone.

Rule: nothing is unpickled, and no host is asked. It can be read while another process drives the run, after that process has died, and
when the journal is all that there is.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from launcher.errors import ResultNotDecoded, UsageError
from launcher.results.plain import plain_value
from launcher.runs.index import Entry
from launcher.runs.journal_format import StoredResult, StoredValue
from launcher.runs.journal_reader import JournalReader
from launcher.runs.status import JobStatusLine, RunStatus, read_jobs, read_status
from launcher.tables.cells import VALUE, Cell, is_number, settings_of, values_of
from launcher.util.frozen import frozen
from launcher.util.text.terminal_text import clean

__all__ = ["USED", "Extremes", "Row", "Table", "read_rows", "read_table", "sort_rows", "used_cell"]

#: What a job has used, as `ResourcesUsed` names it. Its time is `duration`.
USED = ("cpu_seconds", "peak_memory", "gpu_share", "peak_gpu_memory", "bytes_in", "bytes_out")
#: Names that a table has at most. Each job of a hostile host may return other ones.
MAX_NAMES = 500


@frozen
class Row:
    """A job: what the journal has of it, what its overrides set, and the cells of its value."""

    job: JobStatusLine
    settings: dict[str, Cell]
    values: dict[str, Cell]


@frozen
class Extremes:
    """The jobs with the least and the greatest number of one name."""

    name: str
    lowest: Row
    highest: Row


@frozen
class Table:
    """The rows of a run, in the order of its jobs.

    Attributes:
        unread: why the values of some completed jobs are not in their rows -> how many jobs.
    """

    status: RunStatus
    rows: Sequence[Row]
    unread: dict[str, int]

    @property
    def settings(self) -> list[str]:
        """The names of what was set in any job."""
        return _names(row.settings for row in self.rows)

    @property
    def varying(self) -> list[str]:
        """The names of what was set otherwise in another job, or only in some."""
        rows = [row.settings for row in self.rows]
        return [name for name in self.settings if _varies(rows, name)]

    @property
    def values(self) -> list[str]:
        """The names of values, those that are numbers first."""
        names = _names(row.values for row in self.rows)
        numbers = {name for row in self.rows for name, cell in row.values.items() if is_number(cell)}
        return sorted(names, key=lambda name: name not in numbers)

    def extremes(self, limit: int = 3) -> list[Extremes]:
        """The least and greatest of the first few names whose numbers differ."""
        found = []
        for name in self.values:
            rows = [row for row in self.rows if is_number(row.values.get(name))]
            rows.sort(key=lambda row: row.values[name])  # type: ignore[arg-type, return-value]
            if len(rows) > 1 and rows[0].values[name] != rows[-1].values[name]:
                found.append(Extremes(name, rows[0], rows[-1]))
            if len(found) == limit:
                break
        return found


def read_table(entry: Entry) -> Table:
    """Read the table of a run.

    Raises:
        RunError: the run's folder is gone.
        JournalError: its journal is damaged.
    """
    from launcher.runs.journal_reader import JournalReader

    status = read_status(entry)
    with JournalReader(entry.journal) as reader:
        rows, unread = read_rows(reader, read_jobs(reader))
    return Table(status, rows, unread)


def read_rows(reader: JournalReader, jobs: Iterable[JobStatusLine]) -> tuple[list[Row], dict[str, int]]:
    """Make the rows of these jobs of a run. Also returns why values are not in them, with the number of jobs."""
    jobs = list(jobs)
    one = jobs[0] if len(jobs) == 1 else None
    completed = {(job.num, job.attempt) for job in jobs if job.state == "COMPLETED"}
    values: dict[int, dict[str, Cell]] = {}
    unread: Counter[str] = Counter()
    if reader.meta().get("results") == "never":
        unread["results=never"] = len(completed)
        completed = set()
    found: Iterable[StoredResult | StoredValue | None]
    found = reader.last_values() if one is None else [reader.result(one.num, one.attempt)]
    for stored in found if completed else ():
        if stored is not None and (stored.num, stored.attempt) in completed and stored.parts.by_name:
            try:
                values[stored.num] = values_of(plain_value(stored))
            except ResultNotDecoded as error:
                unread[clean(error)[:200]] += 1
    return [Row(job, settings_of(job.overrides), values.get(job.num) or _reported(job)) for job in jobs], dict(unread)


def _reported(job: JobStatusLine) -> dict[str, Cell]:
    """The values that a job without a result has reported so far."""
    return {} if job.state in ("COMPLETED", "FAILED") else values_of(job.reported)


def sort_rows(rows: Iterable[Row], by: str) -> list[Row]:
    """Return the rows in the order of a column, numbers before texts and missing cells last; with a minus before its name, the greatest first.

    Args:
        by: the name of a value or of what was set, or `value.NAME`, `override.NAME`, `job`, `host`, `state` or `time`.

    Raises:
        UsageError: there is no such column.
    """
    rows = list(rows)
    is_reversed = by.startswith("-")
    name = by[1:] if is_reversed else by
    found = _find(rows, name)
    if found is None:
        import difflib

        known = [*_names(row.values for row in rows), *_names(row.settings for row in rows), *_FIXED]
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(known[:20])}"
        raise UsageError(f"--sort {by[:100]}: no job has {name[:100]!r}; {hint}")
    sortable: list[tuple[Any, Row]] = []
    missing: list[Row] = []
    for row, cell in zip(rows, found, strict=True):
        if cell is None or cell == "" or (type(cell) is float and math.isnan(cell)):
            missing.append(row)
        else:
            sortable.append(((1, cell) if type(cell) is str else (0, cell), row))
    numbers = sorted((one for one in sortable if one[0][0] == 0), key=lambda one: one[0], reverse=is_reversed)
    texts = sorted((one for one in sortable if one[0][0] == 1), key=lambda one: one[0], reverse=is_reversed)
    return [*(row for _, row in numbers), *(row for _, row in texts), *missing]


def used_cell(row: Row, name: str) -> Cell:
    """A field of what a job has used."""
    return _used(row.job, name)


def _used(job: JobStatusLine, name: str) -> Cell:
    cell: Cell = getattr(job.resources_used, name, None)
    return cell


_FIXED: dict[str, Any] = {
    "job": lambda job: job.num,
    "host": lambda job: job.host,
    "state": lambda job: job.state,
    "time": lambda job: job.duration,
    **{name: functools.partial(_used, name=name) for name in USED},
}


def _find(rows: Sequence[Row], name: str) -> list[Cell] | None:
    """The cells of a column; None if no row has it."""
    value, setting = name.removeprefix(f"{VALUE}."), name.removeprefix("override.")
    if any(name in row.values for row in rows):
        return [row.values.get(name) for row in rows]
    if any(name in row.settings for row in rows):
        return [row.settings.get(name) for row in rows]
    if value != name and any(value in row.values for row in rows):
        return [row.values.get(value) for row in rows]
    if setting != name and any(setting in row.settings for row in rows):
        return [row.settings.get(setting) for row in rows]
    return [_FIXED[name](row.job) for row in rows] if name in _FIXED else None


def _names(all_cells: Iterable[dict[str, Cell]]) -> list[str]:
    names: dict[str, None] = {}
    for cells in all_cells:
        for name in cells:
            if name not in names and len(names) < MAX_NAMES:
                names[name] = None
    return list(names)


def _varies(rows: Sequence[dict[str, Cell]], name: str) -> bool:
    first = _identity(rows[0], name)
    return any(_identity(cells, name) != first for cells in rows)


def _identity(cells: dict[str, Cell], name: str) -> tuple[bool, str, str]:
    cell = cells.get(name)
    return name in cells, type(cell).__name__, repr(cell)
