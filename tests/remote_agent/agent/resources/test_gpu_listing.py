"""What each GPU of a host is used for."""

from __future__ import annotations

import os

import pytest

from remote_agent.agent.resources.gpu_listing import list_gpus
from remote_agent.protocol import wire
from remote_agent.system import gpu_lease
from tests.gpus import FalseGpus
from tests.requirements import READS_PROC

pytestmark = READS_PROC


@pytest.fixture
def driver(tmp_path, monkeypatch) -> FalseGpus:
    """A driver with two GPUs."""
    return FalseGpus.make(tmp_path / "driver", monkeypatch, 2)


def test_who_has_it_and_who_uses_it(driver):
    """A process of the job's session is the job's; one that is gone is nobody's."""
    gone = 4_100_000
    driver.write(driver.lines[0], f"proc {os.getpid()} 100", f"proc {gone} -1", driver.lines[1])
    lease = gpu_lease.take(driver.names[0], "r1")
    os.close(os.dup(lease.tag("3.1")))
    found, why, (first, second) = list_gpus(None)
    lease.close()
    me = {"pid": os.getpid(), "name": gpu_lease.process_name(os.getpid()), "user": gpu_lease.user_of(os.geteuid())}
    since = first["holder"].pop("since")
    assert since > 0
    assert first["holder"] == {**me, "run": "r1", "attempt": "3.1"}
    is_leader = os.getsid(0) == os.getpid()
    assert first["processes"] == [
        {**me, "used": 100 << 20, "is_of_job": is_leader},
        {"pid": gone, "name": "", "user": "an unknown user", "used": None, "is_of_job": False},
    ]
    assert (second["uuid"], second["holder"], second["processes"]) == (driver.names[1], None, [])
    assert (found.source, why) == ("nvml", "")


def test_those_that_a_run_may_have_are_marked(driver):
    """If it can have none, the reason is told."""
    assert [gpu["is_chosen"] for gpu in list_gpus([1])[2]] == [False, True]
    assert [gpu["is_chosen"] for gpu in list_gpus(0)[2]] == [False, False]
    _, why, items = list_gpus(["GPU-none"])
    assert why.startswith("GPU GPU-none is asked for, and it has 0 GPU-")
    assert [gpu["is_chosen"] for gpu in items] == [False, False]
    with pytest.raises(wire.ProtocolError, match="gpus are"):
        list_gpus("many")


def test_processes_that_are_not_known_are_not_none(driver):
    """Nor is a GPU that cannot be read missing."""
    driver.write("lost", *driver.lines, f"mig {driver.new_name('MIG')} 1 0")
    assert [gpu["uuid"] for gpu in list_gpus(None)[2]] == ["", driver.names[0], driver.names[2]]
