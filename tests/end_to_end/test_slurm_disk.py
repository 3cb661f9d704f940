"""Runs on a Slurm cluster whose shared disk is full, or shows late what another node has written."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import events
from tests.end_to_end.test_slurm import balanced, check_nothing_left
from tests.faults.injection import FaultyRun, lines, load_app, open_gate, small_disk
from tests.hosts.slurm import running_cluster
from tests.remote_agent.agents import wait_until

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
