"""A Slurm cluster with accounting: what `sacct` says of our allocations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import launcher
from tests.end_to_end.test_slurm import check_nothing_left, login
from tests.faults.injection import FaultyRun, lines, load_app
from tests.hosts.slurm import SlurmCluster, running_cluster
from tests.remote_agent.agents import wait_until
from tests.requirements import need_programs

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

#: Seconds that nothing here takes, however busy the machine is.
_LONG = 200.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster of two nodes with MariaDB and slurmdbd."""
    need_programs("mariadbd", "mariadb-install-db", "slurmdbd", "sacctmgr", "sacct")
    with running_cluster(tmp_path_factory.mktemp("slurm") / "login", NODES=2, DBD=1, USERS="runner") as running:
        yield running


def accounted(cluster: SlurmCluster) -> Counter[str]:
    """How many allocations ended in which state, as sacct says it."""
    return Counter(one.split()[0] for one in cluster.ask("sacct -X -D -n -P -o State").splitlines())


def test_what_accounting_says_of_a_run(cluster: SlurmCluster, tmp_path: Path):
    """Allocations are COMPLETED, whatever became of their jobs, and none is FAILED. One that was cancelled from outside says by whom."""
    run = FaultyRun(tmp_path / "quick").start(load_app().quick, 5, [login(cluster)])
    run.finish(_LONG)
    run.check_nothing_lost(cluster.login, 5)
    check_nothing_left(cluster)
    wait_until(lambda: accounted(cluster) == {"COMPLETED": 5}, "sacct knows the end of all of them", _LONG)
    with launcher.Session.open(hosts=[login(cluster)], folder=tmp_path / "slow") as session:
        job = session.submit(load_app().gated, {"num": 0})
        wait_until(lambda: len(lines(cluster.login, "ran")) == 6, "it runs", _LONG)
        cluster.ask("scancel --me --state=RUNNING")
        returned = job.job_return()
    assert returned.error is not None
    assert returned.error.kind == "cancelled"
    check_nothing_left(cluster)
    wait_until(lambda: sum(accounted(cluster).values()) == 6, "sacct knows the end of this one", _LONG)
    assert set(accounted(cluster)) == {"COMPLETED", "CANCELLED"}


def test_a_limit_of_the_account_is_kept_to(cluster: SlurmCluster, tmp_path: Path):
    """A QOS takes three submitted jobs of a user at a time: fewer are asked for, and more when some have ended. All run once."""
    for name in ("ran", "hooks"):
        (cluster.login.home / name).unlink(missing_ok=True)
    run = FaultyRun(tmp_path).start(load_app().quick, 8, [login(cluster, options=["--qos=few"])])
    run.finish(_LONG)
    run.check_nothing_lost(cluster.login, 8)
    check_nothing_left(cluster)
