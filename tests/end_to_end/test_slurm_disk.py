"""Runs on a Slurm cluster whose shared disk is full, or shows late what another node has written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from launcher import events
from tests.end_to_end.test_slurm import balanced, check_nothing_left
from tests.faults.injection import FaultyRun, lines, load_app, open_gate, small_disk
from tests.hosts.slurm import SlurmCluster, running_cluster
from tests.remote_agent.agents import wait_until
from tests.requirements import need_programs

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

#: Seconds that nothing here takes, however busy the machine is.
_LONG = 200.0
_SHARED = "/home/runner/shared"


def test_a_shared_disk_that_is_full_for_a_while(tmp_path: Path):
    """Results that find no room wait for it. No job starts meanwhile, none is lost, and the run says why it stands still."""
    with running_cluster(tmp_path / "login", NODES=1) as cluster:
        small_disk(cluster.login, _SHARED, "size=8m")
        host = cluster.login.spec(slurm={"slots": 2, "allocations": 1, "idle": 0}, workdir=_SHARED)
        run = FaultyRun(tmp_path).start(load_app().gated, 6, [host])
        run.wait_for("two jobs", lambda: len(lines(cluster.login, "ran")) == 2, _LONG)
        cluster.login.run(f"cat /dev/zero >{_SHARED}/filler")
        open_gate(cluster.login)
        wait_until(lambda: len(lines(cluster.login, "hooks")) == 4, "both have ended", _LONG)
        run.wait_for("words", lambda: [one for one in run.of(events.Note) if "No space left" in one.message], _LONG)
        assert len(lines(cluster.login, "ran")) == 2
        cluster.login.run(f"rm {_SHARED}/filler")
        run.check_nothing_lost(cluster.login, 6)
        balanced(cluster)
        check_nothing_left(cluster)


#: Seconds by which each process sees late what others have changed.
_LATE = 4


def make_late(cluster: SlurmCluster) -> None:
    """From now on each process of the user sees the folders of runs late."""
    home = cluster.login.home
    source = Path(__file__).parent.parent / "hosts" / "late_view.c"
    subprocess.run(
        [need_programs("cc")["cc"], "-shared", "-fPIC", "-o", str(home / "late.so"), str(source), "-ldl", "-lpthread"],
        check=True,
    )
    variables = {
        "LD_PRELOAD": "/home/runner/late.so",
        "LATE_SECONDS": str(_LATE),
        "LATE_BELOW": "/home/runner/.local/",
        "LATE_NOTES": "/home/runner/late",
    }
    (home / ".bashrc").write_text("".join(f"export {name}={value}\n" for name, value in variables.items()))


def test_nodes_that_see_the_shared_disk_late(tmp_path: Path):
    """Allocations do not see which jobs others have taken, nor a submitter what they have done. Each job runs once, and none is forgotten."""
    with running_cluster(tmp_path / "login") as cluster:
        make_late(cluster)
        host = cluster.login.spec(slurm={"jobs": "many", "allocations": 4, "idle": 2 * _LATE})
        run = FaultyRun(tmp_path).start(load_app().quick, 40, [host])
        run.check_nothing_lost(cluster.login, 40)
        unseen = lines(cluster.login, "late")
        assert [one for one in unseen if "/claims/" in one], "a claim was not seen when it was looked for"
        balanced(cluster)
        check_nothing_left(cluster)
