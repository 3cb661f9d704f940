"""The packages of a project on a Slurm cluster: built once on the shared disk, before any allocation is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events
from launcher.hosts.host_spec import HostSpec
from launcher.results.job_returns import JobReturns
from tests.end_to_end.test_slurm import allocations, check_nothing_left, login
from tests.hosts.slurm import SlurmCluster, running_cluster
from tests.packages import lock_project, make_project, make_wheel

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
