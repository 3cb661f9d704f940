"""`launcher table`: the rows of runs for other programs, and two runs side by side.

Rule: what goes to stdout is the table and nothing else. A file is there whole, or as it was.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from launcher.cli import arguments, completion
from launcher.cli.parameters import Argument, Option
from launcher.errors import UsageError
from launcher.util.text.terminal_text import clean_line

if TYPE_CHECKING:
    from launcher.tables.files import Columns
    from launcher.tables.side_by_side import Comparison
    from launcher.tables.table import Table

__all__ = ["table"]

_Runs = Annotated[
    list[str] | None,
    Argument(
        metavar="[RUN...]",
        help="The runs: their ids or the beginning of these, their folders, or `last`.",
        autocompletion=completion.runs,
    ),
]
_Csv = Annotated[bool, Option("--csv", help="Write CSV.")]
_Parquet = Annotated[bool, Option("--parquet", help="Write a Parquet file; this needs the extra `tables`.")]
_Compare = Annotated[
    bool, Option("--compare", help="Show two runs side by side: jobs with the same overrides in one row.")
]
_Into = Annotated[
    Path | None,
    Option("--output", "-o", metavar="FILE", help="Write into this file instead of stdout.", show_default=False),
]
_COMPARED = 2
#: How many values have columns on a terminal when two runs are compared.
_VALUES_COMPARED = 3


def table(
    runs: _Runs = None,
    is_csv: _Csv = False,
    is_json: arguments.Json = False,
    is_parquet: _Parquet = False,
    is_comparison: _Compare = False,
    sort: arguments.Sort = None,
    into: _Into = None,
) -> None:
    """Write a row for each job of each RUN: what its overrides set, its state and times, and the numbers and texts that it returned."""
    from launcher.display.values import unread_lines
    from launcher.runs import index
    from launcher.tables.table import Table, read_table, sort_rows

    form = _form([name for name, is_on in (("csv", is_csv), ("json", is_json), ("parquet", is_parquet)) if is_on], into)
    names = runs or ["last"]
    if is_comparison and len(names) != _COMPARED:
        raise UsageError(f"--compare takes two runs, and {len(names)} {'was' if len(names) == 1 else 'were'} named")
    tables = [read_table(index.find(name)) for name in names]
    if sort is not None:
        tables = [Table(one.status, sort_rows(one.rows, sort), one.unread) for one in tables]
    if is_comparison:
        from launcher.tables.side_by_side import compare

        comparison = compare(*tables)
        if form:
            _write(_comparison_data(comparison, form), into)
        else:
            _print_comparison(comparison)
    elif form:
        _write(_data(tables, form), into)
    else:
        for one in tables:
            _print(one, sort or "")
    for line in (line for one in tables for line in unread_lines(one.unread)):
        print(f"launcher: {line}", file=sys.stderr)


def _form(given: list[str], into: Path | None) -> str:
    """The form to write, which the name of the file may say, too; empty for a table that people read."""
    if len(given) > 1:
        raise UsageError(f"--{' and --'.join(given)}: give one of them")
    ending = into.suffix.removeprefix(".").lower() if into is not None else ""
    form = given[0] if given else ending if ending in ("csv", "json", "parquet") else ""
    if into is not None and not form:
        raise UsageError(f"--output {clean_line(into)}: say what to write there, --csv, --json or --parquet")
    if form == "parquet" and into is None and sys.stdout.isatty():
        raise UsageError("--parquet: name a file with --output, because a terminal cannot show it")
    return form


def _data(tables: list[Table], form: str) -> bytes:
    from launcher.tables import files

    if form != "json":
        return _columns_data(files.columns_of(tables), form)
    return _json_bytes(
        runs=[one.status.to_json() for one in tables],
        jobs=[row for one in tables for row in files.json_rows(one)],
        unread={one.status.run: one.unread for one in tables if one.unread},
    )


def _comparison_data(comparison: Comparison, form: str) -> bytes:
    from launcher.tables.cells import json_cell
    from launcher.tables.side_by_side import comparison_columns

    columns = comparison_columns(comparison)
    if form != "json":
        return _columns_data(columns, form)
    return _json_bytes(
        runs=[one.status.to_json() for one in (comparison.first, comparison.second)],
        constants={name: [json_cell(cell) for cell in cells] for name, cells in comparison.constants.items()},
        pairs=[dict(zip(columns, map(json_cell, cells), strict=True)) for cells in zip(*columns.values(), strict=True)],
    )


def _columns_data(columns: Columns, form: str) -> bytes:
    from launcher.tables import files

    return files.csv_bytes(columns) if form == "csv" else files.parquet_bytes(columns)


def _json_bytes(**content: Any) -> bytes:
    return (json.dumps({"version": arguments.VERSION, **content}, indent=2, allow_nan=False) + "\n").encode()


def _write(data: bytes, into: Path | None) -> None:
    if into is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    arguments.write_output(into, data)


def _print(table: Table, sort: str) -> None:
    from launcher.display.table import Column, print_table, styled
    from launcher.display.text import count, seconds
    from launcher.display.usage import usage_columns
    from launcher.display.values import best_lines, set_text, value_cells

    status, names, varying = table.status, table.values, table.varying
    used = usage_columns((row.job.resources_used for row in table.rows), ("cpu_seconds", "peak_memory", "gpu_share"))
    print(styled(f"run {status.run}: {status.state}, {count(status.jobs, 'job')}", "bold", sys.stdout))
    columns = [
        Column("job", is_number=True),
        Column("state"),
        Column("time", is_number=True),
        *(Column(name, is_number=True) for name, _, _ in used),
        *(Column(name, is_number=True) for name in names),
        Column("overrides", may_fold=True),
    ]
    rows = [
        (
            [
                str(row.job.num),
                row.job.state,
                seconds(row.job.duration),
                *(texts[place] for _, _, texts in used),
                *value_cells(row, names),
                set_text(row, varying),
            ],
            "",
        )
        for place, row in enumerate(table.rows)
    ]
    print_table(columns, rows, sys.stdout)
    for line in best_lines(table, table.rows, sort, len(names)):
        print(line)


def _print_comparison(comparison: Comparison) -> None:
    from launcher.display.table import Column, print_table, styled
    from launcher.display.text import clean_line
    from launcher.display.values import value_cells
    from launcher.tables.cells import cell_text
    from launcher.tables.side_by_side import change

    for number, one in enumerate((comparison.first, comparison.second), 1):
        print(styled(f"{number}: run {one.status.run}: {one.status.state}", "bold", sys.stdout))
    for name, (before, after) in comparison.constants.items():
        print(
            clean_line(
                f"{name}: {cell_text(before) or 'not set'} in all jobs of 1, {cell_text(after) or 'not set'} of 2"
            )
        )
    names = comparison.values[:_VALUES_COMPARED]
    columns = [
        *(Column(name, is_number=True) for name in ("job 1", "job 2")),
        *(Column(name) for name in ("state 1", "state 2")),
        *(Column(text, is_number=True) for name in names for text in (f"{name} 1", f"{name} 2", "change")),
        Column("overrides", may_fold=True),
    ]
    rows = []
    for pair in comparison.pairs:
        both = (pair.first, pair.second)
        values = zip(*(value_cells(row, names) for row in both), (change(pair, name) for name in names), strict=True)
        cells = [
            *("-" if row is None else str(row.job.num) for row in both),
            *("-" if row is None else row.job.state for row in both),
            *(cell if type(cell) is str else cell_text(cell) for three in values for cell in three),
            clean_line(" ".join(f"{name}={cell_text(cell)}" for name, cell in pair.settings.items())),
        ]
        rows.append((cells, ""))
    print_table(columns, rows, sys.stdout)
    left_out = len(comparison.values) - len(names)
    if left_out:
        print(f"... and {left_out} more values (--csv, --json)")
