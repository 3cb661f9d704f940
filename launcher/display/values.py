"""What came back from jobs, beside what they are: columns of a table, and the lines that say which job was best.

Rule: whether less or more is better is the user's word (`--sort`). Without it, both ends are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from launcher.display.text import clean_line, shorten
from launcher.tables.cells import cell_text
from launcher.tables.table import Row, Table

__all__ = ["MAX_COLUMNS", "best_lines", "set_text", "unread_lines", "value_cells", "value_names"]

#: How many values have a column on a terminal.
MAX_COLUMNS = 6


def value_names(table: Table, sort: str = "") -> list[str]:
    """The values that have a column; the one that is sorted by is among them."""
    names = table.values
    by = _sorted_by(table, sort)
    first = [by] if by and names.index(by) >= MAX_COLUMNS else []
    return [*first, *names][:MAX_COLUMNS]


def value_cells(row: Row | None, names: Sequence[str]) -> list[str]:
    """The cells of a row in these columns."""
    return [shorten(cell_text(row.values.get(name)), 40) if row is not None else "" for name in names]


def set_text(row: Row, names: Sequence[str]) -> str:
    """What was set in a job, of these names."""
    return clean_line(" ".join(f"{name}={cell_text(row.settings[name])}" for name in names if name in row.settings))


def best_lines(table: Table, ordered: Sequence[Row], sort: str = "", shown: int = MAX_COLUMNS) -> list[str]:
    """Lines about the best jobs.

    Args:
        ordered: the rows in the order of `sort`.
        shown: how many values have a column beside these lines.
    """
    varying = table.varying
    lines = []
    by = _sorted_by(table, sort)
    if by and ordered and ordered[0].values.get(by) is not None:
        lines.append(f"best by {sort}: {_named(ordered[0], by, varying)}")
    elif not by:
        lines += [
            f"{one.name}: lowest {_named(one.lowest, one.name, varying)}, highest {_named(one.highest, one.name, varying)}"
            for one in table.extremes()
        ]
    left_out = len(table.values) - shown
    if left_out > 0:
        lines.append(f"... and {left_out} more values ('launcher table {table.status.run}' has all)")
    return [*lines, *unread_lines(table.unread)]


def unread_lines(unread: Mapping[str, int]) -> list[str]:
    """Lines about values that could not be read."""
    return [f"no values of {jobs:,} jobs: {why}" for why, jobs in list(unread.items())[:5] if jobs]


def _named(row: Row, name: str, varying: Sequence[str]) -> str:
    settings = set_text(row, varying)
    return f"{cell_text(row.values.get(name))} in job {row.job.num}" + (
        f" ({shorten(settings, 100)})" if settings else ""
    )


def _sorted_by(table: Table, sort: str) -> str:
    name = sort.removeprefix("-")
    return next((one for one in (name, name.removeprefix("value.")) if one in table.values), "")
