"""What a real cluster does with each request of the seam, as an ordinary user on its login node."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from launcher.bootstrap.bundle import build_bundle, unpack
from tests.hosts.slurm import SlurmCluster, running_cluster
from tests.remote_agent.agents import wait_until

pytestmark = pytest.mark.slurm

Ask = Callable[[str], Any]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster of four nodes, which forgets ended jobs as late as others do."""
    with running_cluster(tmp_path_factory.mktemp("slurm") / "login") as running:
        unpack(build_bundle(), running.login.home / "bundle")
        running.login.run("chown -R runner /home/runner/bundle")
        yield running


@pytest.fixture
def ask(cluster: SlurmCluster) -> Ask:
    """Evaluates an expression on the login node, in which `slurm` is the cluster."""
    program = (
        "import glob, json, sys; sys.path.insert(0, glob.glob('/home/runner/bundle/*')[0]); from remote_agent.slurm.batch.batch import *; "
        "from remote_agent.slurm.batch.batch_slurm import Slurm; slurm = Slurm()\n"
        "try: said = eval(sys.argv[1])\n"
        "except BatchError as error: said = [type(error).__name__, str(error)]\n"
        "print(json.dumps(said, default=lambda one: one.value))"
    )
    folder = cluster.login.home
    (folder / "ask.py").write_text(program)

    def evaluate(expression: str) -> Any:
        (folder / "expression").write_text(expression)
        return json.loads(cluster.ask('python3 -I /home/runner/ask.py "$(cat /home/runner/expression)"'))

    return evaluate


def request(name: str, tasks: int, script: str, **needs: str) -> str:
    """The expression of a request."""
    return f"Request({name!r}, {tasks}, None, '#!/bin/sh\\n{script}', '/home/runner/%j.out', {needs!r}, ())"


def phases(ask: Ask, name: str) -> list[str]:
    """The phases of all allocations of that name."""
    return sorted(phase for _, _, phase, *_ in ask(f"slurm.listed([{name!r}])"))


def test_an_array_runs_and_is_listed_until_slurm_forgets_it(ask: Ask, cluster: SlurmCluster):
    """Each task has an id of its own, a node, and an end."""
    assert ask("slurm.limits()") == [100, 3.0, 300.0]
    assert ask(f"slurm.submit({request('hrl-one', 3, 'echo $SLURM_JOB_ID-$SLURM_RESTART_COUNT')})").isdigit()
    wait_until(lambda: phases(ask, "hrl-one") == ["ended"] * 3, "three tasks end")
    listed = ask("slurm.listed(['hrl-one'])")
    assert [word for _, _, _, word, *_ in listed] == ["COMPLETED"] * 3
    for job, *_ in listed:
        assert (cluster.login.home / f"{job}.out").read_text() == f"{job}-\n"


def test_what_can_never_run_is_refused_or_waits_with_a_reason(ask: Ask):
    """Slurm refuses a partition that it does not have. It takes what is over a limit of the partition, and says why that waits."""
    assert ask(f"slurm.submit({request('hrl-two', 1, 'true', partition='absent')})")[0] == "Refused"
    assert ask(f"slurm.submit({request('hrl-two', 1, 'true', partition='short', time='10')})").isdigit()

    def reason() -> str:
        ((_, _, phase, _, _, why, *_),) = ask("slurm.listed(['hrl-two'])")
        return why if phase == "waiting" else phase

    wait_until(lambda: reason() == "PartitionTimeLimit", "a reason is given")
    ask("slurm.cancel(['hrl-two'])")
    wait_until(lambda: phases(ask, "hrl-two") == ["ended"], "it is cancelled")


def test_what_waits_can_be_cancelled_alone(ask: Ask):
    """What runs goes on until all is cancelled. Cancelling what is gone is no error."""
    ask(f"slurm.submit({request('hrl-three', 20, 'exec sleep 600')})")
    wait_until(lambda: phases(ask, "hrl-three").count("alive") == 8, "all slots run")
    ask("slurm.cancel(['hrl-three'], waiting_only=True)")
    # Slurm lists tasks that it had not split off yet as one when they are cancelled.
    wait_until(lambda: phases(ask, "hrl-three") == ["alive"] * 8 + ["ended"], "what waits is cancelled")
    ask("slurm.cancel(['hrl-three'])")
    wait_until(lambda: set(phases(ask, "hrl-three")) == {"ended"}, "all is cancelled")
    assert {kind for _, _, _, _, kind, *_ in ask("slurm.listed(['hrl-three'])")} == {"cancelled"}
    ask("slurm.cancel(['hrl-three', 'hrl-absent'])")


def test_a_controller_that_is_away_leaves_a_request_open(ask: Ask, cluster: SlurmCluster):
    """Nobody knows what became of it, until the name is found or not."""
    cluster.do("kill-ctld")
    try:
        assert ask(f"slurm.submit({request('hrl-four', 1, 'true')})")[0] == "NoAnswer"
        assert ask("slurm.listed(['hrl-four'])")[0] == "BatchError"
    finally:
        cluster.do("start-ctld")
    wait_until(lambda: ask("slurm.listed(['hrl-four'])") == [], "the controller answers")
