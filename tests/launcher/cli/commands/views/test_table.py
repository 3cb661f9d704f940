"""`launcher table`, and the values that `launcher show` and the summary of a run show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import Cli
from tests.journals import MadeJob, listed, make_run


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command `launcher`, with runs of this test alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Cli(capfdbinary)


@pytest.fixture
def sweep(cli: Cli, tmp_path: Path) -> str:
    """A run of four jobs, of which one failed."""
    jobs = [MadeJob([f"lr={lr}", "seed=1"], {"loss": (lr - 2) ** 2, "bad": float("nan")}) for lr in range(3)]
    jobs.append(MadeJob(["lr=9", "seed=1"], state="FAILED"))
    return listed(make_run(tmp_path / "one", jobs, run="20231114-221320-one0")).run


def test_show_has_values_and_the_best_jobs(cli: Cli, sweep: str) -> None:
    """Failures come first, if nothing is sorted by."""
    text = cli("show", sweep, "--offline")
    rows = [line.split() for line in text.splitlines() if "gpu1 " in line and line.strip()[0].isdigit()]
    assert [row[0] for row in rows] == ["3", "0", "1", "2"]
    assert "loss: lowest 0 in job 2 (lr=2), highest 4 in job 0 (lr=0)" in text
    assert "all jobs: seed=1" in text


def test_table_has_a_column_for_each_value(cli: Cli, tmp_path: Path) -> None:
    """`show` has a few, and says that `table` has the others. `table` says no such thing of itself."""
    values = {f"n{index}": index for index in range(9)}
    run = listed(make_run(tmp_path / "many", [MadeJob(value=values)], run="20231114-221320-many")).run
    assert "... and 3 more values ('launcher table " in cli("show", run, "--offline")
    text = cli("table", run)
    assert "n8" in text.split()
    assert "more values" not in text


@pytest.mark.parametrize("given", [["--sort", "-loss"], ["--sort=-loss"]])
def test_show_sorts_by_a_value_in_either_direction(cli: Cli, sweep: str, given: list[str]) -> None:
    """A word with a dash is its value, as a user types it. The failed job has none, and comes last."""
    told = cli.json("show", sweep, *given)
    assert [job["num"] for job in told["jobs"]] == [0, 1, 2, 3]
    assert told["jobs"][0]["values"] == {"loss": 4, "bad": "NaN"}
    assert "best by -loss: 4 in job 0 (lr=0)" in cli("show", sweep, *given)
    assert (
        cli("show", sweep, *given, "--all").index("  0  COMPLETED")
        < cli("show", sweep).index("  2  COMPLETED") + 10_000
    )


def test_an_option_after_sort_is_no_name(cli: Cli, sweep: str) -> None:
    """The user forgot the name."""
    cli("show", sweep, "--sort", "--json", code=2)
    assert "--sort" in cli.err


def test_a_column_that_no_job_has_is_refused(cli: Cli, sweep: str) -> None:
    """With the nearest one that there is."""
    cli("show", sweep, "--sort", "los", code=2)
    assert "did you mean 'loss'?" in cli.err


def test_table_is_for_people_without_a_form(cli: Cli, sweep: str) -> None:
    """All values have a column."""
    text = cli("table", sweep, "--sort", "loss")
    assert [line.split()[0] for line in text.splitlines()[2:6]] == ["2", "1", "0", "3"]
    assert text.splitlines()[1].split() == ["job", "state", "time", "loss", "bad", "overrides"]


def test_stdout_has_the_file_and_nothing_else(cli: Cli, sweep: str) -> None:
    """CSV and JSON can be piped."""
    lines = cli("table", sweep, "--csv").splitlines()
    assert (len(lines), lines[0].split(",")[:3]) == (5, ["run", "job", "state"])
    told = cli.json("table", sweep)
    assert [row["values"].get("loss") for row in told["jobs"]] == [4, 1, 0, None]
    assert told["runs"][0]["failed"] == 1


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_the_name_of_a_file_says_its_form(cli: Cli, sweep: str, tmp_path: Path, ending: str) -> None:
    """And `--csv` and the others do, too."""
    for name, given in ((f"a.{ending}", []), ("b", [f"--{ending}"])):
        assert cli("table", sweep, "--output", str(tmp_path / name), *given) == ""
    data = (tmp_path / "b").read_bytes()
    assert data == (tmp_path / f"a.{ending}").read_bytes()
    assert data.startswith({"csv": b"run,job", "json": b"{", "parquet": b"PAR1"}[ending])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--csv", "--json"], "--csv and --json: give one of them"),
        (["--output", "x.txt"], "x.txt: say what to write there"),
        (["--output", "missing/x.csv"], "No such file"),
        (["--compare"], "--compare takes two runs, and 1 was named"),
    ],
)
def test_what_cannot_be_written_is_refused(
    cli: Cli, sweep: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], said: str
) -> None:
    """With what to do. No file is left."""
    monkeypatch.chdir(tmp_path)
    cli("table", sweep, *given, code=2)
    assert said in cli.err
    assert not list(tmp_path.glob(".x*"))


def test_two_runs_are_compared(cli: Cli, sweep: str, tmp_path: Path) -> None:
    """For people and for programs."""
    jobs = [MadeJob([f"lr={lr}", "seed=2"], {"loss": lr}) for lr in (2, 1)]
    other = listed(make_run(tmp_path / "two", jobs, run="20231114-221320-two0")).run
    text = cli("table", sweep, other, "--compare")
    assert "seed: 1 in all jobs of 1, 2 of 2" in text
    assert [line.split()[:7] for line in text.splitlines()[4:7]] == [
        ["0", "-", "COMPLETED", "-", "4", "nan", "lr=0"],
        ["1", "1", "COMPLETED", "COMPLETED", "1", "1", "0"],
        ["2", "0", "COMPLETED", "COMPLETED", "0", "2", "2"],
    ]
    told = json.loads(cli("table", sweep, other, "--compare", "--json"))
    assert told["constants"] == {"seed": [1, 2]}
    assert [pair["change.loss"] for pair in told["pairs"]] == [None, 0, 2, None]
    assert cli("table", sweep, other, "--compare", "--csv").startswith("override.lr,job_1")


@pytest.mark.slow
def test_the_summary_of_a_sweep_has_its_values(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorted as asked. A column that no job has is said, and the run is not lost for it."""
    (tmp_path / "summed_app.py").write_text("def train(cfg):\n    return {'loss': (cfg.lr - 2) ** 2}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = cli("multirun", "summed_app.py:train", "lr=0,1,2", "--sort", "loss")
    assert "best by loss: 0 in job 2 (lr=2)" in text
    rows = [line.split() for line in text.splitlines() if "COMPLETED" in line]
    assert [(row[0], row[5]) for row in rows] == [("2", "0"), ("1", "1"), ("0", "4")]
    text = cli("multirun", "summed_app.py:train", "lr=0,1", "--sort", "lost")
    assert "no job has 'lost'; did you mean 'loss'?" in text
    assert "loss: lowest 1 in job 1 (lr=1), highest 4 in job 0 (lr=0)" in text
