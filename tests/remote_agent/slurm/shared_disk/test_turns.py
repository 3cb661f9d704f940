"""Submitters of a run, one after the other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote_agent.agent.spool.log import SpoolLog
from remote_agent.slurm.shared_disk import turns
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from remote_agent.slurm.shared_disk.turns import SEEN, SILENCE, Turn, TurnTaken


class Submitter:
    """A submitter's turn, and its log."""

    def __init__(self, folder: Path, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(turns, "boot_id", lambda: machine)
            self.turn = Turn(SharedFiles(str(folder), f"submitter-{machine}-{os.urandom(4).hex()}"))
        self.log = SpoolLog(self.turn.path)

    def leave(self) -> None:
        self.log.append({"r": "left"})
        self.log.flush()


def _yes() -> bool:
    """Somebody waits for it."""
    return True


class Waits(Exception):
    """It would wait."""


@pytest.fixture(autouse=True)
def _no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        raise Waits

    monkeypatch.setattr(turns.time, "sleep", sleep)


def test_the_newest_one_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each has a number and a log of its own; the one before sees that its turn is over. All of them say that it is the same run."""
    one, two = (Submitter(tmp_path, "a", monkeypatch) for _ in range(2))
    assert (one.turn.number, two.turn.number) == (1, 2)
    assert one.turn.is_over
    assert not two.turn.is_over
    assert one.turn.path != two.turn.path
    assert one.turn.run_id == two.turn.run_id != ""


def test_it_waits_for_a_process_of_its_machine_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """However silent that is: it may be stopped, and go on."""
    one, two = (Submitter(tmp_path, "a", monkeypatch) for _ in range(2))
    os.utime(one.turn.path, (0, 0))
    with pytest.raises(Waits):
        two.turn.wait(_yes)
    monkeypatch.setattr(turns, "is_alive", lambda pid, started: False)
    two.turn.wait(_yes)


@pytest.mark.parametrize(
    ("age", "turn", "waits"),
    [(SILENCE - 30, SEEN + 1, True), (SILENCE + 30, SEEN + 1, False), (SILENCE + 30, SEEN - 30, True)],
)
def test_it_waits_for_one_of_another_machine_until_that_is_silent(
    age: float, turn: float, waits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By the clock of the disk, and not by its own: so it does not begin to wait anew when it is started again. One that stood still has seen
    by then that a later turn was taken, be it this one or one between.
    """
    one, _, two = (Submitter(tmp_path, machine, monkeypatch) for machine in "abb")
    now = os.stat(two.turn.path).st_mtime
    os.utime(one.turn.path, (now - age, now - age))
    os.utime(tmp_path / "turns" / "2", (now - turn, now - turn))
    monkeypatch.setattr(turns, "is_alive", lambda pid, started: False)
    if waits:
        with pytest.raises(Waits):
            two.turn.wait(_yes)
    else:
        two.turn.wait(_yes)


def test_it_waits_for_nobody_who_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The log says so."""
    one, two = (Submitter(tmp_path, machine, monkeypatch) for machine in "ab")
    one.leave()
    two.turn.wait(_yes)


@pytest.mark.parametrize("machine", ["a", "b"])
def test_it_does_not_wait_for_longer_than_somebody_waits_for_it(
    machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whoever has gone, or has had no answer for long, is told who serves the run, and may come again."""
    first, second = (Submitter(tmp_path, one, monkeypatch) for one in ("a", machine))
    says = "kill -KILL" if machine == "a" else f"silent for {SILENCE:.0f} s"
    with pytest.raises(TurnTaken, match=says):
        second.turn.wait(lambda: False)
    monkeypatch.setattr(turns, "_PATIENCE", -1.0)
    with pytest.raises(TurnTaken, match=says):
        second.turn.wait(_yes)
    first.leave()
    monkeypatch.setattr(turns, "is_alive", lambda pid, started: False)
    second.turn.wait(lambda: False)
