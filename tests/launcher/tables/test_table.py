"""The table of a run, from its journal alone."""

from __future__ import annotations

import math
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import JournalError, UsageError
from launcher.runs.index import Entry
from launcher.runs.journal_format import FOLDER
from launcher.tables.table import Table, read_table, sort_rows
from remote_agent.protocol.result_parts import PICKLED
from tests.journals import MadeJob, make_run, table_of


def nums(table: Table, by: str) -> list[int]:
    """The jobs in this order."""
    return [row.job.num for row in sort_rows(table.rows, by)]


def losses(*values: Any) -> list[MadeJob]:
    """A job that returned each of these."""
    return [MadeJob([f"lr={index}", "seed=1"], value) for index, value in enumerate(values)]


def test_a_row_has_what_was_set_and_what_came_back(tmp_path: Path) -> None:
    """Of jobs of any state. What is the same in all jobs does not vary."""
    jobs = [
        MadeJob(["lr=0.1", "seed=1"], {"loss": 0.5, "name": "a"}),
        MadeJob(["lr=0.2", "seed=1"], state="FAILED"),
        MadeJob(["lr=0.3", "seed=1", "+extra=2"], state="running"),
        MadeJob(["lr=0.4", "seed=1"], state="waiting"),
    ]
    table = table_of(tmp_path, jobs, end="")
    assert [row.job.state for row in table.rows] == ["COMPLETED", "FAILED", "running", "waiting"]
    assert table.rows[2].settings == {"lr": 0.3, "seed": 1, "extra": 2}
    assert [row.values for row in table.rows] == [{"loss": 0.5, "name": "a"}, {}, {}, {}]
    assert (table.varying, table.values, table.status.state) == (["lr", "extra"], ["loss", "name"], "died")


@pytest.mark.parametrize(("end", "state"), [("ended", "completed"), ("detached", "detached"), ("", "died")])
def test_runs_of_every_state_have_a_table(tmp_path: Path, end: str, state: str) -> None:
    """Nobody is asked for what the journal has."""
    table = table_of(tmp_path, losses(1, 2), end=end)
    assert (table.status.state, [row.values for row in table.rows]) == (state, [{"value": 1}, {"value": 2}])


def test_a_damaged_journal_is_refused_by_name(tmp_path: Path) -> None:
    """As by every command."""
    entry = make_run(tmp_path, losses(*range(50)))
    path = tmp_path / FOLDER / "journal.sqlite"
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data), 100):
        data[at] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(JournalError, match="damaged"):
        read_table(entry)


class Planted:
    """A value whose pickle makes a folder when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def test_no_pickle_is_opened(tmp_path: Path) -> None:
    """Under every policy. The plain form beside a pickle is read, and a pickle without one is not known."""
    planted = tmp_path / "planted"
    plain = table_of(tmp_path / "1", [MadeJob(value={"loss": 1.5}, codec=PICKLED)], results="trusted")
    assert plain.rows[0].values == {"loss": 1.5}
    hostile = MadeJob(value=0, data=pickle.dumps(Planted(planted)), codec="cloudpickle")
    bare = table_of(tmp_path / "2", [hostile], results="trusted")
    assert bare.rows[0].values == {"value": 0}
    as_plain = MadeJob(data=pickle.dumps(Planted(planted)))
    assert list(table_of(tmp_path / "3", [as_plain], results="safe").unread.values()) == [1]
    assert not planted.exists()


def test_under_never_no_value_is_decoded(tmp_path: Path) -> None:
    """It says so."""
    table = table_of(tmp_path, losses(1.0, 2.0), results="never")
    assert ([row.values for row in table.rows], table.unread) == ([{}, {}], {"results=never": 2})


def test_the_value_is_that_of_the_last_attempt(tmp_path: Path) -> None:
    """The attempts before it are counted."""
    table = table_of(tmp_path, [MadeJob(value=7, earlier=("gpu2", "gpu3"))])
    (row,) = table.rows
    assert (row.job.attempt, row.job.host, row.values) == (3, "gpu1", {"value": 7})


def test_rows_are_sorted_by_a_value(tmp_path: Path) -> None:
    """Numbers before texts, NaN and what is missing last in both directions; equal ones keep their order."""
    table = table_of(
        tmp_path, losses(*({"x": x} for x in (2.0, math.nan, -math.inf, "b", 1, None, math.inf, "a", True, 1)))
    )
    assert nums(table, "x") == [2, 4, 8, 9, 0, 6, 7, 3, 1, 5]
    assert nums(table, "-x") == [6, 0, 4, 8, 9, 2, 3, 7, 1, 5]


@pytest.mark.parametrize("by", ["lr", "-lr", "override.lr", "job", "-time", "host", "state", "value.loss", "loss"])
def test_rows_are_sorted_by_any_column(tmp_path: Path, by: str) -> None:
    """By what was set, too, and by what every job has."""
    jobs = [MadeJob([f"lr={index}"], {"loss": index}, host=f"gpu{index}", duration=1 + index) for index in range(3)]
    assert nums(table_of(tmp_path, jobs), by) == ([2, 1, 0] if by.startswith("-") else [0, 1, 2])


def test_an_unknown_column_is_refused_with_the_nearest(tmp_path: Path) -> None:
    """Or with all that there are."""
    table = table_of(tmp_path, losses({"loss": 1}))
    with pytest.raises(UsageError, match="did you mean 'loss'"):
        sort_rows(table.rows, "-los")
    with pytest.raises(UsageError, match="there is loss, lr, seed, job, host"):
        sort_rows(table.rows, "zzzzzz")


def test_the_extremes_are_of_numbers_that_differ(tmp_path: Path) -> None:
    """Not of NaN, texts or what is the same everywhere."""
    values = [{"same": 1, "loss": 3, "name": "a"}, {"same": 1, "loss": math.nan}, {"same": 1, "loss": -1, "name": "b"}]
    (one,) = table_of(tmp_path, losses(*values)).extremes()
    assert (one.name, one.lowest.job.num, one.highest.job.num) == ("loss", 2, 0)


def test_a_table_has_a_bounded_number_of_names(tmp_path: Path) -> None:
    """A hostile host lets each job return other ones."""
    table = table_of(tmp_path, [MadeJob(value={f"{num}.{index}": 1 for index in range(100)}) for num in range(20)])
    assert len(table.values) == 500


def test_a_value_that_was_altered_is_not_read(tmp_path: Path) -> None:
    """Its digest tells. The other jobs have theirs."""
    entry = make_run(tmp_path, losses(1, 2))
    import sqlite3

    with sqlite3.connect(tmp_path / FOLDER / "journal.sqlite") as connection:
        connection.execute("update results set payload = cast('x' || substr(payload, 2) as blob) where num = 0")
    table = read_table(entry)
    assert [row.values for row in table.rows] == [{}, {"value": 2}]
    assert "altered" in next(iter(table.unread))


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_jobs_have_a_table(tmp_path: Path, count: int) -> None:
    """Each with its own value, in the order of the jobs."""
    table = table_of(tmp_path, [MadeJob([f"x={num}"], {"y": num * num}) for num in range(count)])
    assert [row.values["y"] for row in table.rows] == [num * num for num in range(count)]
    assert nums(table, "-y")[0] == count - 1


def test_a_run_whose_folder_is_gone_is_said(tmp_path: Path) -> None:
    """There is nothing to read."""
    with pytest.raises(Exception, match=r"holds no run"):
        read_table(Entry("20231114-221320-gone", tmp_path / "gone", 1.0))


def test_jobs_are_sorted_by_what_they_used(tmp_path: Path) -> None:
    """A run of an earlier version has nothing of it, and jobs of which it is not known come last."""
    jobs = [
        MadeJob(used=used)
        for used in ({"peak_memory": 5}, None, {"peak_memory": 7, "cpu_seconds": 1.5}, {"peak_memory": "x"})
    ]
    table = table_of(tmp_path, jobs)
    assert nums(table, "-peak_memory") == [2, 0, 1, 3]
    assert nums(table, "cpu_seconds") == [2, 0, 1, 3]
    assert table.rows[1].job.resources_used is None
    assert table.rows[1].job.to_json()["resources_used"] is None
    assert table.rows[2].job.to_json()["resources_used"]["peak_memory"] == 7
    assert table.rows[3].job.attempts[0].to_json()["resources_used"]["peak_memory"] is None
