"""The links between a real agent and its controllers."""

from __future__ import annotations

import pytest

from remote_agent.protocol import wire

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
        """A link that ends before the acknowledgement loses nothing."""
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
        """If a controller's old link is half dead, the new one is served."""
        old = host.connect()
        new = host.connect(prepare=False)
        old.wait_over()
        assert new.value(host.job(new, 0)) == 0

    @pytest.mark.slow
    def test_an_idle_agent_ends_without_a_message(self, new_agent):
        """A controller that connects at this moment has not said hello. It connects again, and does not think that
        its run is over.
        """
        host = new_agent(patch="import remote_agent.agent.agent as a; a.IDLE_EXIT = 0.5")
        client = host.open()
        client.wait_over()
        assert client.all("fatal") == []

    @pytest.mark.slow
    def test_a_protocol_error_ends_only_the_link(self, host):
        """The answer is a typed error. Jobs go on, and the next link is served."""
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
    def test_a_wrong_hello_is_refused(self, host):
        """Another run, another version, or an invalid number of slots is a typed error, and the agent goes on."""
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
        """Nothing is served before the hello."""
        client = host.open()
        client.send({"t": "ping", "n": 1})
        assert client.expect("fatal").header["code"] == "order"

    @pytest.mark.slow
    def test_two_runs_have_separate_agents(self, host, new_agent):
        """And separate spools."""
        other = new_agent()
        one, two = host.connect(), other.connect()
        assert host.agent_pid(one) != host.agent_pid(two)
        assert one.value(host.job(one, 0, value="one")) == "one"
        assert two.value(other.job(two, 0, value="two")) == "two"
