"""Tables as files for other programs."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import launcher
from launcher.errors import UsageError
from launcher.tables.files import columns_of, csv_bytes, dataframe, json_rows, parquet_bytes
from launcher.tables.table import Table
from tests.journals import START, MadeJob, failure, table_of


@pytest.fixture
def mixed(tmp_path: Path) -> Table:
    """Values of every type, some of them missing."""
    jobs = [
        MadeJob(["lr=0.1"], {"loss": 0.1 + 0.2, "n": 1, "ok": True, "odd": 1, "big": 1 << 70, "text": "a"}),
        MadeJob(["lr=0.2"], {"loss": math.nan, "n": 2, "ok": False, "odd": "x", "big": 1, "text": 'b,"c"'}),
        MadeJob(["lr=0.3"], {"loss": math.inf}),
        MadeJob(["lr=4"], state="FAILED", error=failure(message="no, never")),
        MadeJob(["lr=5"], state="waiting"),
    ]
    return table_of(tmp_path / "mixed", jobs, end="")


def rows_of(data: bytes) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(data.decode())))


def test_csv_has_a_column_for_all_that_is_known(mixed: Table) -> None:
    """Numbers have all their digits, times are in UTC, and what is missing is empty."""
    first, second, third, failed, waiting = rows_of(csv_bytes(columns_of([mixed])))
    assert (first["run"], first["job"], first["state"], first["host"]) == (mixed.status.run, "0", "COMPLETED", "gpu1")
    assert (first["started"], first["duration"]) == ("2023-11-14T22:13:21.000Z", "2.0")
    assert (first["override.lr"], first["value.loss"], first["value.ok"]) == ("0.1", "0.30000000000000004", "true")
    assert (second["value.loss"], third["value.loss"], second["value.text"]) == ("nan", "inf", 'b,"c"')
    assert (failed["error"], failed["error_type"], failed["error_message"]) == (
        "exception",
        "ZeroDivisionError",
        "no, never",
    )
    assert (failed["value.loss"], waiting["started"], waiting["attempt"]) == ("", "", "0")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+1", "@SUM(A1)", "＝1", "=cmd|' /C calc'!A0"])  # noqa: RUF001 - a wide one
def test_a_text_of_a_host_is_no_formula(tmp_path: Path, text: str) -> None:
    """Neither in a cell nor in the name of a column. Numbers stay numbers."""
    table = table_of(tmp_path, [MadeJob([f"x={text}"], {text: text, "low": -1.5}, state="COMPLETED")])
    data = csv_bytes(columns_of([table]))
    (row,) = rows_of(data)
    assert row[f"value.{text}"] == f"'{text}"
    assert not row["override.x"].startswith(tuple("=+-@＝"))  # noqa: RUF001 - a wide one
    assert row["value.low"] == "-1.5"
    for cell in next(csv.reader(io.StringIO(data.decode()))):
        assert not cell.startswith(tuple("=+-@＝"))  # noqa: RUF001 - a wide one


def test_lines_and_separators_stay_in_their_cell(tmp_path: Path) -> None:
    """Of a hostile host."""
    table = table_of(tmp_path, [MadeJob(value={"a\r\n,b": '"\r\nx,y;\t\x00\ud800'}), MadeJob(value={})])
    header, first, second = list(csv.reader(io.StringIO(csv_bytes(columns_of([table])).decode(), newline="")))
    assert len(header) == len(first) == len(second)
    assert not any("\n" in cell or "\r" in cell for cell in (*header, *first))


def test_json_has_no_number_that_json_lacks(mixed: Table) -> None:
    """NaN and infinities are texts."""
    rows = json.loads(json.dumps(json_rows(mixed), allow_nan=False))
    assert [row["values"].get("loss") for row in rows] == [0.1 + 0.2, "NaN", "Infinity", None, None]
    assert rows[0]["settings"] == {"lr": 0.1}
    assert (rows[0]["overrides"], rows[3]["error_type"]) == (["lr=0.1"], "ZeroDivisionError")


def test_parquet_has_a_type_for_each_column(mixed: Table, tmp_path: Path) -> None:
    """A column of numbers and texts is text, and one of numbers beyond 64 bits is of floats."""
    path = tmp_path / "table.parquet"
    path.write_bytes(parquet_bytes(columns_of([mixed])))
    read = pq.read_table(path)
    types = {field.name: field.type for field in read.schema}
    assert (types["job"], types["value.loss"], types["value.ok"], types["value.odd"]) == (
        pa.int64(), pa.float64(), pa.bool_(), pa.string(),
    )  # fmt: skip
    assert types["started"] == pa.timestamp("us", tz="UTC")
    assert read["value.odd"].to_pylist() == ["1", "x", None, None, None]
    assert read["value.big"].to_pylist()[0] == float(1 << 70)
    assert read["started"].to_pylist()[0].timestamp() == START + 1


def test_a_dataframe_has_the_same_columns(mixed: Table) -> None:
    """With dtypes to compute with."""
    columns = columns_of([mixed])
    frame = dataframe(columns)
    assert list(frame) == list(columns)
    assert (str(frame["job"].dtype), str(frame["value.n"].dtype), str(frame["value.ok"].dtype)) == (
        "int64",
        "Int64",
        "boolean",
    )
    assert frame["value.loss"].dtype == "float64"
    assert str(frame["started"].dtype).endswith("UTC]")
    assert frame["value.odd"].tolist()[:2] == ["1", "x"]
    assert pd.isna(frame["value.text"][3])


def test_several_runs_are_one_table(tmp_path: Path) -> None:
    """The column `run` tells them apart, and each name has one column."""
    tables = [
        table_of(tmp_path / name, [MadeJob([f"{name}=1", "x=2"], {"loss": 1})], run=f"20231114-221320-{name}")
        for name in ("aaaa", "bbbb")
    ]
    first, second = rows_of(csv_bytes(columns_of(tables)))
    assert (first["run"][-4:], second["run"][-4:]) == ("aaaa", "bbbb")
    assert (first["override.aaaa"], second["override.aaaa"], second["override.x"]) == ("1", "", "2")


@pytest.mark.parametrize(("module", "write"), [("pyarrow", parquet_bytes), ("pandas", dataframe)])
def test_a_missing_library_is_named_with_its_extra(module: str, write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a user can install it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"{module}: pip install 'hydra-remote-launcher\[tables\]'"):
        write({"job": [1]})


@pytest.mark.slow
def test_job_returns_become_a_dataframe(tmp_path: Path) -> None:
    """With what came back as plain data, while no pickle is opened: here, under the policy that allows it."""

    def task(config: Any) -> Any:
        return {"loss": config.x * 2}

    returns = launcher.multirun(task, [{"x": 1}, {"x": 2}], overrides=[["x=1"], ["x=2"]], folder=tmp_path / "run")
    frame = returns.to_dataframe()
    assert frame["value.loss"].tolist() == [2, 4]
    assert frame["override.x"].tolist() == [1, 2]
    assert frame["state"].tolist() == ["COMPLETED", "COMPLETED"]


def test_what_jobs_used_has_columns(tmp_path: Path) -> None:
    """In bytes and seconds; what is not known is missing, and not 0."""
    jobs = [MadeJob(used={"cpu_seconds": 1.5, "peak_memory": 1 << 40, "gpu_share": 0.5, "bytes_out": 0}), MadeJob()]
    columns = columns_of([table_of(tmp_path, jobs)])
    first, second = rows_of(csv_bytes(columns))
    names = ("cpu_seconds", "peak_memory", "gpu_share", "peak_gpu_memory", "bytes_in", "bytes_out")
    assert [first[name] for name in names] == ["1.5", "1099511627776", "0.5", "", "", "0"]
    assert [second[name] for name in names] == [""] * 6
    frame = dataframe(columns)
    assert (frame.peak_memory[0], frame.peak_memory.isna().tolist()) == (1 << 40, [False, True])
