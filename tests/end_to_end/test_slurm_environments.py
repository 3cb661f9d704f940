"""The packages of a project on a Slurm cluster: built once on the shared disk, before any allocation is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events
from launcher.agents.queries.query import AgentQuery
from launcher.hosts.host_spec import HostSpec
from launcher.results.job_returns import JobReturns
from tests.commands import Cli
from tests.end_to_end.test_slurm import allocations, check_nothing_left, login
from tests.hosts.slurm import SlurmCluster, running_cluster
from tests.packages import lock_project, make_project, make_wheel
from tests.remote_agent.agents import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

TASK = "tests.environment_tasks:versions"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster of four nodes, for all tests here."""
    with running_cluster(tmp_path_factory.mktemp("slurm") / "login") as running:
        yield running


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The lock of a project that needs `greeter`, which needs `punct`."""
    folder = tmp_path_factory.mktemp("packages")
    make_wheel(folder / "index", "greeter", requires=("punct",))
    make_wheel(folder / "index", "punct", "2.0")
    return str(lock_project(make_project(folder / "project", folder / "index", ("greeter",))))


def run(spec: HostSpec, folder: Path, count: int, lock: str) -> tuple[JobReturns, list[events.Event]]:
    """Jobs that import both packages, each in an allocation of its own."""
    seen: list[events.Event] = []
    configs: list[dict[str, Any]] = [{"modules": ["greeter", "punct"]} for _ in range(count)]
    returns = launcher.multirun(TASK, configs, hosts=[spec], folder=folder, observers=[seen.append], environment=lock)
    return returns, seen


def test_an_environment_is_built_once_and_all_allocations_have_it(cluster: SlurmCluster, lock: str, tmp_path: Path):
    """It is there before Slurm is asked. A later run finds it."""
    before = len(allocations(cluster))
    returns, seen = run(login(cluster), tmp_path / "first", 3, lock)
    assert [one.error for one in returns] == [None] * 3
    (ready,) = [event for event in seen if isinstance(event, events.EnvironmentReady)]
    for one in returns:
        assert (one.return_value["greeter"], one.return_value["punct"]) == ("1.0", "2.0")
        assert one.return_value["prefix"].endswith(f"/envs/{ready.key}")
        assert one.code["environment"]["key"] == ready.key
    assert ready.is_new
    assert len(allocations(cluster)) == before + 3
    check_nothing_left(cluster)
    (again,), seen = run(login(cluster), tmp_path / "second", 1, lock)
    assert again.error is None
    assert [event.is_new for event in seen if isinstance(event, events.EnvironmentReady)] == [False]
    check_nothing_left(cluster)


@pytest.mark.parametrize("state", ["sending", "building"])
def test_a_link_that_is_lost_on_the_way_to_an_environment(cluster: SlurmCluster, lock: str, tmp_path: Path, state: str):
    """It is made over the next link, and jobs start once, when it is there. Nothing of the first try is left in the way."""
    before = len(allocations(cluster))
    spec = cluster.login.spec(slurm={}, workdir=f"/home/runner/{state}")
    seen: list[events.Event] = []
    killed: list[int] = []

    def watch(event: events.Event) -> None:
        seen.append(event)
        if isinstance(event, events.EnvironmentChanged) and event.state == state and not killed:
            killed.append(cluster.login.kill_sessions())

    configs: list[dict[str, Any]] = [{"modules": ["greeter", "punct"]} for _ in range(2)]
    returns = launcher.multirun(
        TASK, configs, hosts=[spec], folder=tmp_path / "out", observers=[watch], environment=lock
    )
    assert len(killed) == 1
    assert killed[0]
    assert [one.error for one in returns] == [None] * 2
    assert any(isinstance(event, events.HostUnknown) for event in seen), "the link was lost"
    (key,) = {event.key for event in seen if isinstance(event, events.EnvironmentReady)}
    assert all(one.return_value["prefix"].endswith(f"/envs/{key}") for one in returns)
    envs = cluster.login.home / state / "cache" / "envs"
    assert sorted(one.name for one in envs.iterdir() if not one.name.startswith(".")) == [key]
    assert len(allocations(cluster)) == before + 2
    check_nothing_left(cluster)


def test_an_environment_that_cannot_be_built_fails_before_slurm_is_asked(
    cluster: SlurmCluster, lock: str, tmp_path: Path
):
    """The error names the phase and what uv said, and no allocation is asked for."""
    before = len(allocations(cluster))
    spec = cluster.login.spec(slurm={}, workdir="/home/runner/broken")
    # A build makes its folder there.
    cluster.login.run(
        "mkdir -p /home/runner/broken/cache/envs && chown -R runner:runner /home/runner/broken && chmod 0700 -R /home/runner/broken && chmod 0500 /home/runner/broken/cache/envs"
    )
    returns, seen = run(spec, tmp_path / "out", 2, lock)
    assert [one.error.kind if one.error else "" for one in returns] == ["host"] * 2
    (unfit,) = [event for event in seen if isinstance(event, events.HostUnusable)]
    assert unfit.phase == "environment"
    assert len(allocations(cluster)) == before
    check_nothing_left(cluster)


#: Where each node of `disks` has a disk of its own.
_DISK = "/run/slurm/disk"


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster of two nodes, each of which has a disk of its own."""
    with running_cluster(tmp_path_factory.mktemp("disks") / "login", NODES=2, DISKS=200) as running:
        yield running


def on_disk(cluster: SlurmCluster, node: str) -> list[str]:
    """What lies in the folder of environments on the disk of a node, but for what has a hidden name and is kept."""
    found = cluster.login.run(f"ls -A /run/slurm/disks/{node}/*/envs").stdout.split()
    return sorted(one for one in found if one != ".use")


def test_each_node_builds_it_once_on_its_own_disk(
    disks: SlurmCluster, lock: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
):
    """From files that were sent once. Allocations that begin at once on a node wait for the one that builds. A later run finds it on both."""
    spec = login(disks, environments=_DISK)
    returns, seen = run(spec, tmp_path / "first", 8, lock)
    assert [one.error for one in returns] == [None] * 8
    (ready,) = [event for event in seen if isinstance(event, events.EnvironmentReady)]
    for one in returns:
        assert one.return_value["prefix"].startswith(f"{_DISK}/hydra-remote-launcher-")
        assert one.return_value["prefix"].endswith(f"/envs/{ready.key}")
        assert one.code["environment"]["key"] == ready.key
    assert [on_disk(disks, node) for node in ("n1", "n2")] == [[ready.key]] * 2
    assert sorted(built(seen)) == ["n1", "n2"]
    check_nothing_left(disks)
    (again,), seen = run(spec, tmp_path / "second", 1, lock)
    assert (again.error, again.return_value["prefix"], built(seen)) == (None, returns[0].return_value["prefix"], [])
    with AgentQuery(spec, "clean") as query:
        (item,) = query.environments()
    assert (item["key"], item["state"]) == (ready.key, "on nodes")
    hosts = tmp_path / "hosts.yaml"
    hosts.write_text(f"login: {{ssh_config: {disks.login.ssh_config}, slurm: {{environments: {_DISK}}}}}\n")
    cli = Cli(capfdbinary)
    assert "has its files there, and each node builds it" in cli(
        "prepare", "--hosts", str(hosts), "--environment", lock
    )
    assert f"only its files are here: each node builds it in {_DISK}" in cli("environments", "--hosts", str(hosts))
    check_nothing_left(disks)


def built(seen: list[events.Event]) -> list[str]:
    """On which nodes one was built, as the run says it."""
    texts = [event.message for event in seen if isinstance(event, events.Note)]
    return [text.partition(" on ")[2].partition(":")[0] for text in texts if "was built in" in text]


@pytest.mark.parametrize(
    ("folder", "before", "says"),
    [
        ("/run/slurm/disk", "fill", "free in .*\n    next: make room on that disk of the node"),
        ("/run/nowhere/disk", "true", "/run/nowhere is not there\n    next: name another folder with 'environments'"),
        (
            "/run/rootsown",
            "mkdir -p /run/rootsown",
            "cannot write to .*: Permission denied\n    next: name another folder",
        ),
    ],
)
def test_a_node_whose_disk_cannot_have_it_fails_the_job(
    disks: SlurmCluster, lock: str, tmp_path: Path, folder: str, before: str, says: str
):
    """The error names the node and what to do, and the other node is not asked for what this one lacks."""
    fill = "head -c 150M /dev/zero > /run/slurm/disks/n2/full"
    disks.login.run("rm -rf /run/slurm/disks/n2/hydra*; " + (fill if before == "fill" else before))
    try:
        spec = login(disks, environments=folder, options=["--nodelist=n2"])
        (returned,), _ = run(spec, tmp_path / "out", 1, lock)
    finally:
        disks.login.run("rm -f /run/slurm/disks/n2/full")
    assert returned.error is not None
    assert (returned.error.kind, returned.error.type) == ("host", "EnvironmentFailed")
    assert re.search("environment [0-9a-f]{12} on node n2: .*" + says, returned.error.message), returned.error.message
    check_nothing_left(disks)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The lock of a project whose package stops each Python that starts with it, until `/home/runner/gate` is there."""
    folder = tmp_path_factory.mktemp("gated")
    line = "import os, time; exec(\"while not os.path.exists('/home/runner/gate'): time.sleep(0.05)\")\n"
    make_wheel(folder / "index", "punct", "2.0", {"punct.py": "version = '2.0'\n", "stop.pth": line})
    return str(lock_project(make_project(folder / "project", folder / "index", ("punct",))))


def building(cluster: SlurmCluster) -> list[str]:
    """The Pythons that a build tries, before its environment is complete."""
    return [one for one in cluster.login.processes() if "/envs/.part." in one and "/bin/python" in one]


def kill(cluster: SlurmCluster, *words: str) -> None:
    """SIGKILL for all processes whose command line has one of these words, those of the first word first."""
    for word in words:
        for entry in cluster.login.path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if word in entry.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"):
                    cluster.login.run(f"kill -KILL {entry.parent.name}")


@pytest.mark.parametrize("how", ["killed", "scancel"])
def test_a_build_that_does_not_end_well_is_begun_again(disks: SlurmCluster, gated: str, tmp_path: Path, how: str):
    """Nothing half-built is in the way of the next allocation, whether it had time to clean up or not. The job runs once."""
    disks.login.run("rm -rf /home/runner/gate /run/slurm/disks/n1/hydra*")
    spec = login(disks, environments=_DISK, options=["--nodelist=n1"])
    session = launcher.Session.open(hosts=[spec], folder=tmp_path / "out", environment=gated)
    with session:
        future = session.submit(TASK, {"modules": ["punct"]})
        wait_until(lambda: building(disks), "it is built", 200.0)
        if how == "killed":
            kill(disks, " allocation ", "/envs/.part.")
        else:
            disks.ask("scancel --me --state=RUNNING")
        wait_until(lambda: not building(disks), "it is no longer built", 200.0)
        disks.login.run("touch /home/runner/gate")
        returned = future.result()
    assert returned["punct"] == "2.0"
    assert len(on_disk(disks, "n1")) == 1
    assert not on_disk(disks, "n1")[0].startswith(".")
    check_nothing_left(disks)


def test_a_cancel_does_not_wait_for_a_build(disks: SlurmCluster, gated: str, tmp_path: Path):
    """The job ends as cancelled, the build ends, and nothing is left of it."""
    disks.login.run("rm -rf /home/runner/gate /run/slurm/disks/n1/hydra*")
    spec = login(disks, environments=_DISK, options=["--nodelist=n1"])
    with launcher.Session.open(hosts=[spec], folder=tmp_path / "out", environment=gated) as session:
        future = session.submit(TASK, {"modules": ["punct"]})
        wait_until(lambda: building(disks), "it is built", 200.0)
        assert future.cancel()
        wait_until(lambda: not building(disks), "it is no longer built", 200.0)
    assert future.cancelled()
    wait_until(lambda: not on_disk(disks, "n1"), "nothing is left", 200.0)
    check_nothing_left(disks)
