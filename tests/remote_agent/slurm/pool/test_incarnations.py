"""Incarnations: what their logs say, which are dead, and what a dead one owes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote_agent.agent.spool.log import LogReader, SpoolLog
from remote_agent.slurm.pool.incarnations import AGAIN, FOLDER, SETTLE, Debt, Fate, Incarnations, is_fenced
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from tests.specs import DONE

_FINAL = {"envelope": DONE, "parts": {}}


class Node:
    """An incarnation that writes its log."""

    def __init__(self, root: Path, name: str) -> None:
        folder = root / FOLDER / name
        folder.mkdir(parents=True, mode=0o700)
        (root / FOLDER).chmod(0o700)
        self.log = SpoolLog(str(folder / "log"))

    def say(self, name: str, payload: bytes = b"", **fields: object) -> None:
        """A record."""
        self.log.append({"r": name, **fields}, payload)
        self.log.flush()


@pytest.fixture
def seen(tmp_path: Path) -> Incarnations:
    """What the submitter sees."""
    return Incarnations(SharedFiles(str(tmp_path), "submitter"))


def test_a_log_is_followed_while_it_grows(tmp_path: Path, seen: Incarnations):
    """Each record is seen once, with the payload, and what it says of an attempt is known."""
    node = Node(tmp_path, "22.0")
    node.say("began", node="n1", at=1.0)
    assert [(one.name, record) for one, record, _ in seen.advance(0.0)] == [("22.0", "began")]
    node.say("started", a="3.1", slot=0, at=2.0)
    node.say("final", b"value", a="3.1", **_FINAL)
    assert [record for _, record, _ in seen.advance(0.0)] == ["started", "final"]
    assert seen.advance(0.0) == []
    (one,) = seen
    assert one.node == "n1"
    assert one.attempts["3.1"].started_at == 2.0
    final = one.attempts["3.1"].final
    assert final is not None
    assert final.reference is not None
    assert final.envelope.status == "COMPLETED"
    assert one.reader.read(final.reference) == b"value"
    assert one.gone == set()
    node.say("gone", a="3.1")
    seen.advance(0.0)
    assert one.gone == {"3.1"}


def test_what_never_began_has_no_process_that_must_go(tmp_path: Path, seen: Incarnations):
    """Its result is all that the controller waits for. The process of what began is waited for."""
    node = Node(tmp_path, "22.0")
    node.say("final", a="4.1", **_FINAL)
    node.say("started", a="3.1", slot=0, at=2.0)
    node.say("final", a="3.1", **_FINAL)
    seen.advance(0.0)
    (one,) = seen
    assert {name: attempt.is_over for name, attempt in one.attempts.items()} == {"4.1": True, "3.1": False}


@pytest.mark.parametrize("filler", [b"", b"\0"])
def test_bytes_on_their_way_are_waited_for(tmp_path: Path, seen: Incarnations, filler: bytes):
    """A log that ends within a record, or with zeros where the bytes have not come yet, is read on when they have."""
    node = Node(tmp_path, "22.0")
    node.say("began", node="n1", at=1.0)
    node.say("started", a="3.1", slot=0, at=2.0)
    path = tmp_path / FOLDER / "22.0" / "log"
    whole = path.read_bytes()
    found: list[str] = []
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size] + filler * (len(whole) - size))
        found += [record for _, record, _ in seen.advance(0.0)]
    assert found == ["began", "started"]


def test_a_log_of_another_version_is_refused(tmp_path: Path, seen: Incarnations):
    """By name. It is not taken for one that is empty."""
    Node(tmp_path, "22.0").say("began", node="n1", at=1.0)
    path = tmp_path / FOLDER / "22.0" / "log"
    data = bytearray(path.read_bytes())
    data[7] += 1
    path.write_bytes(data)
    with pytest.raises(Exception, match="a spool of version 2"):
        seen.advance(0.0)


def test_silence_proves_nothing(tmp_path: Path, seen: Incarnations):
    """An incarnation that nobody calls dead owes nothing, however long it says nothing."""
    Node(tmp_path, "22.0").say("began", node="n1", at=1.0)
    seen.advance(0.0)
    seen.advance(1e9)
    assert seen.debts({"3.1": "22.0"}, 1e9) == []


def test_what_an_incarnation_owes_that_has_left(tmp_path: Path, seen: Incarnations):
    """At once: what it took and never claimed in its log, or released, goes on. What it may have begun is broken. A result is a result."""
    node = Node(tmp_path, "22.0")
    node.say("began", node="n1", at=1.0)
    for attempt in ("1.1", "2.1", "3.1", "4.1"):
        node.say("claimed", a=attempt, boot="b")
    node.say("unclaimed", a="2.1")
    node.say("started", a="3.1", slot=0, at=2.0)
    node.say("unstarted", a="3.1")
    node.say("final", a="4.1", **_FINAL)
    node.say("left", why="time limit")
    seen.advance(0.0)
    takers = dict.fromkeys(("0.1", "1.1", "2.1", "3.1", "4.1"), "22.0")
    fates = {"0.1": Fate.UNBEGUN, "1.1": Fate.BROKEN, "2.1": Fate.UNBEGUN, "3.1": Fate.BROKEN}
    assert seen.debts(takers, 0.0) == [Debt(one, "22.0", fate, "lost", "time limit") for one, fate in fates.items()]


def test_what_slurm_says_counts_when_the_log_can_hold_no_more(tmp_path: Path, seen: Incarnations):
    """A result that is seen late is not lost. The first word on the death stays, and later ones do not prolong the wait."""
    node = Node(tmp_path, "22.0")
    node.say("claimed", a="1.1", boot="b")
    node.say("claimed", a="2.1", boot="b")
    seen.advance(0.0)
    seen.bury("22.0", "node_failed", "NODE_FAIL", 100.0)
    seen.bury("22.0", "lost", "again", 150.0)
    takers = {"1.1": "22.0", "2.1": "22.0"}
    assert seen.debts(takers, 100.0 + SETTLE - 1) == []
    node.say("final", a="2.1", **_FINAL)
    seen.advance(100.0 + SETTLE)
    assert seen.debts(takers, 100.0 + SETTLE) == [Debt("1.1", "22.0", Fate.BROKEN, "node_failed", "NODE_FAIL")]


def test_a_later_start_of_the_same_slurm_job_buries_the_earlier_ones(tmp_path: Path, seen: Incarnations):
    """When it has begun, and not those of other jobs."""
    for name in ("22.0", "22.1", "23.0"):
        Node(tmp_path, name).say("claimed", a="1.1", boot="b")
    seen.advance(0.0)
    takers = {"1.1": "22.0", "2.1": "23.0"}
    assert seen.debts(takers, 1e9) == []
    Node(tmp_path, "22.2").say("began", node="n2", at=1.0)
    seen.advance(5.0)
    assert [(debt.attempt, debt.why) for debt in seen.debts(takers, 5.0 + SETTLE)] == [("1.1", AGAIN)]


def test_one_that_was_never_seen_can_be_dead(seen: Incarnations):
    """It took something, and its folder is not here yet. What it took has not begun, if its log does not come."""
    seen.bury("22.0", "node_failed", "NODE_FAIL", 0.0)
    seen.advance(SETTLE)
    assert [debt.fate for debt in seen.debts({"1.1": "22.0"}, SETTLE)] == [Fate.UNBEGUN]


def test_fences():
    """A later start of the same Slurm job, by number. Other names are nobody's."""
    assert is_fenced("22.9", ["22.10"])
    assert not is_fenced("22.10", ["22.9", "22.10", "23.11", "x", "22.11.new"])


def test_a_reader_sees_what_is_there(tmp_path: Path):
    """No log is an empty one: it may come. One that is not a log yet is waited for."""
    path = tmp_path / "log"
    assert list(LogReader(str(path)).advance()) == []
    path.write_bytes(bytes(64))
    os.chmod(path, 0o600)
    assert list(LogReader(str(path)).advance()) == []
