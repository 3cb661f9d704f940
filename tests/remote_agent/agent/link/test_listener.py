"""An agent is reached by its socket, even if somebody has removed that."""

from __future__ import annotations

import pytest


@pytest.mark.slow
def test_a_socket_that_was_removed_is_created_again(host):
    """After a clean-up the agent can still be reached, and stays the only one."""
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
