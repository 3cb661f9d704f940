"""The agent's answers to queries."""

from __future__ import annotations

import json

import pytest

from tests.remote_agent.agent.test_agent_machine import spec
from tests.remote_agent.stepped_agent import SteppedAgent


@pytest.fixture
def host():
    """An agent with one running job, and its controller."""
    host = SteppedAgent()
    peer = host.controller()
    peer.say({"t": "job", "spec": spec()}, b"payload")
    host.settle()
    yield host
    host.close()


def test_all_attempts_are_described(host):
    """A query needs no hello, and gets the state of each attempt."""
    looker = host.connect()
    looker.say({"t": "look", "attempt": None, "stdout": 0, "stderr": 0})
    host.settle()
    (frame,) = [frame for frame in looker.frames if frame.header["t"] == "looked"]
    (described,) = json.loads(frame.payload).values()
    assert (described["state"], described["status"]) == ("running", None)


def test_output_comes_from_the_offset_that_was_asked_for(host):
    """The output comes before the state."""
    ((_, job),) = host.jobs()
    host.print(job.attempt, b"0123456789")
    looker = host.connect()
    looker.say({"t": "look", "attempt": job.attempt, "stdout": 4, "stderr": 0})
    host.settle()
    output, looked = looker.frames
    assert (output.header["stream"], output.header["offset"], output.payload) == ("stdout", 4, b"456789")
    assert (looked.header["attempt"], looked.header["state"]) == (job.attempt, "running")


def test_an_attempt_that_is_not_known_is_unknown(host):
    """It is no error."""
    looker = host.connect()
    looker.say({"t": "look", "attempt": "99.1", "stdout": 0, "stderr": 0})
    host.settle()
    (looked,) = looker.all("looked")
    assert looked["state"] == "unknown"


def test_a_query_does_not_replace_the_controller(host):
    """The controller's link stays, and still gets the result."""
    looker = host.connect()
    looker.say({"t": "look", "attempt": None, "stdout": 0, "stderr": 0})
    host.settle()
    ((_, job),) = host.jobs()
    job.finish(b"result")
    host.settle()
    assert len(host.peers[0].all("final")) == 1
    assert looker.all("final") == []
