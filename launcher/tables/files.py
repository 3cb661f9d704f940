"""Tables for other programs: CSV, JSON, Parquet, and a DataFrame of pandas.

Rule: a column has the same name in each: what was set is `override.NAME`, and what came back `value.NAME`, or `value` for a single one. In CSV, a
text from a host is no formula for a spreadsheet.
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from launcher.errors import UsageError
from launcher.tables.cells import VALUE, Cell, cell_text, json_cell
from launcher.tables.table import USED, Row, Table, used_cell

__all__ = ["Columns", "columns_of", "csv_bytes", "dataframe", "json_rows", "parquet_bytes"]

#: The cells of each column, by its name.
Columns = Mapping[str, Sequence[Cell]]

#: Columns with seconds since the epoch.
TIMES = ("started", "ended")
#: What a spreadsheet takes for the begin of a formula, also in its wide form.
_FORMULA = tuple("=+-@\t\r＝＋－＠")  # noqa: RUF001 - these are the wide forms
_EXTRA = "pip install 'hydra-remote-launcher[tables]'"
_FIXED: dict[str, Callable[[Row], Cell]] = {
    "job": lambda row: row.job.num,
    "state": lambda row: row.job.state,
    "host": lambda row: row.job.host or None,
    "attempt": lambda row: row.job.attempt,
    "started": lambda row: row.job.attempts[-1].started_at if row.job.attempts else None,
    "ended": lambda row: row.job.attempts[-1].ended_at if row.job.attempts else None,
    "duration": lambda row: row.job.duration,
    **{name: functools.partial(used_cell, name=name) for name in USED},
    "error": lambda row: _error(row, "kind"),
    "error_type": lambda row: _error(row, "type"),
    "error_message": lambda row: _error(row, "message"),
}


def _error(row: Row, name: str) -> Cell:
    text = str((row.job.error or {}).get(name) or "")
    return text[:500] or None


def columns_of(tables: Sequence[Table]) -> dict[str, list[Cell]]:
    """The rows of these runs as columns: the run, what every job has, then what was set, then what came back."""
    rows = [(table, row) for table in tables for row in table.rows]
    columns: dict[str, list[Cell]] = {"run": [table.status.run for table, _ in rows]}
    for name, get in _FIXED.items():
        columns[name] = [get(row) for _, row in rows]
    for name in dict.fromkeys(name for table in tables for name in table.settings):
        columns[f"override.{name}"] = [row.settings.get(name) for _, row in rows]
    for name in dict.fromkeys(name for table in tables for name in table.values):
        columns[value_column(name)] = [row.values.get(name) for _, row in rows]
    return columns


def value_column(name: str) -> str:
    """The name of a value's column."""
    return name if name == VALUE else f"{VALUE}.{name}"


def csv_bytes(columns: Columns) -> bytes:
    """The columns as CSV in UTF-8. Times are in UTC. A text that a spreadsheet would take for a formula has an apostrophe before it."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_csv_cell(name) for name in columns])
    texts = [[_csv_cell(cell, is_time=name in TIMES) for cell in cells] for name, cells in columns.items()]
    writer.writerows(zip(*texts, strict=True))
    return stream.getvalue().encode("utf-8", "backslashreplace")


def _csv_cell(cell: Cell, *, is_time: bool = False) -> str:
    if type(cell) is str:
        return f"'{cell}" if cell.startswith(_FORMULA) else cell
    if is_time and isinstance(cell, (int, float)):
        return _time(cell).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    # A float with all its digits.
    return repr(cell) if type(cell) is float else cell_text(cell)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def json_rows(table: Table) -> list[dict[str, Any]]:
    """The rows of a run as plain data for JSON."""
    return [
        {
            "run": table.status.run,
            **{name: get(row) for name, get in _FIXED.items()},
            "overrides": list(row.job.overrides),
            "settings": {name: json_cell(cell) for name, cell in row.settings.items()},
            "values": {name: json_cell(cell) for name, cell in row.values.items()},
        }
        for row in table.rows
    ]


def parquet_bytes(columns: Columns) -> bytes:
    """The columns as a Parquet file.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UsageError(f"--parquet needs pyarrow: {_EXTRA}") from None
    types = {
        "bool": pa.bool_(),
        "int": pa.int64(),
        "float": pa.float64(),
        "text": pa.string(),
        "time": pa.timestamp("us", tz="UTC"),
    }
    arrays = {}
    for name, cells in columns.items():
        kind, typed = _typed(name, cells)
        if kind == "time":
            typed = [None if cell is None else _time(cell) for cell in typed]
        arrays[name] = pa.array(typed, types[kind])
    stream = io.BytesIO()
    pq.write_table(pa.table(arrays), stream)
    return stream.getvalue()


def dataframe(columns: Columns) -> Any:
    """The columns as a DataFrame of pandas.

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise UsageError(f"a DataFrame needs pandas: {_EXTRA}") from None
    made = {}
    for name, cells in columns.items():
        kind, typed = _typed(name, cells)
        if kind == "time":
            made[name] = pd.to_datetime(pd.Series(typed, dtype="float64"), unit="s", utc=True)
            continue
        # The first of two is for a column without a missing cell.
        whole, partly = {"bool": ("bool", "boolean"), "int": ("int64", "Int64")}.get(kind, ("", ""))
        dtype = "float64" if kind == "float" else (partly if None in typed else whole) or "object"
        made[name] = pd.Series(typed, dtype=dtype)
    return pd.DataFrame(made)


def _typed(name: str, cells: Sequence[Cell]) -> tuple[str, list[Any]]:
    """The one type of a column, and its cells in this type. A column of numbers and texts is one of texts."""
    if name in TIMES:
        return "time", list(cells)
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds == {bool}:
        return "bool", list(cells)
    if kinds == {int} and all(cell is None or -(1 << 63) <= cell < 1 << 63 for cell in cells):  # type: ignore[operator]
        return "int", list(cells)
    if kinds and kinds <= {int, float}:
        return "float", [None if cell is None else float(cell) for cell in cells]
    return "text", [None if cell is None else cell if type(cell) is str else _csv_cell(cell) for cell in cells]
