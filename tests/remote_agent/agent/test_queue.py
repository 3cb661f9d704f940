"""The queue of a host: which attempts wait, start, or go back to the controller."""

from __future__ import annotations

import json

import pytest

from remote_agent.agent.spool.log import SpoolLog
from tests.remote_agent.agent.test_agent_machine import spec
from tests.remote_agent.stepped_agent import Peer, SteppedAgent


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

    monkeypatch.setattr(host.agent._attempts.log, "flush", fail)
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
        log = SpoolLog(host.agent._attempts.log.path)
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
