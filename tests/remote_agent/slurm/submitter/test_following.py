"""What becomes of attempts: what allocations write is passed on, and what dead ones leave is settled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_agent.job import JobError
from remote_agent.slurm.pool.heirs import MAX_HEIRS, OWED, read_owed
from remote_agent.slurm.pool.incarnations import SETTLE
from remote_agent.slurm.pool.pool import Stop
from remote_agent.slurm.submitter.demand import ShortJobs
from tests.remote_agent.slurm.submitter.login_node import LoginNode, wrote
from tests.specs import DONE, job_spec

FINAL: dict[str, Any] = {"envelope": DONE, "parts": {}}
BEGAN: dict[str, Any] = {"node": "n1", "at": 1.0, "request": "r"}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoginNode]:
    """A login node with two jobs in the pool."""
    made = LoginNode(tmp_path)
    made.patch(monkeypatch)
    made.put(0, 1)
    yield made
    made.close()


def running(node: LoginNode, name: str = "100.0", attempt: str = "0.1") -> Any:
    """An allocation that has begun, and runs an attempt."""
    log = node.allocation(name)
    wrote(log, "began", **BEGAN)
    node.take(name, attempt)
    wrote(log, "claimed", a=attempt)
    wrote(log, "started", a=attempt, slot=0, at=2.0)
    return log


def test_what_an_allocation_writes_is_passed_on(node: LoginNode) -> None:
    """That a job has started, its result with its value, and notes with the name of the node."""
    log = running(node)
    node.following.follow(0.0)
    assert [one["attempt"] for one in node.said("started")] == ["0.1"]
    assert node.following.states() == {"0.1": "running", "1.1": "queued"}
    wrote(log, "note", text="a word")
    wrote(log, "final", b"value", a="0.1", **FINAL)
    assert node.following.follow(1.0)
    (final,) = node.said("final")
    assert (final["attempt"], final["payload"], final["again"]) == ("0.1", b"value", False)
    assert node.controller.notes == ["100.0 on n1: a word"]
    assert not node.following.follow(2.0)
    node.following.on_ack({"t": "ack", "attempts": ["0.1"]}, b"")
    assert node.following.states() == {"1.1": "queued"}
    assert node.pool.class_of("0.1") is None or node.pool.job("default", "0.1") is None


def test_half_a_record_is_none(node: LoginNode) -> None:
    """A disk shows what was written in pieces. What is not whole yet is passed on when it is."""
    log = running(node)
    wrote(log, "final", b"value", a="0.1", **FINAL)
    path = Path(log.path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    node.following.follow(0.0)
    assert node.said("started")
    assert not node.said("final")
    path.write_bytes(whole)
    node.following.follow(1.0)
    assert node.ends() == {"0.1": ""}


def test_only_who_has_an_attempt_counts(node: LoginNode) -> None:
    """What an allocation writes of an attempt that another one has taken is not passed on."""
    running(node)
    other = node.allocation("101.0")
    wrote(other, "began", **BEGAN)
    wrote(other, "final", a="0.1", **FINAL)
    wrote(other, "final", a="9.1", **FINAL)
    node.following.follow(0.0)
    assert not node.said("final")


def test_a_late_claim_is_waited_for(node: LoginNode) -> None:
    """A log may be seen before the claim that makes it count. What it says is told when the claim is there."""
    log = node.allocation("100.0")
    wrote(log, "began", **BEGAN)
    wrote(log, "started", a="0.1", slot=0, at=2.0)
    wrote(log, "final", a="0.1", **FINAL)
    node.following.follow(0.0)
    assert not node.controller.said
    node.take("100.0", "0.1")
    node.following.follow(1.0)
    assert [one["t"] for one in node.controller.said] == ["started", "final"]


def test_a_new_controller_hears_what_it_may_not_know(node: LoginNode) -> None:
    """What was read before it came is told again, each result once, until it has them."""
    log = running(node)
    wrote(log, "final", a="0.1", **FINAL)
    node.following.follow(0.0, is_quiet=True)
    assert node.ends() == {}
    node.following.resend()
    assert node.ends() == {"0.1": ""}
    node.following.on_ack({"t": "ack", "attempts": ["0.1"]}, b"")
    node.controller.said.clear()
    node.following.resend()
    assert not node.said("final")


def test_what_died_before_it_began_goes_on(node: LoginNode) -> None:
    """Whatever the policy, as the next attempt, and only when the log can say nothing more. The controller gets this one back."""
    log = node.allocation("100.0")
    wrote(log, "began", **BEGAN)
    node.take("100.0", "0.1")
    node.following.follow(0.0)
    node.incarnations.bury("100.0", "node_failed", "its node failed", 0.0)
    node.following.follow(SETTLE - 1.0)
    assert not node.controller.said
    node.following.follow(SETTLE)
    (dropped,) = node.said("dropped")
    assert (dropped["attempt"], dropped["asked"], dropped["again"]) == ("0.1", False, True)
    assert node.pool.waiting("default") == ["0.2", "1.1"]
    assert node.following.states() == {"1.1": "queued"}, "the controller does not know of 0.2 yet"
    node.following.on_given("0.2")
    assert node.following.states() == {"0.2": "queued", "1.1": "queued"}


def test_a_dead_allocation_owes_end_hooks(node: LoginNode) -> None:
    """The job is neither failed nor run again before another allocation has fired them. If those die, too, the third time is the last."""
    running(node)
    node.following.follow(0.0)
    for rank in range(1, MAX_HEIRS + 1):
        name = f"{99 + rank}.0"
        node.incarnations.bury(name, "node_failed", "its node failed", 100.0 * rank)
        node.following.follow(100.0 * rank + SETTLE)
        owed = read_owed(node.files, f"0.1.{rank}")
        assert owed is not None
        assert (owed.source, owed.kind) == (name, "node_failed")
        assert node.ends() == {}
        assert node.following.states()["0.1"] == "running"
        heir = node.allocation(f"{100 + rank}.0")
        wrote(heir, "began", **BEGAN)
        node.take(f"{100 + rank}.0", f"0.1.{rank}")
        wrote(heir, "started", a="0.1", slot=0, at=2.0)
        node.following.follow(100.0 * rank + SETTLE)
    node.incarnations.bury(f"{100 + MAX_HEIRS}.0", "node_failed", "its node failed", 1000.0)
    node.following.follow(1000.0 + SETTLE)
    assert node.ends() == {"0.1": "node_failed"}
    assert "end hooks could not be fired" in node.said("final")[0]["envelope"]["error"]["message"]
    assert len(node.files.names(OWED)) == MAX_HEIRS


def test_a_word_of_who_was_replaced_does_not_count(node: LoginNode) -> None:
    """An allocation that was thought dead writes a result, when its heir has the attempt already. Only that of the heir is passed on."""
    log = running(node)
    node.following.follow(0.0)
    node.incarnations.bury("100.0", "lost", "Slurm does not list it", 0.0)
    node.following.follow(SETTLE)
    heir = node.allocation("101.0")
    wrote(heir, "began", **BEGAN)
    node.take("101.0", "0.1.1")
    wrote(log, "final", b"late", a="0.1", **FINAL)
    node.following.follow(SETTLE + 1.0)
    assert node.ends() == {}
    wrote(heir, "final", b"heir", a="0.1", **FINAL)
    node.following.follow(SETTLE + 2.0)
    assert [one["payload"] for one in node.said("final")] == [b"heir"]


@pytest.mark.parametrize(("limit", "follows"), [({"preempted": 1}, True), ({}, False)])
def test_the_next_attempt_is_there_before_the_end_is_told(
    node: LoginNode, limit: dict[str, int], follows: bool
) -> None:
    """So that the controller can be told whether one follows. What it knows nothing of, it hears nothing of."""
    node.following.requeue = limit
    log = running(node)
    error = {"kind": "preempted", "type": "", "message": "m"}
    wrote(log, "final", a="0.1", envelope={**DONE, "status": "FAILED", "error": error}, parts={})
    node.following.follow(0.0)
    assert [one["again"] for one in node.said("final")] == [follows]
    assert ("0.2" in node.pool.waiting("default")) is follows
    assert "0.2" not in node.following.states()


def test_a_stop_reaches_also_what_follows(node: LoginNode) -> None:
    """What waits ends at once and never starts. For what runs the allocation is asked; what follows it by itself is ended."""
    assert node.following.stop("1.1", Stop("cancelled", kill=False, why="")) == ""
    assert node.ends() == {"1.1": "cancelled"}
    assert node.pool.takers()["1.1"] == node.pool.taker
    node.following.requeue = {"preempted": 1}
    log = running(node)
    node.following.follow(0.0)
    stop = Stop("cancelled", kill=False, why="enough")
    assert node.following.stop("0.1", stop) == "100.0"
    assert node.pool.stops() == {"0.1": stop}
    error = {"kind": "preempted", "type": "", "message": "m"}
    wrote(log, "final", a="0.1", envelope={**DONE, "status": "FAILED", "error": error}, parts={})
    node.following.follow(1.0)
    assert node.ends() == {"1.1": "cancelled", "0.1": "preempted"}
    node.following.on_given("0.2")
    assert node.ends()["0.2"] == "cancelled"
    assert node.following.stop("0.2", stop) == ""


def test_who_is_asked_to_stop(node: LoginNode) -> None:
    """One that waits never starts; one that runs finds the request."""
    running(node)
    assert node.following.ask("1.1") == ""
    assert node.ends() == {"1.1": "cancelled"}
    assert node.following.ask("0.1") == "100.0"
    assert node.pool.asked() == ["0.1"]


def test_jobs_fail_that_nobody_has_taken(node: LoginNode) -> None:
    """One that an allocation has goes on, and its result counts. The failure is in the log before the controller hears it."""
    log = running(node)
    node.following.refuse_waiting("default", "no room")
    assert node.ends() == {"1.1": "host"}
    assert [one["a"] for one in node.records("final")] == ["1.1"]
    wrote(log, "final", a="0.1", **FINAL)
    node.following.follow(0.0)
    assert node.ends() == {"1.1": "host", "0.1": ""}


def test_who_comes_next_says_what_the_one_before_decided(node: LoginNode) -> None:
    """An end of its own is told again. What it had taken and not said anything of is given back."""
    node.following.end("0.1", JobError("host", message="m"))
    assert node.pool.take("1.1")
    node.controller.said.clear()
    node.start()
    assert node.following.states() == {"0.1": "final"}
    node.following.resend()
    assert node.ends() == {"0.1": "host"}
    assert node.log.back == {"1.1"}


def test_short_jobs_are_noticed(node: LoginNode) -> None:
    """Once, after ten of them, if anybody wants to know."""
    node.following.short_jobs = ShortJobs()
    node.put(*range(2, 12))
    for number in range(12):
        log = running(node, f"{200 + number}.0", f"{number}.1")
        wrote(log, "final", a=f"{number}.1", **FINAL)
    node.following.follow(0.0)
    assert len([one for one in node.controller.notes if "jobs: many" in one]) == 1


def test_whose_files_come_early(node: LoginNode) -> None:
    """Those of attempts that run, from the folder of the allocation that has them. Not those of one that is dead, or was replaced."""
    log = node.allocation("100.0")
    wrote(log, "began", **BEGAN)
    node.take("100.0", "0.1")
    wrote(log, "accepted", a="0.1", spec=job_spec(0, attempt=1, output_dir="conf/0").to_json())
    node.following.follow(0.0)
    assert list(node.following.active()) == []
    wrote(log, "started", a="0.1", slot=0, at=2.0)
    node.following.follow(0.0)
    (attempt,) = node.following.active()
    assert node.following.output_folder(attempt) == node.files.path("incarnations", "100.0", "outputs", "conf", "0")
    node.incarnations.bury("100.0", "node_failed", "its node failed", 0.0)
    assert list(node.following.active()) == []


def test_what_a_job_has_left_beside_its_code_is_told_with_its_files(node: LoginNode) -> None:
    """The code is on the shared disk, so the login node sees what jobs elsewhere have written into it, when none runs any more."""
    code = Path(node.paths.spool) / "code"
    code.mkdir()
    node.left.begin()
    mark = Path(f"{code}.complete").stat().st_ctime_ns
    while not (code / "result.npy").exists() or (code / "result.npy").stat().st_ctime_ns <= mark:
        (code / "result.npy").write_text("x")  # until the disk's clock goes on
    log = running(node)
    node.following.follow(0.0)
    wrote(log, "final", b"value", a="0.1", **FINAL)
    wrote(log, "gone", a="0.1")
    node.following.follow(1.0)
    (end,) = node.said("files_end")
    assert end["left"] == {"folder": f"{node.paths.spool}/left", "count": 1, "names": ["result.npy"]}
