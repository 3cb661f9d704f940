"""The queue of a host: which attempts wait, start, or go back to the controller."""

from __future__ import annotations

import json

import pytest

from remote_agent.agent import queue
from remote_agent.agent.spool.log import SpoolLog
from tests.remote_agent.agent.test_agent_machine import spec
from tests.remote_agent.stepped_agent import Peer, SteppedAgent
from tests.specs import zygote_spec


@pytest.fixture
def host():
    """An agent with two slots."""
    host = SteppedAgent()
    yield host
    host.close()


def _send(peer: Peer, *numbers: int) -> None:
    for num in numbers:
        peer.say({"t": "job", "spec": spec(attempt_id=f"{num}.1", num=num)}, b"payload")


def _finish_first(host: SteppedAgent) -> None:
    zygote, job = host.jobs()[0]
    job.finish(b"result")
    zygote.ended(job, 0)
    host.settle()


def test_jobs_start_in_order_as_slots_become_free(host):
    """Two slots run two jobs. Each job that ends lets the next one start."""
    peer = host.controller()
    _send(peer, 0, 1, 2, 3)
    host.settle()
    assert host.forks == ["0.1", "1.1"]
    _finish_first(host)
    assert host.forks == ["0.1", "1.1", "2.1"]
    _finish_first(host)
    assert host.forks == ["0.1", "1.1", "2.1", "3.1"]


def test_a_job_that_is_sent_again_waits_once(host):
    """The second message changes nothing."""
    peer = host.controller()
    _send(peer, 0, 1, 2, 2)
    host.settle()
    for _ in range(3):
        _finish_first(host)
    assert host.forks == ["0.1", "1.1", "2.1"]


def test_a_job_that_is_cancelled_while_it_waits_never_starts(host):
    """It has its result at once, with the reason. The next job starts in its place."""
    peer = host.controller()
    _send(peer, 0, 1, 2, 3)
    host.settle()
    peer.say({"t": "cancel", "attempts": ["2.1"], "kind": "cancelled", "why": "not needed"})
    host.settle()
    (final,) = peer.all("final")
    assert (final["attempt"], final["envelope"]["error"]["message"]) == ("2.1", "not needed")
    _finish_first(host)
    assert host.forks == ["0.1", "1.1", "3.1"]


def test_a_disk_that_fails_gives_waiting_jobs_back(host, monkeypatch):
    """Jobs that have not started go back to the controller with the reason, because another host's disk may work."""
    peer = host.controller()
    _send(peer, 0, 1, 2, 3)
    host.settle()

    def fail() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(host.agent.attempts.log, "flush", fail)
    _send(peer, 4)
    host.settle()
    assert sorted(one["attempt"] for one in peer.all("dropped")) == ["2.1", "3.1", "4.1"]
    assert all("Input/output error" in one["why"] for one in peer.all("dropped"))
    monkeypatch.undo()


@pytest.mark.parametrize("slots", [0, -1, "many", 1 << 20])
def test_an_invalid_number_of_slots_is_refused(host, slots):
    """The error names the field, and the hello replaces no link."""
    peer = host.connect()
    peer.say({"t": "hello", "version": 1, "run": "r1", "controller": "c", "host": "h", "slots": slots})
    host.settle()
    (fatal,) = peer.all("fatal")
    assert (fatal["code"], "slots" in fatal["message"]) == ("field", True)


class TestTakingBack:
    """A controller asks for jobs that wait here, because another host is idle."""

    def test_a_job_that_waits_is_given_back_and_never_starts(self, host):
        """Those that were not asked for run in their order."""
        peer = host.controller()
        _send(peer, 0, 1, 2, 3, 4)
        host.settle()
        peer.say({"t": "take_back", "attempts": ["2.1", "4.1"]})
        host.settle()
        assert [(one["attempt"], one["asked"]) for one in peer.all("dropped")] == [("2.1", True), ("4.1", True)]
        for _ in range(3):
            _finish_first(host)
        assert host.forks == ["0.1", "1.1", "3.1"]

    def test_a_job_that_has_started_stays(self, host):
        """The answer says again that it has started."""
        peer = host.controller()
        _send(peer, 0, 1)
        host.settle()
        peer.say({"t": "take_back", "attempts": ["0.1", "7.1"]})
        host.settle()
        assert peer.all("dropped") == []
        assert [one["attempt"] for one in peer.all("started")] == ["0.1", "1.1", "0.1"]
        _finish_first(host)
        assert [one["attempt"] for one in peer.all("final")] == ["0.1"]

    def test_a_job_that_was_given_back_is_not_known_any_more(self, host):
        """A later welcome does not list it, and neither does what is on the disk."""
        peer = host.controller()
        _send(peer, 0, 1, 2, 3)
        host.settle()
        peer.say({"t": "take_back", "attempts": ["2.1"]})
        host.settle()
        welcome = next(frame for frame in host.controller().frames if frame.header["t"] == "welcome")
        assert json.loads(welcome.payload) == {"0.1": "running", "1.1": "running", "3.1": "queued"}
        records = []
        log = SpoolLog(host.agent.attempts.log.path)
        log.replay(lambda header, reference: records.append((header["r"], header["a"])))
        log.close()
        assert ("acked", "2.1") in records

    def test_the_same_attempt_may_come_back(self, host):
        """An answer that was lost costs nothing: the job is sent again, and starts once."""
        peer = host.controller()
        _send(peer, 0, 1, 2)
        host.settle()
        peer.say({"t": "take_back", "attempts": ["2.1"]})
        host.settle()
        _send(peer, 2)
        _finish_first(host)
        assert host.forks == ["0.1", "1.1", "2.1"]


class TestSizes:
    """A run says what each job needs, and the host is divided into slots of that size."""

    @staticmethod
    def _welcome(host: SteppedAgent, **more) -> list[dict]:
        peer = host.connect()
        peer.say({"t": "hello", "version": 1, "run": "r1", "controller": "c", "host": "h", "slots": None, **more})
        host.settle()
        return peer.all("welcome") or peer.all("fatal")

    def test_slots_are_what_fits(self, host, monkeypatch):
        """Each job gets its CPUs."""
        monkeypatch.setattr(queue, "usable_cpu_ids", lambda: [0, 1, 4, 5, 6])
        monkeypatch.setattr(queue, "usable_cpus", lambda: 5)
        (welcome,) = self._welcome(host, needs={"cpus": 2})
        assert (welcome["slots"], welcome["too_small"]) == (2, "")
        assert [slot.cpus for slot in host.agent.queue._slots] == [[0, 1], [4, 5]]

    def test_a_host_that_is_too_small_starts_nothing(self, host):
        """It says so in its welcome."""
        (welcome,) = self._welcome(host, needs={"cpus": 8}, size={"cpus": 4})
        assert welcome["too_small"] == "a job needs 8 CPUs, and it has 4 CPUs"
        peer = host.peers[-1]
        peer.say({"t": "prepare", "zygote": "z", "spec": zygote_spec().to_json()})
        _send(peer, 0)
        host.settle()
        assert host.forks == []

    def test_needs_that_make_no_sense_are_refused(self, host):
        """The link ends, and names the field."""
        (fatal,) = self._welcome(host, needs={"cpus": -1})
        assert "resources: cpus is -1" in fatal["message"]
