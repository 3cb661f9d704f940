"""When the agent sends its messages about short jobs that wait in line; see remote_agent/agent/link/batching.py."""

from __future__ import annotations

import time
from unittest import mock

import pytest

from remote_agent.agent.link import batching
from tests.remote_agent.agent.test_agent_machine import spec
from tests.remote_agent.stepped_agent import SteppedAgent


class TestHolding:
    """Messages about short jobs that wait in line are sent together."""

    @pytest.fixture
    def host(self):
        """An agent, its jobs and its links."""
        host = SteppedAgent()
        yield host
        host.close()

    @staticmethod
    def _busy(host):
        """Make it an agent that has just sent a message, after many others."""
        for _ in range(50):
            host.agent._batching.note_sent(time.monotonic())

    def test_messages_about_jobs_in_line_are_held_for_a_moment_and_then_sent(self, host):
        """If the queue is long and messages are frequent, the message about a start is sent with those that follow."""
        peer = host.controller()
        for num in range(5):
            peer.say({"t": "job", "spec": spec(attempt_id=f"{num}.1", num=num)}, b"payload")
        host.settle()
        assert len(peer.all("started")) == 2
        _, job = host.jobs()[0]
        with mock.patch.object(batching, "HOLD", 3600.0):
            self._busy(host)
            job.finish(b"result")
            for _ in range(1000):
                host.agent._turn(0.01)
                if host.agent._held_for:
                    break
            peer.hear()
            assert host.agent._held_for
            assert peer.all("final") == []
        host.agent._turn(0.0)
        host.settle()
        assert [header["attempt"] for header in peer.all("final")] == [job.attempt]

    def test_without_a_queue_everything_is_sent_at_once(self, host):
        """If no job waits for a slot, the results of the last jobs are not delayed."""
        peer = host.controller()
        peer.say({"t": "job", "spec": spec()}, b"payload")
        host.settle()
        _, job = host.jobs()[0]
        with mock.patch.object(batching, "HOLD", 3600.0):
            self._busy(host)
            job.finish(b"result")
            for _ in range(1000):
                host.agent._turn(0.01)
                peer.hear()
                if peer.all("final") or host.agent._held_for:
                    break
        assert [header["attempt"] for header in peer.all("final")] == [job.attempt]
