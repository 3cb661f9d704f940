"""Jobs whose allocation dies on a Slurm cluster: how they end, what is fired, and which of them go on by themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import launcher
from launcher import events
from tests.commands import Cli
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


def test_a_preempted_job_is_run_again_by_hand(
    preempting: SlurmCluster, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
):
    """Where `requeue` says that none goes on by itself, also not in the allocation that Slurm starts again. `launcher retry` chooses it by its kind."""
    run = FaultyRun(tmp_path).start(load_app().gated, 2, [login(preempting, partition="low", requeue={})])
    wait_started(run, 2)
    preempt(preempting)
    returns = run.finish(_LONG)
    assert [(one.error.kind, one.attempt) for one in returns if one.error] == [("preempted", 1)] * 2
    assert sorted(lines(preempting.login, "ran")) == ["0", "1"]
    paired(preempting, 2)
    open_gate(preempting.login)
    Cli(capfdbinary)("retry", str(tmp_path / "sweep"), "--kind", "preempted")
    assert sorted(lines(preempting.login, "ran")) == ["0", "0", "1", "1"]
    paired(preempting, 4)
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


def test_a_job_that_needs_too_much_memory_is_named(tmp_path: Path):
    """The kernel kills it alone. Its end hooks fire in the same allocation, and the job beside it there completes."""
    with running_cluster(tmp_path / "login", NODES=1, CGROUP=1) as cluster:
        run = FaultyRun(tmp_path).start(load_app().hungry, 2, [login(cluster, slots=2, mem="200M", allocations=1)])
        wait_started(run, 2)
        open_gate(cluster.login)
        hungry, beside = run.finish(_LONG)
        assert hungry.error.kind == "out_of_memory"
        assert beside.return_value == 10
        paired(cluster, 2)


def test_a_job_whose_allocation_is_cancelled_by_a_preemption(tmp_path: Path):
    """Slurm does not start the allocation again. Without `requeue`, the job fails with its kind; with it, it goes on in another allocation."""
    with running_cluster(tmp_path / "login", NODES=2, PREEMPT="CANCEL", KILLWAIT=30) as cluster:
        run = FaultyRun(tmp_path / "one").start(load_app().resumes, 1, [login(cluster, partition="low", requeue={})])
        wait_started(run, 1)
        preempt(cluster)
        (returned,) = run.finish(_LONG)
        assert (returned.error.kind, returned.attempt) == ("preempted", 1)
        paired(cluster, 1)
        run = FaultyRun(tmp_path / "two").start(load_app().resumes, 1, [login(cluster, partition="low")])
        wait_started(run, 1)
        preempt(cluster)
        wait_started(run, 2)
        open_gate(cluster.login)
        (returned,) = run.finish(_LONG)
        assert returned.return_value == {"attempt": 2, "step": 1, "after": ["preempted"]}
        paired(cluster, 3)
        wait_until(
            lambda: set(cluster.ask("squeue -h -r -t all -o %T").split()) <= {"COMPLETED", "CANCELLED", "PREEMPTED"},
            "no Slurm job is left",
            _LONG,
        )


def test_what_is_owed_when_nobody_is_left(tmp_path: Path):
    """The node dies, nothing starts again, and no controller is there: an allocation that waited for the end of all others fires the end hooks."""
    with running_cluster(tmp_path / "login", NODES=2) as cluster:
        detached(cluster, tmp_path / "out", "gated", requeue={}, options=["--no-requeue"])
        (node,) = cluster.ask("squeue -h -t R -o %N").split()
        cluster.do("kill-node", node)
        wait_until(lambda: len(lines(cluster.login, "hooks")) == 2, "the end hook", seconds=_LONG)
        paired(cluster, 1)
        with launcher.Session.resume(tmp_path / "out") as session:
            (job,) = session.as_completed()
            assert job.job_return().error.kind == "node_failed"
        paired(cluster, 1)
        assert len(lines(cluster.login, "ran")) == 1
        wait_until(
            lambda: set(cluster.ask("squeue -h -r -t all -o %T").split()) <= {"COMPLETED", "CANCELLED", "NODE_FAIL"},
            "no Slurm job is left",
            _LONG,
        )


def test_a_job_that_does_not_listen_when_its_time_is_up(tmp_path: Path):
    """It is killed before Slurm kills all of its allocation, however long its grace period is. So its end hooks fire in the same allocation."""
    with running_cluster(tmp_path / "login", NODES=1) as cluster:
        run = FaultyRun(tmp_path).start(load_app().stubborn, 1, [login(cluster, time="1")], grace=200)
        wait_started(run, 1)
        (returned,) = run.finish(_LONG)
        assert returned.error.kind == "time_limit"
        paired(cluster, 1)
        assert len(cluster.ask("squeue -h -r -t all -o %T").split()) == 1
        check_nothing_left(cluster)


def test_a_job_that_is_warned_when_its_time_of_grace_begins(tmp_path: Path):
    """Its end hooks fire then. Slurm would not start again what has left by itself, so the allocation asks for that, and the job goes on
    without a controller.
    """
    with running_cluster(tmp_path / "login", NODES=2, GRACE=120, USERSIG=1) as cluster:
        detached(cluster, tmp_path / "out", "resumes", partition="low")
        preempt(cluster)
        wait_until(lambda: len(lines(cluster.login, "hooks")) >= 2, "the end hook", seconds=60)
        wait_until(lambda: len(lines(cluster.login, "ran")) == 2, "the next attempt", seconds=_LONG)
        paired(cluster, 2, open_=1)
        open_gate(cluster.login)
        with launcher.Session.resume(tmp_path / "out") as session:
            (job,) = session.as_completed()
            assert job.result() == {"attempt": 2, "step": 1, "after": ["preempted"]}
        paired(cluster, 2)
        check_nothing_left(cluster)


def test_a_death_that_slurm_has_forgotten(tmp_path: Path):
    """Without accounting, Slurm knows of it for some seconds. Who asks later hears nothing: the job is `lost`, and its end hooks fire elsewhere."""
    with running_cluster(tmp_path / "login", NODES=1, AGE=5) as cluster:
        script = 'while [ -e /home/runner/blind ]; do sleep 0.1; done\nexec /usr/bin/squeue "$@"\n'
        cluster.put_program("squeue", f"#!/bin/sh\n{script}")
        run = FaultyRun(tmp_path).start(load_app().gated, 2, [login(cluster, requeue={}, allocations=1)])
        wait_started(run, 1)
        (cluster.login.home / "blind").touch()
        wait_until(lambda: lines(cluster.login, "pid.0"), "its process is known", _LONG)
        # Slurm would send SIGTERM first, and the allocation would tell.
        cluster.login.run("pkill -KILL -u runner -f 'allocation --run'; kill -KILL $(cat /home/runner/pid.0)")
        open_gate(cluster.login)
        wait_until(lambda: not cluster.ask("/usr/bin/squeue -h -r -t all -o %T").split(), "Slurm forgets it", _LONG)
        (cluster.login.home / "blind").unlink()
        lost, beside = run.finish(_LONG)
        assert lost.error.kind == "lost"
        assert "Slurm does not list its allocation any more" in lost.error.message
        assert beside.return_value == 10
        paired(cluster, 2)
        check_nothing_left(cluster)
