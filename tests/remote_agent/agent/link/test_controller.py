"""The links between a real agent and its controllers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote_agent.shared import wire
from tests.remote_agent.agents import wait_until

#: What an agent may be sent, and the code of its answer.
NONSENSE = [
    (b"\0garbage between frames, longer than a head of a frame", "mark"),
    (wire.encode({"t": "ping", "n": 1})[:2] + b"\x07" + b"\0" * 40, "version"),
    (wire._HEAD.pack(b"RL", wire.VERSION, 2, 1 << 63, 0), "size"),
    (wire.encode({"t": "no such thing"}), "unknown"),
    (wire.encode({"t": "started", "attempt": "0.1", "slot": 0, "at": 0}), "unknown"),
    (wire.encode({"t": "ping"}), "field"),
    (wire.encode({"t": "job", "spec": {"attempt_id": "../../x"}}), "field"),
    (wire.encode({"t": "job", "spec": {}}), "field"),
    (wire.encode({"t": "cancel", "attempts": [["0.1"]]}), "field"),
    (wire.encode({"t": "blobs", "items": [1, 2]}), "field"),
    (wire.encode({"t": "manifest", "sha256": "../../../etc/passwd"}), "field"),
    (wire.encode({"t": "blob", "sha256": "../x", "size": 1, "offset": 0}), "store"),
]


class TestLinks:
    """Connections come and go."""

    @pytest.mark.slow
    def test_a_result_is_sent_to_every_link_until_it_is_acknowledged(self, host):
        """A link that ends before the acknowledgement costs nothing."""
        client = host.connect()
        attempt = host.job(client, 0, value="x" * 1000)
        client.result(attempt)
        client.cut()
        second = host.connect()
        assert host.known(second) == {attempt: "final"}
        assert second.value(attempt) == "x" * 1000
        second.ack(attempt)
        second.send({"t": "ping", "n": 1})
        second.expect("pong", n=1)
        assert host.known(host.connect()) == {}

    @pytest.mark.slow
    def test_the_newest_link_wins(self, host):
        """A controller whose old link is half dead is served on the new one."""
        old = host.connect()
        new = host.connect(prepare=False)
        old.wait_over()
        assert new.value(host.job(new, 0)) == 0

    @pytest.mark.slow
    def test_a_silent_controller_is_asked_and_then_let_go(self, new_agent):
        """Pings go out at a quarter of the heartbeat; without an answer the link is closed."""
        host = new_agent(patch="import remote_agent.shared.protocol as p; p.HEARTBEAT = 1.0")
        client = host.connect(prepare=False)
        client.answers = False
        client.expect("ping")
        client.wait_over()
        again = host.connect(prepare=False)
        again.expect("ping", n=5)
        assert not again.is_over

    @pytest.mark.slow
    def test_an_agent_that_nobody_needs_ends_without_a_word(self, new_agent):
        """Who comes in that moment has not said hello. It connects again, and is not told that its run is over."""
        host = new_agent(patch="import remote_agent.agent.agent as a; a.IDLE_EXIT = 0.5")
        client = host.open()
        client.wait_over()
        assert client.all("fatal") == []

    @pytest.mark.slow
    def test_a_controller_that_drips_is_let_go(self, new_agent):
        """A byte now and then is no sign of life, whatever it is a part of; the next link is served."""
        host = new_agent(patch="import remote_agent.shared.protocol as p; p.HEARTBEAT = 1.0")
        client = host.connect(prepare=False)
        client.answers = False
        long = wire.encode({"t": "job", "spec": {}}, bytes(1 << 20))
        for at in range(len(long)):
            client.send_raw(long[at : at + 1])
            client.read(0.02)
            if client.is_over:
                break
        assert at < wire.STEP
        again = host.connect()
        assert again.value(host.job(again, 0)) == 0

    @pytest.mark.slow
    def test_nonsense_costs_the_link_and_nothing_else(self, host):
        """Whatever comes is answered with a typed error; jobs run on, and the next link is served."""
        gate = host.gate("g")
        client = host.connect()
        agent = host.agent_pid(client)
        attempt = host.job(client, 0, do="gate", gate=gate)
        host.started()
        for data, code in NONSENSE:
            client.send_raw(data)
            assert client.expect("fatal").header["code"] == code, data
            client.close()
            client = host.connect(prepare=False)
        assert host.agent_pid(client) == agent
        host.open_gate(gate)
        assert client.value(attempt) == 0

    @pytest.mark.slow
    def test_a_hello_for_somebody_else_is_refused(self, host):
        """Another run, another version, slots that are none: a typed error, and the agent goes on."""
        hello = {"t": "hello", "version": wire.VERSION, "run": host.run, "controller": "c", "host": "h", "slots": 1}
        for field, value, code in [
            ("run", "another", "run"),
            ("version", 99, "version"),
            ("slots", -1, "field"),
            ("slots", "many", "field"),
        ]:
            client = host.open()
            client.send({**hello, field: value})
            assert client.expect("fatal").header["code"] == code
            client.wait_over()
        client = host.connect()
        assert client.value(host.job(client, 0)) == 0

    def test_a_message_before_hello_is_refused(self, host):
        """Nobody is served who has not said who he is."""
        client = host.open()
        client.send({"t": "ping", "n": 1})
        assert client.expect("fatal").header["code"] == "order"

    @pytest.mark.slow
    def test_a_socket_that_was_removed_is_created_again(self, host):
        """Somebody cleans up: the agent is reached all the same, and stays the only one."""
        client = host.connect()
        gate = host.gate("g")
        attempt = host.job(client, 0, do="gate", gate=gate)
        host.started()
        (host.spool / "agent.sock").unlink()
        client.cut()
        again = host.connect()
        assert host.agent_pid(again) == host.agent_pid(client)
        host.open_gate(gate)
        assert again.value(attempt) == 0

    @pytest.mark.slow
    def test_a_slow_controller_blocks_no_job_and_costs_no_memory(self, host):
        """Results wait on the disk, not in memory, for a controller that does not read."""
        client = host.connect()
        agent = host.agent_pid(client)
        before = _resident(agent)
        for num in range(40):
            host.job(client, num, do="large", size=1 << 20)
        host.started(40)
        wait_until(lambda: sum(record["r"] == "final" for record in host.log_lines()) == 40, "40 results in the spool")
        assert _resident(agent) - before < 16 << 20
        assert len(client.value("39.1")) == 1 << 20

    @pytest.mark.slow
    def test_two_runs_do_not_meet(self, host, new_agent):
        """Each has its agent and its spool."""
        other = new_agent()
        one, two = host.connect(), other.connect()
        assert host.agent_pid(one) != host.agent_pid(two)
        assert one.value(host.job(one, 0, value="one")) == "one"
        assert two.value(other.job(two, 0, value="two")) == "two"


def _resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
