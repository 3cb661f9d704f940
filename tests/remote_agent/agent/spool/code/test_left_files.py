"""Files that jobs write beside their code are found, whatever has written them, and outlive the spool."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote_agent.agent.spool.code import left_files
from remote_agent.agent.spool.code.left_files import LeftFiles
from remote_agent.shared.disk import remove_tree


class Run:
    """A run's spool with its code."""

    def __init__(self, root: Path) -> None:
        self.spool = root / "run"
        self.tree = self.spool / "code"
        self.write("app.py")
        self.write("data/table.csv")
        self.left = LeftFiles(str(self.tree), str(self.spool))
        self.left.begin()
        self._tick()

    def _tick(self) -> None:
        """Make files until one is younger than the mark: the disk's clock has ticks of several milliseconds."""
        mark = os.lstat(f"{self.tree}.complete").st_ctime_ns
        probe = self.spool / "probe"
        while True:
            probe.write_text("")
            if probe.stat().st_ctime_ns > mark:
                break
            probe.unlink()
        probe.unlink()

    def write(self, name: str, text: str = "x") -> None:
        """As a job does."""
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def look(self, *, is_idle: bool = True, running_since: float = 0.0) -> list[str]:
        """Look, and return the names that the user is told."""
        list(self.left.look(is_idle=is_idle, running_since=running_since))
        told = self.left.told()
        return [] if told is None else told["names"]

    def over(self) -> dict[str, str]:
        """End the run. Returns what is there then of its spool, below the folder that the user was told."""
        self.left.set_aside()
        remove_tree(str(self.spool))
        self.left.put_back()
        kept = Path(self.left.folder)
        return {str(path.relative_to(kept)): path.read_text() for path in kept.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose code is complete."""
    return Run(tmp_path)


def test_a_job_that_writes_nothing_leaves_nothing(run: Run) -> None:
    """Neither a word, nor a folder. Reading a file is no change."""
    (run.tree / "app.py").read_text()
    assert run.look() == []
    assert run.left.told() is None
    assert run.over() == {}
    assert not run.spool.exists()


def test_new_and_changed_files_are_named(run: Run) -> None:
    """Those nearest to the top first. A file that was rewritten counts, also with the time that it had."""
    run.write("ckpt/deep/last.pt")
    run.write("result.npy")
    before = os.stat(run.tree / "data" / "table.csv")
    run.write("data/table.csv", "y")
    os.utime(run.tree / "data" / "table.csv", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run.look() == ["result.npy", "data/table.csv", "ckpt/deep/last.pt"]
    told = run.left.told()
    assert told is not None
    assert (told["count"], told["folder"]) == (3, str(run.spool / "left"))


def test_what_tools_write_for_themselves_is_no_reason(run: Run) -> None:
    """Bytecode, caches of tools, locks, pipes and sockets."""
    os.mkfifo(run.tree / "pipe")
    for name in ("__pycache__/app.pyc", "old.pyc", ".pytest_cache/v/x", "table.lock"):
        run.write(name)
    assert run.look() == []
    assert run.over() == {}


def test_while_others_run_a_file_must_stay_to_count(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be one that a running job removes again. At the last look nobody can."""
    monkeypatch.setattr(left_files, "_RARELY", 0)
    run.write("part")
    assert run.look(is_idle=False) == []
    (run.tree / "part").unlink()
    run.write("stays")
    assert run.look(is_idle=False) == []
    assert run.look(is_idle=False) == ["stays"]
    run.write("last")
    assert run.look() == ["last", "stays"]


def test_what_was_there_before_the_running_jobs_began_is_told_at_once(run: Run) -> None:
    """None of them has written it. So the first of many long jobs, one after the other, has its warning."""
    run.write("first")
    at = os.stat(run.tree / "first").st_ctime_ns / 1e9
    assert run.look(is_idle=False, running_since=at - 1) == []
    again = LeftFiles(str(run.tree), str(run.spool))
    list(again.look(is_idle=False, running_since=at + 1))
    told = again.told()
    assert told is not None
    assert told["names"] == ["first"]


def test_while_jobs_run_looks_are_rare(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In proportion to what a look costs. An idle host is looked at in any case."""
    clock = [0.0]

    def tick() -> float:
        clock[0] += 1.0
        return clock[0]

    monkeypatch.setattr(left_files.time, "monotonic", tick)
    run.write("result")
    assert run.look(is_idle=False) == []
    begun = clock[0]
    while not run.look(is_idle=False):
        assert clock[0] < 1000
    assert clock[0] - begun >= left_files._RARELY
    assert run.look() == ["result"]


def test_a_look_pauses_and_is_bounded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent does other things between its parts, and a tree of any size is looked at from the top."""
    monkeypatch.setattr(left_files, "_PAUSE", 5)
    monkeypatch.setattr(left_files, "_MAX_LOOKED_AT", 60)
    monkeypatch.setattr(left_files, "_MAX_FOUND", 20)
    for number in range(100):
        run.write(f"many/{number:03}")
    run.write("top")
    assert len(list(run.left.look(is_idle=True))) >= 4
    told = run.left.told()
    assert told is not None
    assert told["names"][0] == "top"
    assert told["count"] == 20


def test_a_name_that_is_no_text_can_be_told(run: Run) -> None:
    """It is sent as it can be written, and kept as it is."""
    with open(os.fsencode(run.tree) + b"/\xff", "w") as file:
        file.write("x")
    assert run.look() == ["\\udcff"]


def test_files_outlive_the_spool(run: Run) -> None:
    """All of them, in their folders, and nothing else. A folder that a job has closed is no hindrance."""
    run.write("closed/result")
    run.write("data/table.csv", "new")
    (run.tree / "closed").chmod(0o500)
    assert run.over() == {"closed/result": "x", "data/table.csv": "new"}
    assert [path.name for path in run.spool.iterdir()] == ["left"]
    assert not (run.spool.parent / "run.left").exists()


def test_a_run_that_is_taken_up_again_adds_to_them(run: Run) -> None:
    """It has its code anew, and what its first part has left stays. Of the same name, the newer one counts."""
    run.write("first", "1")
    run.write("both", "1")
    assert run.over() == {"first": "1", "both": "1"}
    again = Run(run.spool.parent)
    assert again.look() == []
    again.write("both", "2")
    assert again.over() == {"first": "1", "both": "2"}


def test_a_folder_that_a_job_has_closed_is_passed_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look goes on with the others."""
    run.write("closed/result")
    run.write("open/result")
    real = os.scandir

    def scandir(path: str) -> object:
        if path.endswith("closed/"):
            raise PermissionError(13, "closed", path)
        return real(path)

    monkeypatch.setattr(left_files.os, "scandir", scandir)
    assert run.look() == ["open/result"]
