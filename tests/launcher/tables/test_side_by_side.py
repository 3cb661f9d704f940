"""Two runs side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher.tables.side_by_side import Comparison, change, compare, comparison_columns
from tests.journals import MadeJob, table_of

Jobs = Sequence[tuple[Sequence[str], Any]]


def compared(folder: Path, first: Jobs, second: Jobs) -> Comparison:
    """Runs of these overrides and values."""
    tables = [
        table_of(folder / str(number), [MadeJob(overrides, value) for overrides, value in jobs])
        for number, jobs in enumerate((first, second))
    ]
    return compare(*tables)


def nums(comparison: Comparison) -> list[tuple[int | None, int | None]]:
    """The numbers of each pair's jobs."""
    return [
        (pair.first.job.num if pair.first else None, pair.second.job.num if pair.second else None)
        for pair in comparison.pairs
    ]


def test_jobs_that_were_set_alike_are_a_pair(tmp_path: Path) -> None:
    """In whichever order. The rest has no partner."""
    first = [(["lr=1"], {"loss": 3}), (["lr=2"], {"loss": 5}), (["lr=3"], {"loss": 7})]
    second = [(["lr=4"], {"loss": 1}), (["lr=2.0"], {"loss": 4.5}), (["lr=1"], {"loss": 3})]
    comparison = compared(tmp_path, first, second)
    assert nums(comparison) == [(0, 2), (1, 1), (2, None), (None, 0)]
    assert [change(pair, "loss") for pair in comparison.pairs] == [0, -0.5, None, None]


def test_another_constant_does_not_keep_jobs_apart(tmp_path: Path) -> None:
    """It is named, with what it is in each run."""
    first = [([f"lr={lr}", "epochs=10", "same=1"], lr) for lr in (1, 2)]
    second = [([f"lr={lr}", "epochs=20", "same=1", "+new=x"], lr) for lr in (1, 2)]
    comparison = compared(tmp_path, first, second)
    assert nums(comparison) == [(0, 0), (1, 1)]
    assert (comparison.names, comparison.constants) == (["lr"], {"epochs": (10, 20), "new": (None, "x")})


def test_what_varies_in_one_run_alone_keeps_jobs_apart(tmp_path: Path) -> None:
    """The one job of the other run has one partner."""
    comparison = compared(tmp_path, [(["lr=2"], 1)], [(["lr=1"], 1), (["lr=2"], 2)])
    assert nums(comparison) == [(0, 1), (None, 0)]


def test_jobs_without_overrides_are_paired_in_order(tmp_path: Path) -> None:
    """As those of a function with configs are."""
    assert nums(compared(tmp_path, [([], 1), ([], 2)], [([], 1), ([], 2), ([], 3)])) == [(0, 0), (1, 1), (None, 2)]


def test_columns_say_which_run_they_are_of(tmp_path: Path) -> None:
    """For other programs. What is no number has no change."""
    comparison = compared(tmp_path, [(["lr=1"], {"a": 1, "t": "x"})], [(["lr=1"], {"a": math.nan, "b": 2, "t": "y"})])
    columns = comparison_columns(comparison)
    assert (columns["job_1"], columns["state_2"]) == ([0], ["COMPLETED"])
    assert (columns["value.a_1"], columns["value.b_1"], columns["value.b_2"]) == ([1], [None], [2])
    assert (columns["change.a"], columns["change.b"], columns["change.t"]) == ([None], [None], [None])
