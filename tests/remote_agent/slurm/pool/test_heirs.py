"""What a dead allocation owes is fired by another one. Zygote and jobs are the test's."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from remote_agent.slurm.allocation import allocation
from remote_agent.slurm.allocation.allocation import Allocation
from remote_agent.slurm.batch.batch import Batch, BatchError, Listed, Phase
from remote_agent.slurm.pool import heirs
from remote_agent.slurm.pool.heirs import OWED, Owed, bury_all, bury_own, owe, read_owed
from remote_agent.slurm.pool.incarnations import FOLDER, Fate, Incarnations
from remote_agent.slurm.pool.order import Order
from remote_agent.slurm.pool.pool import Pool
from remote_agent.slurm.pool.prepared import write_prepared
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from remote_agent.system.host import Folders
from tests.remote_agent.agents import wait_until
from tests.remote_agent.slurm.allocation.test_allocation import PREPARED_APP, SteppedAllocation

NODE_FAIL = Owed("22.0", "node_failed", "Slurm says NODE_FAIL of allocation 22 on n1")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(allocation, "SETTLE", 0.0)


class Heir(SteppedAllocation):
    """Another allocation of the same run."""

    name = "23.0"

    def make_agent(self, where: Folders) -> Allocation:
        self.files = SharedFiles(where.spool, "submitter")
        self.pool = Pool(self.files, "submitter")
        self.incarnations = Incarnations(self.files)
        self.allocation = Allocation("r1", "h", where, "/bundle", 0o022, self.name, Order(owed=1), self.batch)
        return self.allocation

    def next_jobs(self):
        """Processes that run, after more turns."""
        self.settle()
        return self.jobs()

    def close(self) -> None:
        """End it, and leave the folder to the other one."""
        self.folder = tempfile.mkdtemp(prefix="heir-")
        super().close()

    def said(self, attempt: str):
        """What its log says of an attempt."""
        self.incarnations.advance(0.0)
        return self.incarnations.get(self.name).attempts[attempt]


def dead(folder: Path) -> SteppedAllocation:
    """An allocation whose job has fired a start hook, and printed, when its node died."""
    folder.mkdir(mode=0o700)
    host = SteppedAllocation(folder=str(folder))
    host.put(3)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    ((_, job),) = host.jobs()
    job.say({"t": "hook", "hook": "on_job_start", "index": 0})
    host.print("3.1", b"it said this\n")
    host.settle()
    host.agent.attempts.log.flush()
    return host


def test_end_hooks_that_a_dead_allocation_owes_are_fired_by_another_one(tmp_path: Path):
    """Its epilogue knows which hooks had begun. The result says what killed the job, and what the job printed is kept. Then it runs a job."""
    gone = dead(tmp_path / "work")
    try:
        owe(gone.files, "3.1.1", NODE_FAIL)
        gone.put(4)
        host = Heir(folder=gone.folder)
        try:
            ((zygote, job),) = wait_until(host.next_jobs, "the epilogue")
            assert (job.attempt, job.is_epilogue) == ("3.1", True)
            assert host.forks == []
            envelope = host.said("3.1").crash.to_json()
            job.say({"t": "done", "envelope": envelope, "parts": {}}, b"")
            zygote.ended(job, 0)
            host.settle()
            final = host.said("3.1").final
            assert (final.envelope.error.kind, final.envelope.error.message) == (NODE_FAIL.kind, NODE_FAIL.why)
            assert host.incarnations.get("23.0").left is None
            assert host.forks == ["4.1"]
            assert Path(host.agent.paths.spool, "streams", "3.1.stdout").read_bytes().endswith(b"it said this\n")
            assert host.pool.takers()["3.1.1"] == "23.0"
        finally:
            host.close()
    finally:
        gone.close()


def test_what_is_owed_has_one_heir(tmp_path: Path):
    """Who comes later finds it taken, and does a job instead."""
    gone = dead(tmp_path / "work")
    try:
        owe(gone.files, "3.1.1", NODE_FAIL)
        assert Pool(gone.files, "24.0").take("3.1.1")
        gone.put(4)
        host = Heir(folder=gone.folder)
        try:
            host.settle()
            assert host.forks == ["4.1"]
        finally:
            host.close()
    finally:
        gone.close()


def test_an_heir_that_dies_owes_it_in_turn(tmp_path: Path):
    """The debt is the heir's, of the next rank: if it has copied what is known, from its own log, and else from where it should have."""
    files = SharedFiles(str(tmp_path), "submitter")
    for folder in (FOLDER, OWED):
        files.make_folder(folder)
    incarnations = Incarnations(files)
    for name in ("22.0", "23.0"):
        incarnations.bury(name, "node_failed", "NODE_FAIL", -100.0)
    (debt,) = incarnations.debts({"3.1": "22.0", "3.1.1": "23.0"}, 0.0)
    assert (debt.attempt, debt.incarnation, debt.rank, debt.fate) == ("3.1", "23.0", 1, Fate.UNBEGUN)
    (debt,) = incarnations.debts({"3.1": "22.0"}, 0.0)
    assert (debt.incarnation, debt.rank) == ("22.0", 0)


class Listing(Batch):
    """Knows of one allocation how it ended, or of none."""

    def __init__(self, *listed: Listed) -> None:
        self.found = list(listed)

    def listed(self, names: Sequence[str]) -> list[Listed]:
        if not self.found:
            raise BatchError("squeue is not here")
        return self.found


@pytest.mark.parametrize("is_known", [True, False])
def test_when_all_have_ended_what_they_owe_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool):
    """With what the batch system knows of it. What was taken and had not begun goes on."""
    monkeypatch.setattr(heirs, "SETTLE", 0.0)
    gone = dead(tmp_path / "work")
    try:
        gone.put(4)
        gone.files.make_folder(FOLDER, "24.0")
        assert Pool(gone.files, "24.0").take("4.1")
        found = Listed("22", "hrl-r1", Phase.ENDED, "NODE_FAIL", "node_failed", "", "n1")
        batch = Listing(found) if is_known else Listing()
        bury_all(gone.files, gone.pool, ["another"], "login", {}, batch)
        assert gone.files.names(OWED) == []
        bury_all(gone.files, gone.pool, [""], "login", {}, batch)
        assert gone.files.names(OWED) == ["3.1.1"]
        owed = read_owed(gone.files, "3.1.1")
        assert (owed.source, owed.kind) == ("22.0", "node_failed" if is_known else "lost")
        assert gone.pool.all_attempts() == ["3.1", "4.1", "4.2"]
    finally:
        gone.close()


def test_a_later_start_says_what_the_ones_before_it_owe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nobody else may be there. Starts of other jobs are not its business."""
    monkeypatch.setattr(heirs, "SETTLE", 0.0)
    gone = dead(tmp_path / "work")
    try:
        bury_own(gone.files, gone.pool, "23.1", "login", {}, ("preempted", "because"))
        assert gone.files.names(OWED) == []
        bury_own(gone.files, gone.pool, "22.1", "login", {}, ("preempted", "because"))
        assert read_owed(gone.files, "3.1.1") == Owed("22.0", "preempted", "because")
    finally:
        gone.close()
