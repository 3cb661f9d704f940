"""A link ends if the controller is silent, and waits for a slow one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote_agent.protocol import wire
from tests.remote_agent.agents import wait_until


def _resident(pid: int) -> int:
    """How many bytes of memory a process uses."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_a_silent_controller_is_pinged_and_then_its_link_is_closed(new_agent):
    """Pings are sent after a quarter of the heartbeat. Without an answer, the link is closed."""
    host = new_agent(patch="import remote_agent.protocol.constants as p; p.HEARTBEAT = 1.0")
    client = host.connect(prepare=False)
    client.answers = False
    client.expect("ping")
    client.wait_over()
    again = host.connect(prepare=False)
    again.expect("ping", n=5)
    assert not again.is_over


@pytest.mark.slow
def test_the_link_of_a_controller_that_sends_single_bytes_is_closed(new_agent):
    """Single bytes are no sign of life, whatever they belong to. The next link is served."""
    host = new_agent(patch="import remote_agent.protocol.constants as p; p.HEARTBEAT = 1.0")
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
def test_a_slow_controller_blocks_no_job_and_costs_no_memory(host):
    """If a controller does not read, results wait on the disk and not in memory."""
    client = host.connect()
    agent = host.agent_pid(client)
    before = _resident(agent)
    for num in range(40):
        host.job(client, num, do="large", size=1 << 20)
    host.started(40)
    wait_until(lambda: sum(record["r"] == "final" for record in host.log_lines()) == 40, "40 results in the spool")
    assert _resident(agent) - before < 16 << 20
    assert len(client.value("39.1")) == 1 << 20
