"""`launcher gpus`."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.errors import ConnectionLost
from launcher.hosts.host_spec import HostSpec
from remote_agent.system import gpu_lease
from tests.commands import Cli
from tests.gpus import FalseGpus
from tests.requirements import READS_PROC

pytestmark = READS_PROC


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    """The command `launcher`."""
    return Cli(capfdbinary)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FalseGpus:
    """This machine has two GPUs."""
    return FalseGpus.make(tmp_path / "driver", monkeypatch, 2)


def test_it_shows_who_has_which(cli: Cli, driver: FalseGpus) -> None:
    """By run and job, with the processes of others."""
    driver.write(driver.lines[0], driver.lines[1], "proc 1 1200")
    lease = gpu_lease.take(driver.names[0], "r1")
    assert lease is not None
    lease.tag("3.1")
    done = cli("gpus", "local")
    lease.close()
    first, second, process = done.splitlines()[1:]
    assert f"0  {driver.names[0]}  False GPU, 3 of 16,384 MiB used: job 3 of run r1 for " in first
    assert second.endswith("3 of 16,384 MiB used: not leased, in use")
    assert process.strip().startswith("process 1 (")
    assert process.endswith(", 1,200 MiB")


def test_json_has_the_same(cli: Cli, driver: FalseGpus) -> None:
    """And whether leases hold on the whole host."""
    (host,) = cli.json("gpus", "local")["hosts"]
    assert (host["host"], host["source"], host["error"], host["is_whole_host"]) == (
        "local",
        "nvml",
        None,
        gpu_lease.covers_host(),
    )
    assert [gpu["uuid"] for gpu in host["gpus"]] == driver.names


def test_the_hosts_file_says_which_jobs_may_have(cli: Cli, driver: FalseGpus, tmp_path: Path) -> None:
    """One that is not there is a warning."""
    path = tmp_path / "hosts.yaml"
    path.write_text("local: {gpus: [1]}")
    assert "free; the hosts file leaves it out" in cli("gpus", "--hosts", str(path)).splitlines()[1]
    path.write_text("local: {gpus: 3}")
    assert "warning: a run cannot use this host: 3 of its GPUs are asked for" in cli("gpus", "--hosts", str(path))


def test_a_host_without_gpus(cli: Cli, driver: FalseGpus) -> None:
    """The reason is told."""
    driver.write("down")
    assert cli("gpus", "local").splitlines()[1:] == ["  no GPU (Driver Not Loaded)"]


def test_a_host_that_cannot_be_reached_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are shown all the same; if none is left, the command fails."""

    def fail(spec: HostSpec, role: str) -> None:
        raise ConnectionLost("local", "connect", "it is away")

    monkeypatch.setattr("launcher.agents.queries.query.AgentQuery", fail)
    assert "it is away" in cli("gpus", "local", code=1)
    assert "no host could be reached" in cli.err
