"""Two runs side by side: jobs that were set alike are a pair.

Rule: what is the same in all jobs of each run does not keep jobs apart. So the same sweep with another constant is compared job by job, and the
constant is named.
"""

from __future__ import annotations

from collections import defaultdict, deque

from launcher.tables.cells import Cell, is_number
from launcher.tables.files import value_column
from launcher.tables.table import Row, Table
from launcher.util.frozen import frozen

__all__ = ["Comparison", "Pair", "change", "compare", "comparison_columns"]


@frozen
class Pair:
    """Two jobs that were set alike; None where a run has no such job."""

    settings: dict[str, Cell]
    first: Row | None
    second: Row | None


@frozen
class Comparison:
    """Two runs.

    Attributes:
        constants: what is the same in all jobs of each run, and differs between the runs, or is None in one of them.
        names: what varies in one of the runs.
        pairs: in the order of the first run's jobs; those that only the second has come last.
    """

    first: Table
    second: Table
    constants: dict[str, tuple[Cell, Cell]]
    names: list[str]
    pairs: list[Pair]

    @property
    def values(self) -> list[str]:
        """The names of the values of both runs."""
        return list(dict.fromkeys((*self.first.values, *self.second.values)))


def compare(first: Table, second: Table) -> Comparison:
    """Compare two runs."""
    names = list(dict.fromkeys((*first.varying, *second.varying)))
    constants = {}
    for name in dict.fromkeys((*first.settings, *second.settings)):
        cells = tuple(table.rows[0].settings.get(name) if table.rows else None for table in (first, second))
        if name not in names and _identity(cells[0]) != _identity(cells[1]):
            constants[name] = (cells[0], cells[1])
    waiting: defaultdict[tuple[object, ...], deque[Row]] = defaultdict(deque)
    for row in second.rows:
        waiting[_key(row, names)].append(row)
    pairs = []
    for row in first.rows:
        others = waiting[_key(row, names)]
        pairs.append(Pair(_settings(row, names), row, others.popleft() if others else None))
    left = sorted((row for rows in waiting.values() for row in rows), key=lambda row: row.job.num)
    return Comparison(
        first, second, constants, names, [*pairs, *(Pair(_settings(row, names), None, row) for row in left)]
    )


def change(pair: Pair, name: str) -> Cell:
    """How much a number is greater in the second run; None if it is not a number in both."""
    before, after = (row.values.get(name) if row is not None else None for row in (pair.first, pair.second))
    return after - before if is_number(before) and is_number(after) else None  # type: ignore[operator]


def comparison_columns(comparison: Comparison) -> dict[str, list[Cell]]:
    """The pairs as columns; `_1` is the first run and `_2` the second."""
    columns: dict[str, list[Cell]] = {
        f"override.{name}": [pair.settings.get(name) for pair in comparison.pairs] for name in comparison.names
    }
    for number in (1, 2):
        rows = [pair.first if number == 1 else pair.second for pair in comparison.pairs]
        columns[f"job_{number}"] = [None if row is None else row.job.num for row in rows]
        columns[f"state_{number}"] = [None if row is None else row.job.state for row in rows]
        columns[f"duration_{number}"] = [None if row is None else row.job.duration for row in rows]
        for name in comparison.values:
            columns[f"{value_column(name)}_{number}"] = [None if row is None else row.values.get(name) for row in rows]
    for name in comparison.values:
        columns[f"change.{name}"] = [change(pair, name) for pair in comparison.pairs]
    return columns


def _settings(row: Row, names: list[str]) -> dict[str, Cell]:
    return {name: row.settings[name] for name in names if name in row.settings}


def _key(row: Row, names: list[str]) -> tuple[object, ...]:
    return tuple((name in row.settings, _identity(row.settings.get(name))) for name in names)


def _identity(cell: Cell) -> object:
    # 1 and 1.0 are the same, and True is another.
    return ("number", cell) if is_number(cell) else (type(cell).__name__, repr(cell))
