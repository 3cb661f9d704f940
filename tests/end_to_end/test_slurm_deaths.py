"""Jobs whose allocation dies on a Slurm cluster: how they end, what is fired, and which of them go on by themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import events
from tests.end_to_end.test_slurm import check_nothing_left, login
from tests.faults.injection import FaultyRun, lines, load_app, open_gate
from tests.hosts.slurm import SlurmCluster, running_cluster

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


def paired(cluster: SlurmCluster, starts: int) -> None:
    """So many start hooks have fired, and each has its end hook."""
    hooks = Counter(one.split()[0] for one in lines(cluster.login, "hooks"))
    assert hooks == Counter(start=starts, end=starts)


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
