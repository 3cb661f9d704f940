"""Runs are found by id, by a prefix of it, by folder, and as the last one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from launcher.errors import RunError
from launcher.runs import index
from launcher.runs.index import Entry
from launcher.runs.journal import FOLDER, Journal


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


def make(folder: Path, run: str, started: float = 0.0, *, indexed: bool = True) -> Entry:
    """A run with a journal."""
    folder.mkdir(parents=True)
    journal = Journal(folder / FOLDER)
    journal.put_meta(run=run, started=str(started), mode="MULTIRUN", task_name="app")
    journal.close()
    entry = Entry(run, folder, started, "MULTIRUN", "app")
    if indexed:
        index.add(entry)
    return entry


def test_the_latest_comes_first(tmp_path: Path) -> None:
    """By the time at which they began."""
    for number in (2, 3, 1):
        make(tmp_path / str(number), f"2026-{number}", number)
    assert [entry.run for entry in index.entries()] == ["2026-3", "2026-2", "2026-1"]


def test_an_index_that_is_not_there_is_empty() -> None:
    """Reading it makes nothing."""
    assert index.entries() == []
    assert not index.index_folder().exists()


def test_a_run_is_found_by_each_of_its_names(tmp_path: Path) -> None:
    """Id, unique prefix, folder, a job's folder, relative folder, `last`."""
    one = make(tmp_path / "one", "20260101-000000-aaaaaa", 1)
    two = make(tmp_path / "two", "20260102-000000-bbbbbb", 2)
    (tmp_path / "one" / "0").mkdir()
    for name in (one.run, "20260101", str(one.folder), "one", str(one.folder / "0"), str(one.folder / FOLDER)):
        assert index.find(name).run == one.run, name
        assert index.find(name).folder == one.folder, name
    assert index.find("last") == two


def test_a_run_that_the_index_does_not_know_is_found_by_its_folder(tmp_path: Path) -> None:
    """The journal says which run it is."""
    made = make(tmp_path / "moved", "20260101-000000-aaaaaa", 1, indexed=False)
    assert index.find(made.folder) == made


def test_last_skips_runs_whose_folder_is_gone(tmp_path: Path) -> None:
    """A run that cannot be shown is not `last`."""
    here = make(tmp_path / "here", "a-1", 1)
    index.add(Entry("a-2", tmp_path / "gone", 2))
    assert index.find("last") == here


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing", "no run 'nothing'"),
        ("a-", "fits 2 runs: a-2, a-1"),
        ("a-3", "is gone"),
        ("../escape", "no run"),
        ("", "no run"),
    ],
)
def test_a_name_that_fits_no_single_run_is_an_error(tmp_path: Path, name: str, says: str) -> None:
    """No such run, several runs, or a run without its folder."""
    make(tmp_path / "one", "a-1", 1)
    make(tmp_path / "two", "a-2", 2)
    (tmp_path / "three").mkdir()
    with pytest.raises(RunError, match=says):
        if name == "a-3":
            index.add(Entry("a-3", tmp_path / "three", 3))
            (index.index_folder() / "a-2.json").unlink()
        index.find(name)


def test_a_job_is_a_number_after_the_run(tmp_path: Path) -> None:
    """RUN#NUM. Anything else after the hash is refused."""
    make(tmp_path / "one", "a-1", 1)
    assert index.parse("a-1#12").num == 12
    assert index.parse("a-1").num is None
    assert index.parse("last#0").entry.run == "a-1"
    with pytest.raises(RunError, match="not the number of a job"):
        index.parse("a-1#x")


@pytest.mark.parametrize("name", ["a#1", "#", "a#b", "c?x", "c%41", "e f", os.fsdecode(b"\xff#2")])
def test_the_name_of_an_existing_folder_may_have_a_hash(tmp_path: Path, name: str) -> None:
    """A hash in its name begins no job number. One after the name does."""
    made = make(tmp_path / name, "a-1", 1)
    (made.folder / "0").mkdir()
    assert index.parse(str(made.folder)) == index.RunReference(made)
    assert index.parse(name) == index.RunReference(made)
    assert index.parse(f"{made.folder}#7") == index.RunReference(made, 7)
    assert index.parse(str(made.folder / "0")) == index.RunReference(made)


def test_a_hash_is_found_from_within_a_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that does not exist is no folder of the run in the working directory."""
    made = make(tmp_path / "one", "a-1", 1)
    monkeypatch.chdir(made.folder)
    assert index.parse("a-1#3") == index.RunReference(made, 3)
    assert index.parse(".#3").num == 3


@pytest.mark.parametrize("num", ["9" * 5000, "\u0663", "-1", "1.5", " 1"])
def test_the_number_of_a_job_is_a_few_digits(tmp_path: Path, num: str) -> None:
    """Anything else is refused by name."""
    make(tmp_path / "one", "a-1", 1)
    with pytest.raises(RunError, match="not the number of a job"):
        index.parse(f"a-1#{num}")


def test_damaged_and_foreign_entries_are_skipped(tmp_path: Path) -> None:
    """A file of another version, or of another program, hides no other run."""
    make(tmp_path / "one", "a-1", 1)
    folder = index.index_folder()
    (folder / "a-2.json").write_text("{")
    (folder / "a-3.json").write_text(json.dumps({"version": 99, "run": "a-3", "folder": "/", "started": 1}))
    (folder / "a-4.json").write_text(json.dumps({"version": 1, "run": "a-4"}))
    (folder / "note.txt").write_text("hello")
    assert [entry.run for entry in index.entries()] == ["a-1"]


def test_only_the_user_can_read_the_entries(tmp_path: Path) -> None:
    """The folder is 0700, the files are 0600, and no temporary file is left."""
    make(tmp_path / "one", "a-1", 1)
    folder = index.index_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_removed_run_is_forgotten_and_its_folder_kept(tmp_path: Path) -> None:
    """The index does not own results."""
    made = make(tmp_path / "one", "a-1", 1)
    index.remove("a-1")
    index.remove("a-1")
    assert index.entries() == []
    assert made.is_there
