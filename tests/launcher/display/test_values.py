"""The columns of values, and the lines about the best jobs."""

from __future__ import annotations

from pathlib import Path

from launcher.display.values import best_lines, value_cells, value_names
from launcher.tables.table import Table, sort_rows
from tests.journals import MadeJob, table_of


def sweep(folder: Path) -> Table:
    """Three jobs."""
    return table_of(folder, [MadeJob([f"lr={lr}", "seed=1"], {"loss": loss}) for lr, loss in ((1, 3), (2, 1), (3, 2))])


def lines(table: Table, sort: str = "") -> list[str]:
    """The lines when jobs are sorted so."""
    return best_lines(table, sort_rows(table.rows, sort) if sort else table.rows, sort)


def test_without_a_direction_both_ends_are_shown(tmp_path: Path) -> None:
    """Whether less or more is better is not guessed. What varies says which job it is."""
    assert lines(sweep(tmp_path)) == ["loss: lowest 1 in job 1 (lr=2), highest 3 in job 0 (lr=1)"]


def test_with_a_direction_the_best_is_named(tmp_path: Path) -> None:
    """The first in that order."""
    table = sweep(tmp_path)
    assert lines(table, "loss") == ["best by loss: 1 in job 1 (lr=2)"]
    assert lines(table, "-value.loss") == ["best by -value.loss: 3 in job 0 (lr=1)"]
    assert "lowest" in lines(table, "lr")[0]


def test_columns_are_few_and_have_the_one_that_is_sorted_by(tmp_path: Path) -> None:
    """The others are counted."""
    table = table_of(tmp_path, [MadeJob(value={"text": "t" * 100, **{f"n{index}": index for index in range(9)}})])
    assert value_names(table) == ["n0", "n1", "n2", "n3", "n4", "n5"]
    assert value_names(table, "-n8") == ["n8", "n0", "n1", "n2", "n3", "n4"]
    assert lines(table) == [f"... and 4 more values ('launcher table {table.status.run}' has all)"]
    assert value_cells(table.rows[0], ["text", "none"]) == ["t" * 37 + "...", ""]


def test_values_that_were_not_read_are_counted(tmp_path: Path) -> None:
    """With the reason."""
    assert lines(table_of(tmp_path, [MadeJob(value=1), MadeJob(value=2)], results="never")) == [
        "no values of 2 jobs: results=never"
    ]
