"""A sweep that is continued in its folder: whole runs on this machine."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events
from launcher.errors import RunError, UsageError
from launcher.runs import index
from launcher.runs.journal import FOLDER, JournalReader
from launcher.runs.status import read_jobs
from launcher.setup.earlier import EarlierJournal, EarlierRuns
from tests.controllers import ROOT

APP = Path(__file__).parents[3] / "apps" / "again" / "again_app.py"


class Sweep:
    """A sweep in a folder, with the marks that its jobs and hooks leave."""

    def __init__(self, folder: Path, app: Any) -> None:
        self.folder = folder / "sweep"
        self.marks = folder / "marks"
        self.marks.mkdir()
        self.app = app
        self.seen: list[events.Event] = []

    def fail(self, *xs: int) -> None:
        """From now on these fail, and no others."""
        (self.marks / "fail").write_text(" ".join(map(str, xs)))

    def run(self, *xs: int, more: dict[str, Any] | None = None, **options: Any) -> Any:
        """Run it with these points; continue it unless `continue_sweep` says otherwise."""
        self.seen = []
        given = {"continue_sweep": True, "callbacks": [self.app.Recorder(str(self.marks))], **options}
        return launcher.multirun(
            self.app.work,
            [{"x": x, "marks": str(self.marks), **(more or {})} for x in xs],
            folder=self.folder,
            hosts="local/2",
            observers=[self.seen.append],
            **given,
        )

    def first(self, *xs: int, **options: Any) -> Any:
        """Begin it."""
        return self.run(*xs, continue_sweep=False, **options)

    def marked(self, kind: str) -> Counter[str]:
        """How many marks of this kind there are of each."""
        return Counter(path.name.partition(".")[0] for path in (self.marks / kind).glob("*"))

    def files(self) -> dict[str, set[str]]:
        """Output directory -> the files that jobs left there."""
        found = {path.name: {file.name for file in path.glob("of-*")} for path in self.folder.iterdir()}
        return {name: files for name, files in found.items() if files}

    def told(self) -> str:
        """What notes and warnings said."""
        return "\n".join(event.message for event in self.seen if isinstance(event, (events.Note, events.Warned)))


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweep]:
    """A sweep of the application, in its own folder, with its own index of runs."""
    (tmp_path / APP.name).write_bytes(APP.read_bytes())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import again_app

    yield Sweep(tmp_path, again_app)
    sys.modules.pop("again_app", None)


def values(returns: Any) -> list[Any]:
    """What each job returned; its status if it failed."""
    return [one.return_value["x"] if one.error is None else one.status.name for one in returns]


def test_only_what_has_not_completed_runs(sweep: Sweep) -> None:
    """In another order, with a point more and one less. The JobReturns are in the new order, and hooks fire for what runs."""
    sweep.fail(2)
    assert values(sweep.first(0, 1, 2, 3)) == [0, 1, "FAILED", 3]
    sweep.fail()
    returns = sweep.run(3, 2, 0, 7)
    assert values(returns) == [3, 2, 0, 7]
    assert [one.num for one in returns] == [0, 1, 2, 3]
    assert sweep.marked("ran") == {"0": 1, "1": 1, "2": 2, "3": 1, "7": 1}
    assert sweep.marked("return") == {"0": 1, "1": 1, "2": 2, "3": 1, "7": 1}
    assert sweep.marked("start") == {"run": 2}
    assert sweep.marked("end") == {"0 1 2 3": 2}
    taken = [event for event in sweep.seen if isinstance(event, events.JobTakenOver)]
    assert [(event.num, event.of_num) for event in taken] == [(0, 3), (2, 0)]
    told = sweep.told()
    assert "2 of 4 jobs completed before with the same config, and do not run again: 0, 2" in told
    assert "failed before (exception), and run again: 1" in told
    assert "1 of 4 jobs have no earlier one with the same config, and run" in told
    assert "earlier jobs that completed and are not in this sweep: 1; their results stay" in told


@pytest.mark.slow
def test_no_file_of_an_earlier_job_is_touched(sweep: Sweep) -> None:
    """A job that runs writes beside an earlier job's output directory, unless it is the same one again."""
    sweep.fail(1, 2)
    sweep.first(0, 1, 2)
    sweep.fail()
    returns = sweep.run(5, 1, 0)
    assert sweep.files() == {"0": {"of-0"}, "1": {"of-1"}, "2": {"of-2"}, "0.1": {"of-5"}}
    assert [Path(one.output_dir).name for one in returns] == ["0.1", "1", "0"]
    assert values(sweep.run(6, 5, 1, 0)) == [6, 5, 1, 0]
    assert sweep.files()["0.2"] == {"of-6"}


@pytest.mark.slow
def test_jobs_that_share_a_folder_still_share_it(sweep: Sweep) -> None:
    """An output directory of several jobs is not one of them alone."""
    sweep.first(0, 1)
    journal = EarlierJournal(sweep.folder / FOLDER, "r", "", 0)
    assert EarlierRuns((journal,)).kept_folders() == {sweep.folder / "0", sweep.folder / "1"}
    with sqlite3.connect(sweep.folder / FOLDER / "journal.sqlite") as connection:
        connection.execute("update jobs set output_dir=?", (str(sweep.folder / "shared"),))
    connection.close()
    assert EarlierRuns((journal,)).kept_folders() == frozenset()


@pytest.mark.slow
def test_the_new_journal_needs_no_earlier_one(sweep: Sweep) -> None:
    """It has all of the jobs that were taken over, also a result that has a file of its own."""
    sweep.first(0, 1, more={"long": 400_000})
    returns = sweep.run(1, 0, 2, more={"long": 400_000})
    assert values(returns) == [1, 0, 2]
    for path in sweep.folder.glob(f"{FOLDER}.*"):
        shutil.rmtree(path)
    with launcher.Session.resume(sweep.folder) as session:
        assert values(session.returns) == [1, 0, 2]
        assert [len(one.return_value["long"]) for one in session.returns] == [400_000] * 3
        assert [one.cfg.x for one in session.returns] == [1, 0, 2]
    with JournalReader(sweep.folder / FOLDER) as reader:
        first = read_jobs(reader)[0]
    run = index.find(sweep.folder).run
    assert first.state == "COMPLETED"
    assert first.attempts[0].why.startswith("taken over from ")
    assert not first.attempts[0].why.startswith(f"taken over from {run}")
    assert sweep.marked("ran") == {"0": 1, "1": 1, "2": 1}


@pytest.mark.slow
def test_every_earlier_run_of_the_sweep_counts(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one before a run with fewer points, or before one that came to nothing."""
    sweep.first(0, 1, 2)
    assert values(sweep.run(2)) == [2]
    monkeypatch.setenv("AGAIN_ABORTS", "1")
    with pytest.raises(launcher.errors.RunAborted):
        sweep.run(0, 1, 2, on_error={"Recorder": "abort"})
    monkeypatch.delenv("AGAIN_ABORTS")
    assert values(sweep.run(0, 1, 2, 3)) == [0, 1, 2, 3]
    assert sweep.marked("ran") == {"0": 1, "1": 1, "2": 1, "3": 1}


@pytest.mark.slow
def test_a_run_without_continue_begins_anew(sweep: Sweep) -> None:
    """What was before it does not count any more."""
    sweep.first(0, 1)
    sweep.first(0)
    assert values(sweep.run(0, 1)) == [0, 1]
    assert sweep.marked("ran") == {"0": 2, "1": 2}


@pytest.mark.slow
def test_each_earlier_job_counts_once(sweep: Sweep) -> None:
    """A config that the sweep has three times is run three times, also over several runs."""
    sweep.first(4, 4)
    assert values(sweep.run(4, 4, 4)) == [4, 4, 4]
    assert sweep.marked("ran") == {"4": 3}
    assert values(sweep.run(4, 4, 4)) == [4, 4, 4]
    assert sweep.marked("ran") == {"4": 3}


@pytest.mark.slow
def test_what_a_hook_has_failed_runs_again(sweep: Sweep) -> None:
    """The job completed, and on_job_return made it FAILED."""

    class Strict(launcher.Callback):
        on_error = "fail"

        def on_job_return(self, config: Any, job_return: Any, **kwargs: Any) -> None:
            if config.x == 1:
                raise ValueError("not this one")

    (_, failed) = sweep.first(0, 1, callbacks=[Strict()])
    assert failed.status.name == "FAILED"
    assert values(sweep.run(0, 1)) == [0, 1]
    assert sweep.marked("ran") == {"0": 1, "1": 2}


@pytest.mark.slow
def test_cancelled_jobs_run_again(sweep: Sweep) -> None:
    """They have returned, and did not complete."""
    sweep.fail(0)
    sweep.first(0, 1, 2, 3, 4, 5, fail_fast=True)
    ran = sweep.marked("ran")
    sweep.fail()
    returns = sweep.run(0, 1, 2, 3, 4, 5)
    assert values(returns) == [0, 1, 2, 3, 4, 5]
    assert sweep.marked("ran")["0"] == ran["0"] + 1


@pytest.mark.slow
def test_it_may_be_asked_for_from_the_beginning(sweep: Sweep) -> None:
    """In a folder without a run, all jobs run, and a note says why."""
    assert values(sweep.run(0, 1)) == [0, 1]
    assert "there is no run to continue in" in sweep.told()
    assert values(sweep.run(0, 1)) == [0, 1]
    assert sweep.marked("ran") == {"0": 1, "1": 1}


@pytest.mark.slow
def test_configs_from_an_iterator(sweep: Sweep) -> None:
    """They are read at once."""
    sweep.first(0)
    configs = ({"x": x, "marks": str(sweep.marks)} for x in (0, 1))
    returns = launcher.multirun(sweep.app.work, configs, folder=sweep.folder, continue_sweep=True)
    assert values(returns) == [0, 1]
    assert sweep.marked("ran") == {"0": 1, "1": 1}


@pytest.mark.slow
def test_a_folder_that_was_moved(sweep: Sweep) -> None:
    """Its jobs are found where they are now."""
    sweep.first(0, 1)
    moved = sweep.folder.with_name("moved")
    sweep.folder.rename(moved)
    sweep.folder = moved
    returns = sweep.run(0, 1, 2)
    assert [Path(one.output_dir) for one in returns] == [moved / "0", moved / "1", moved / "2"]
    assert sweep.marked("ran") == {"0": 1, "1": 1, "2": 1}


class TestRefused:
    """What cannot be continued. Nothing is changed then."""

    def test_a_run_that_another_one_drives(self, sweep: Sweep) -> None:
        """The error says who."""
        with launcher.Session.open(folder=sweep.folder) as session:
            session.submit(len, "ab").result()
            with pytest.raises(RunError, match="driven by another process"):
                sweep.run(0)

    @pytest.mark.slow
    def test_a_run_that_has_not_ended(self, sweep: Sweep) -> None:
        """Its jobs may still run on a host. The error has the command that collects them."""
        sweep.first(0)
        journal = sweep.folder / FOLDER / "journal.sqlite"
        with sqlite3.connect(journal) as connection:
            connection.execute("delete from events where kind='run_ended'")
        connection.close()
        run = index.find(sweep.folder).run
        with pytest.raises(RunError, match=rf"has not ended \(died\).*'launcher attach {run}'"):
            sweep.run(0)
        assert not list(sweep.folder.glob(f"{FOLDER}.*"))

    def test_a_run_of_something_else(self, sweep: Sweep) -> None:
        """Another function, or a run of one job."""
        launcher.multirun(len, [{"x": 0, "marks": str(sweep.marks)}], folder=sweep.folder)
        with pytest.raises(UsageError, match=r"continue_sweep: run .* is not this sweep: it is of len"):
            sweep.run(0)

    def test_a_run_that_is_not_ours(self, sweep: Sweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Its journal would be unpickled."""
        sweep.first(0)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
        with pytest.raises(RunError, match="not known to be yours"):
            sweep.run(0)

    @pytest.mark.slow
    def test_a_journal_that_somebody_put_there(self, sweep: Sweep, tmp_path: Path) -> None:
        """Beside the one of a run that is ours. It is not read, because no run of ours knows it."""
        sweep.first(0, 1)
        shutil.copytree(sweep.folder / FOLDER, tmp_path / "copy")
        index.remove(index.find(sweep.folder).run)
        shutil.rmtree(sweep.folder)
        sweep.first(0)
        shutil.copytree(tmp_path / "copy", sweep.folder / f"{FOLDER}.copy")
        assert values(sweep.run(0, 1)) == [0, 1]
        assert sweep.marked("ran") == {"0": 2, "1": 2}

    def test_what_is_no_sweep(self, sweep: Sweep) -> None:
        """One job, a session, a sweep whose folder has no name of its own, and `same_code` alone."""
        with pytest.raises(UsageError, match="continue_sweep"):
            launcher.run(sweep.app.work, {"x": 1}, folder=sweep.folder, continue_sweep=True)
        with pytest.raises(UsageError, match="continue_sweep"), launcher.Session.open(continue_sweep=True) as session:
            session.submit(len, "ab")
        with pytest.raises(UsageError, match="continue_sweep: name the folder"):
            launcher.multirun(sweep.app.work, [{"x": 1}], continue_sweep=True)
        with pytest.raises(UsageError, match="same_code: it belongs to"):
            launcher.multirun(sweep.app.work, [{"x": 1}], folder=sweep.folder, same_code=True)

    @pytest.mark.slow
    def test_code_that_is_not_known_to_be_the_same(self, sweep: Sweep) -> None:
        """Code that is used in place has no hash. Without `same_code`, a note says so."""
        sweep.first(0, 1)
        with pytest.raises(UsageError, match=r"same_code: whether the code has changed .* is not known.*: 1;"):
            sweep.run(5, 1, same_code=True)
        assert values(sweep.run(5, same_code=True)) == [5]
        sweep.run(1)
        assert "whether the code has changed since these jobs ran is not known" in sweep.told()


@pytest.mark.slow
def test_a_controller_that_was_killed(sweep: Sweep, tmp_path: Path) -> None:
    """Whoever resumes the run has the jobs that were taken over, runs the others, and fires no hook twice."""

    def start(points: str, **env: str) -> int:
        command = [sys.executable, APP.name, str(sweep.folder), points]
        given = {**os.environ, "PYTHONPATH": str(ROOT), **env}
        return subprocess.run(
            command, cwd=tmp_path, env=given, capture_output=True, timeout=120, check=False
        ).returncode

    sweep.fail(1)
    assert start("0,1,2,3") == 0
    sweep.fail()
    assert start("5,0,1,6,3,7", AGAIN_DIES="1") == -9
    assert start("5,0,1,6,3,7") != 0, "the run has not ended"
    with launcher.Session.resume(sweep.folder) as session:
        pass
    assert values(session.returns) == [5, 0, 1, 6, 3, 7]
    assert sweep.marked("ran") == {"0": 1, "1": 2, "2": 1, "3": 1, "5": 1, "6": 1, "7": 1}
    assert set(sweep.marked("return")) == {"0", "1", "2", "3", "5", "6", "7"}
    assert (sweep.marked("return")["0"], sweep.marked("return")["3"]) == (1, 1)
    assert start("5,0,1,6,3,7") == 0
    assert sum(sweep.marked("ran").values()) == 8
