"""Asking Slurm for allocations: when, how many, and what its answers mean, false ones among them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_agent.slurm.batch.batch import BatchError, Listed, NoAnswer, NoRoom, Phase, Refused
from remote_agent.slurm.pool.heirs import Owed, owe
from tests.remote_agent.slurm.submitter.login_node import LoginNode, waiting, wrote

TIMED_OUT = NoAnswer("sbatch: Socket timed out")


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoginNode]:
    """A login node whose controller has come, and whose Slurm has told its limits: four in an array."""
    made = LoginNode(tmp_path)
    made.patch(monkeypatch)
    made.asking.greet()
    made.asks.run()
    yield made
    made.close()


def asked(node: LoginNode) -> list[int]:
    """How many allocations each request was for."""
    return [one.tasks for one in node.slurm.asked]


def test_nothing_is_asked_before_slurm_has_said_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor before allocations would find what they need. Then no request is for more than Slurm allows."""
    node = LoginNode(tmp_path)
    node.patch(monkeypatch)
    node.put(*range(6))
    node.passes(2.0)
    assert asked(node) == []
    node.asking.greet()
    node.asks.run()
    node.asking.tick(node.now + 2.0, is_prepared=False)
    node.asks.run()
    assert asked(node) == []
    node.passes(2.0)
    node.passes()
    assert asked(node) == [4, 2]
    assert [one["job"] for one in node.records("answered")] == ["100", "101"]
    node.close()


def test_a_request_without_an_answer_is_looked_up_before_another_one(node: LoginNode) -> None:
    """Slurm has it: then it counts as answered, and no other one is made. What is asked is in the log before."""
    node.slurm.answers = [TIMED_OUT]
    node.put(0, 1)
    node.passes(1.0)
    (asking,) = node.records("asking")
    assert node.records("answered") == node.records("refused") == []
    node.slurm.lists = [waiting(asking["name"], "7"), waiting(asking["name"], "7")]
    node.passes()
    assert [(one["name"], one["job"]) for one in node.records("answered")] == [(asking["name"], "7")]
    node.put(2)
    node.passes(1.0)
    node.passes(60.0)
    assert asked(node) == [2, 1]


def test_more_jobs_are_waited_for_unless_the_last_one_has_come(node: LoginNode) -> None:
    """As its controller says. Jobs that come later are asked for as ever."""
    node.put(0, 1)
    node.passes(0.1)
    assert asked(node) == []
    node.passes(0.2)
    assert asked(node) == [2]
    node.put(2, 3, 4, is_last=True)
    node.passes()
    assert asked(node) == [2, 3]
    node.put(5)
    node.passes()
    assert asked(node) == [2, 3]


def test_the_pause_between_requests_without_an_answer(node: LoginNode) -> None:
    """Five seconds after the first one that Slurm does not know, ten after the next. New jobs do not make it shorter."""
    node.slurm.answers = [TIMED_OUT] * 3
    node.put(0)
    node.passes(1.0)
    node.passes()  # it is looked up
    assert [one["why"] for one in node.records("refused")] == ["Slurm does not know it"]
    node.passes(4.0)
    node.put(1)
    node.passes(0.9)
    assert asked(node) == [1]
    node.passes(0.2)
    assert asked(node) == [1, 2]
    node.passes()
    node.put(2)
    node.passes(9.9)
    assert asked(node) == [1, 2]
    node.passes(0.2)
    assert asked(node) == [1, 2, 3]
    node.passes()
    assert node.ends() == {"0.1": "host", "1.1": "host", "2.1": "host"}
    (message,) = {one["envelope"]["error"]["message"] for one in node.said("final")}
    assert "asked 3 times" in message
    assert "Socket timed out" in message
    assert "try sbatch by hand" in message
    node.passes(100.0)
    assert asked(node) == [1, 2, 3]


def test_an_answer_begins_the_count_anew(node: LoginNode) -> None:
    """Three that are not answered must follow each other."""
    node.slurm.answers = [TIMED_OUT, TIMED_OUT, "7", TIMED_OUT, TIMED_OUT, "8"]
    node.put(0)
    for _ in range(5):
        node.passes(5.1)
    assert asked(node) == [1, 1, 1]
    node.slurm.lists = [waiting(node.slurm.asked[-1].name, "7")]
    node.put(1)
    for _ in range(8):
        if len(asked(node)) < 6:
            node.passes(5.1)
    assert not node.ends()
    assert [one["job"] for one in node.records("answered")] == ["7", "8"]


def test_nothing_is_known_while_squeue_does_not_answer_either(node: LoginNode) -> None:
    """No request counts as unknown then, none is made, and the user hears once that Slurm is silent, and that it answers again."""
    node.slurm.answers = [TIMED_OUT]
    node.slurm.lists = BatchError("squeue: Unable to contact slurm controller")
    node.put(0)
    for _ in range(20):
        node.passes(60.0)
    assert asked(node) == [1]
    assert node.records("refused") == []
    assert len([one for one in node.controller.notes if "Unable to contact" in one]) == 1
    node.slurm.lists = []
    node.passes(60.0)
    assert "slurm: it answers again" in node.controller.notes
    node.passes(5.1)
    assert asked(node) == [1, 1]


def test_slurm_is_asked_ever_less_often(node: LoginNode) -> None:
    """5, 10, 20 and 30 seconds after the time before, and then each minute."""
    node.put(0)
    node.passes(1.0)
    node.slurm.lists = [waiting(node.slurm.asked[0].name)]
    times = []
    for second in range(1, 200):
        before = len(node.slurm.names)
        node.passes(1.0)
        times += [second] * (len(node.slurm.names) - before)
    assert times == [5, 10, 20, 40, 70, 130, 190]


def test_a_slow_squeue_is_asked_less_often(node: LoginNode) -> None:
    """Fifty times as long passes as it took."""
    node.put(0)
    node.passes(1.0)

    def slow(names: list[str]) -> list[Listed]:
        node.slurm.names.append(names)
        node.now += 2.0
        return [waiting(node.slurm.asked[0].name)]

    node.slurm.listed = slow  # type: ignore[assignment,method-assign]
    node.passes(5.1)
    assert len(node.slurm.names) == 1
    node.passes(99.0)
    assert len(node.slurm.names) == 1
    node.passes(1.1)
    assert len(node.slurm.names) == 2


def test_what_there_is_no_room_for_is_halved_and_asked_for_later(node: LoginNode) -> None:
    """The user hears once that there is no room. No job fails for it."""
    node.slurm.answers = [NoRoom("submit limit"), NoRoom("submit limit"), NoRoom("submit limit"), "7"]
    node.put(0, 1, 2, 3)
    for _ in range(4):
        node.passes(1.0)
    assert asked(node) == [4, 2, 1]
    node.passes(5.0)
    assert asked(node)[:4] == [4, 2, 1, 1]
    assert len([one for one in node.controller.notes if "no room" in one]) == 1
    assert not node.ends()


def test_a_refusal_is_final_for_its_class(node: LoginNode) -> None:
    """The jobs of another one go on."""
    node.put(0, klass="g0-c64-m0")
    node.put(1)
    node.slurm.answers = ["7", Refused("sbatch: error: no such node")]
    node.passes(1.0)
    node.passes()
    assert node.ends() == {"0.1": "host"}
    assert "no such node" in node.said("final")[0]["envelope"]["error"]["message"]
    assert node.pool.waiting("default") == ["1.1"]


def test_fewer_slots_where_no_node_is_large_enough(node: LoginNode) -> None:
    """Half as many, until there is one. Then what even a single job needs is refused."""
    node.asking.requests.options = {"jobs": "many", "slots": 4}
    node.slurm.answers = [Refused("not available"), Refused("not available"), "7"]
    node.put(*range(4))
    for _ in range(3):
        node.passes(1.0)
    slots = [one.script.partition("--slots ")[2].split()[0] for one in node.slurm.asked]
    assert slots == ["4", "2", "1"]
    assert [one.is_optional for one in node.slurm.asked] == [True, True, False]
    assert not node.ends()


def test_three_that_begin_nothing_are_enough(node: LoginNode) -> None:
    """Without accounting Slurm has only a word for each, or their logs have one. The jobs fail with it."""
    node.put(0)
    node.passes(1.0)
    (name,) = [one.name for one in node.slurm.asked]
    failed = [Listed(str(job), name, Phase.ENDED, "FAILED", "", "NonZeroExitCode", "n1") for job in (100, 101)]
    node.slurm.lists = failed
    node.passes(5.1)
    node.passes()
    assert not node.ends()
    log = node.allocation("102.0")
    wrote(log, "began", node="n1", at=1.0, request=name)
    wrote(log, "left", why="its disk could not be written")
    node.following.follow(node.now)
    node.passes()
    assert node.ends() == {"0.1": "host"}
    message = node.said("final")[0]["envelope"]["error"]["message"]
    assert "3 allocations ended before they could begin a job" in message
    assert "Slurm says FAILED" in message or "its disk could not be written" in message


def test_what_slurm_takes_and_never_lists_is_not_asked_for_again_and_again(node: LoginNode) -> None:
    """It may list nothing at all, or forget at once what has ended. After three requests the jobs fail, and the error says so."""
    node.put(0)
    for _ in range(100):
        node.passes(5.1)
    assert asked(node) == [1, 1, 1]
    assert node.ends() == {"0.1": "host"}
    assert "Slurm took the request and does not list it" in node.said("final")[0]["envelope"]["error"]["message"]


def test_what_has_begun_need_not_be_listed(node: LoginNode) -> None:
    """Its log says what became of it, also where Slurm has forgotten it. So it is not one of the three."""
    node.put(0)
    node.passes(1.0)
    log = node.allocation("100.0")
    wrote(log, "began", node="n1", at=1.0, request=node.slurm.asked[0].name)
    wrote(log, "left", why="no job waits")
    node.following.follow(node.now)
    for _ in range(100):
        node.passes(5.1)
    assert asked(node) == [1, 1, 1, 1]
    assert node.ends() == {"0.1": "host"}


@pytest.mark.parametrize("kind", ["preempted", "node_failed"])
def test_what_a_request_is_not_to_blame_for_does_not_count(node: LoginNode, kind: str) -> None:
    """However many of its allocations are preempted before they begin."""
    node.put(0)
    node.passes(1.0)
    name = node.slurm.asked[0].name
    node.slurm.lists = [Listed(str(job), name, Phase.ENDED, "X", kind, "", "n1") for job in range(100, 110)]
    node.passes(5.1)
    node.passes()
    assert not node.ends()


def test_what_waits_in_vain_is_cancelled_after_a_minute(node: LoginNode) -> None:
    """The jobs of its class fail with the reason. Before, the user hears it once."""
    node.put(0)
    node.put(1, klass="g0-c64-m0")
    node.passes(1.0)
    node.passes()
    bad = next(one.name for one in node.slurm.asked if "g0-c64-m0" in one.script)
    node.slurm.lists = [
        waiting(one.name, reason="PartitionTimeLimit" if one.name == bad else "Priority") for one in node.slurm.asked
    ]
    for _ in range(3):
        node.passes(20.0)
    assert not node.ends()
    node.passes(60.0)
    assert node.ends() == {"1.1": "host"}
    assert ([bad], True) in node.slurm.cancelled
    assert len([one for one in node.controller.notes if "PartitionTimeLimit" in one]) == 1


def test_what_a_node_could_not_start_is_replaced(node: LoginNode) -> None:
    """It is held for ever. The user hears of each such allocation once."""
    node.put(0)
    node.passes(1.0)
    name = node.slurm.asked[0].name
    node.slurm.lists = [Listed("100", name, Phase.ENDED, "launch failed", "node_failed", "", "n1", is_held=True)]
    node.passes(5.1)
    node.passes()
    assert asked(node) == [1, 1]
    node.passes(11.0)
    assert len([one for one in node.controller.notes if "could not start" in one or "could start" in one]) == 1


def test_an_allocation_that_slurm_does_not_list_is_dead(node: LoginNode) -> None:
    """Only one that had begun before Slurm was asked: a later one may not be in the list yet."""
    node.put(0, 1)
    node.passes(1.0)
    name = node.slurm.asked[0].name
    wrote(node.allocation("100.0"), "began", node="n1", at=1.0, request=name)
    node.following.follow(node.now)

    def listed(names: list[str]) -> list[Listed]:
        wrote(node.allocation("101.0"), "began", node="n1", at=1.0, request=name)
        node.following.follow(node.now)
        return []

    node.slurm.listed = listed  # type: ignore[assignment,method-assign]
    node.passes(5.1)
    buried = {one.name: one.kind for one in node.incarnations if one.buried_at is not None}
    assert buried == {"100.0": "lost"}


def test_what_slurm_says_of_an_end_explains_it(node: LoginNode) -> None:
    """What it says is alive is not touched, whatever the word."""
    node.put(0, 1)
    node.passes(1.0)
    name = node.slurm.asked[0].name
    for job in ("100", "101"):
        wrote(node.allocation(f"{job}.0"), "began", node="n1", at=1.0, request=name)
    node.following.follow(node.now)
    node.slurm.lists = [
        Listed("100", name, Phase.ENDED, "NODE_FAIL", "node_failed", "", "n1"),
        Listed("101", name, Phase.ALIVE, "TELEPORTING", "", "", "n1"),
    ]
    node.passes(5.1)
    assert {one.name: one.kind for one in node.incarnations if one.buried_at is not None} == {"100.0": "node_failed"}


def test_those_that_wait_go_when_no_job_does(node: LoginNode) -> None:
    """As far as Slurm lists them as such. What runs is not cancelled."""
    node.put(0, 1)
    node.passes(1.0)
    name = node.slurm.asked[0].name
    node.following.give_back("0.1", "", asked=True)
    assert node.pool.take("0.1")
    assert node.pool.take("1.1")
    node.slurm.lists = [waiting(name, "100"), waiting(name, "100")]
    node.passes(5.1)
    assert node.slurm.cancelled == [([name], True)]


def test_owed_hooks_need_an_allocation(node: LoginNode) -> None:
    """Until one has taken them."""
    owe(node.files, "0.1.1", Owed("90.0", "node_failed", "why"))
    node.log.owed["0.1"] = 1, "90.0"
    node.asking.at_once()
    node.passes()
    assert asked(node) == [1]
    node.take("100.0", "0.1.1")
    node.asking.at_once()
    node.passes()
    assert asked(node) == [1]


def test_who_leaves_asks_for_an_epilogue(node: LoginNode) -> None:
    """If allocations are there that may die. One that Slurm does not take is only in the log. Whoever comes next cancels it."""
    node.asking.leave()
    assert asked(node) == []
    node.put(0)
    node.passes(1.0)
    node.slurm.answers = [TIMED_OUT]
    node.asking.leave()
    request = node.slurm.asked[-1]
    assert request.after == ("100",)
    assert [one["name"] for one in node.records("epilogue")] == [request.name]
    node.start()
    node.asking.greet()
    node.asks.run()
    assert node.slurm.cancelled == [([request.name], True)]


def test_who_comes_next_looks_up_what_has_no_answer(node: LoginNode) -> None:
    """The one before died between the request and its answer. Until Slurm has said whether it has it, nothing is asked for."""
    node.log.record("asking", name="hrl-r1-1-0", count=2)
    node.put(0, 1)
    node.start()
    node.asking.greet()
    node.slurm.lists = [waiting("hrl-r1-1-0", "55"), waiting("hrl-r1-1-0", "55")]
    node.asks.run()
    node.passes(0.3)
    node.passes(0.3)
    assert asked(node) == []
    assert [one["job"] for one in node.records("answered")] == ["55"]
