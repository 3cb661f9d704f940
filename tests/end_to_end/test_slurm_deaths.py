"""Jobs whose allocation dies on a Slurm cluster: how they end, what is fired, and which of them go on by themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import launcher
from launcher import events
from tests.end_to_end.test_slurm import check_nothing_left, login
from tests.faults.injection import FaultyRun, lines, load_app, open_gate
from tests.hosts.slurm import SlurmCluster, running_cluster
from tests.remote_agent.agents import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

#: Seconds that nothing here takes, however busy the machine is.
_LONG = 200.0


@pytest.fixture
def preempting(tmp_path: Path) -> Iterator[SlurmCluster]:
    """A cluster whose partition `high` preempts `low`, after a grace of some seconds, and with Slurm's usual time until SIGKILL."""
    with running_cluster(tmp_path / "login", NODES=2, GRACE=8, KILLWAIT=30) as running:
        yield running


def preempt(cluster: SlurmCluster) -> None:
    """Take all nodes for a moment, for jobs that matter more."""
    cluster.ask("sbatch -p high --nodes=2 --exclusive --output=/dev/null --wrap 'sleep 1'")


def wait_started(run: FaultyRun, count: int) -> None:
    """Wait until this many attempts have begun, or the run is over."""

    def is_so() -> bool:
        assert not run.of(events.RunEnded), run.of(events.JobReturned)
        return len(run.of(events.AttemptStarted)) >= count

    run.wait_for(f"{count} attempts", is_so, _LONG)


def paired(cluster: SlurmCluster, starts: int, open_: int = 0) -> None:
    """So many start hooks have fired, and each has its end hook, but for those of jobs that run."""
    hooks = Counter(one.split()[0] for one in lines(cluster.login, "hooks"))
    assert hooks == Counter(start=starts, end=starts - open_)


def test_a_preempted_job_goes_on_from_its_checkpoint(preempting: SlurmCluster, tmp_path: Path):
    """It gets SIGTERM, its end hooks fire, and the next attempt runs in the allocation that Slurm starts again. It has what the first one saved."""
    run = FaultyRun(tmp_path).start(load_app().resumes, 1, [login(preempting, partition="low")])
    wait_started(run, 1)
    preempt(preempting)
    wait_started(run, 2)
    open_gate(preempting.login)
    (returned,) = run.finish(_LONG)
    assert returned.return_value == {"attempt": 2, "step": 1, "after": ["preempted"]}
    assert returned.attempt == 2
    assert [event.why for event in run.of(events.JobRequeued)] == ["run again there after: preempted"]
    assert len(run.of(events.JobReturned)) == 1
    paired(preempting, 2)
    check_nothing_left(preempting)


def detached(cluster: SlurmCluster, folder: Path, task: str, **slurm: object) -> None:
    """Submit a job, see it run, and leave it alone."""
    app = load_app()
    with launcher.Session.open(hosts=[login(cluster, **slurm)], folder=folder, callbacks=[app.Witness()]) as session:
        session.submit(getattr(app, task), {"num": 0})
        wait_until(lambda: lines(cluster.login, "ran"), "the job runs", seconds=_LONG)
        session.detach()
    wait_until(
        lambda: not [one for one in cluster.login.processes() if "connect" in one], "the login node is free", _LONG
    )


def test_a_job_whose_node_died_goes_on_without_a_controller(tmp_path: Path):
    """Slurm starts its allocation again, which fires the end hooks that the dead one owes, and then runs the next attempt from its checkpoint."""
    with running_cluster(tmp_path / "login", NODES=2) as cluster:
        detached(cluster, tmp_path / "out", "resumes")
        (node,) = cluster.ask("squeue -h -t R -o %N").split()
        cluster.do("kill-node", node)
        wait_until(lambda: len(lines(cluster.login, "ran")) == 2, "the next attempt", seconds=_LONG)
        paired(cluster, 2, open_=1)
        open_gate(cluster.login)
        with launcher.Session.resume(tmp_path / "out") as session:
            (job,) = session.as_completed()
            assert job.result() == {"attempt": 2, "step": 1, "after": ["node_failed"]}
        paired(cluster, 2)
        check_nothing_left(cluster)
