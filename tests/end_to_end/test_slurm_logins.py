"""A Slurm cluster with two login nodes: the process that serves a run on one of them falls silent, and the run goes on through the other."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from launcher import events
from remote_agent.agent.spool.log import scan
from remote_agent.slurm.shared_disk.shared_files import unseal
from remote_agent.slurm.shared_disk.turns import SILENCE
from tests.end_to_end.test_slurm import check_nothing_left, login, wait_started
from tests.faults.injection import FaultyRun, load_app, open_gate
from tests.hosts.slurm import running_cluster
from tests.remote_agent.agents import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

#: Seconds that nothing here takes, however busy the machine is.
_LONG = 400.0


def records(log: Path) -> list[str]:
    """The names of what a submitter has written down."""
    return [str(header["r"]) for header in scan(str(log))]


def test_another_login_node_takes_a_run_over(tmp_path: Path):
    """It waits until the process on the first one was silent for long by the clock of the disk. When that goes on, it writes nothing but that it leaves."""
    with running_cluster(tmp_path / "login") as cluster:
        host = cluster.login
        run = FaultyRun(tmp_path).start(load_app().gated, 3, [login(cluster)])
        wait_started(run, 3)
        (spool,) = (host.home / ".local/state/hydra-remote-launcher/runs").glob("*/*")
        first = json.loads(unseal((spool / "turns" / "1").read_bytes()) or b"")["pid"]
        host.run(f"kill -STOP {first}")
        # Who comes now is on a machine of another name, with the same disk.
        host.run("hostname login2")
        host.kill_sessions()
        run.wait_for("the loss to be seen", lambda: run.of(events.HostUnknown), _LONG)
        run.wait_for("the next turn", (spool / "submitter.2").exists, _LONG)
        open_gate(host)
        assert not [one for one in run.of(events.HostReady) if one.reconnected], "it waits for the first one"
        then = os.stat(spool / "submitter.1").st_mtime - SILENCE - 1
        os.utime(spool / "submitter.1", (then, then))
        # And for so long every machine has seen that there is a next turn.
        os.utime(spool / "turns" / "2", (then, then))
        run.wait_for("all results", lambda: len(run.of(events.AttemptEnded)) == 3, _LONG)
        host.run(f"kill -CONT {first}")
        run.finish(_LONG)
        run.check_nothing_lost(host, 3)
        wait_until(lambda: host.run(f"kill -0 {first}").returncode != 0, "the first one to leave", _LONG)
        check_nothing_left(cluster)


def test_a_process_that_goes_on_when_its_turn_is_over_writes_nothing(tmp_path: Path):
    """While the run lasts, so that its files are still there to be looked at."""
    with running_cluster(tmp_path / "login") as cluster:
        host = cluster.login
        run = FaultyRun(tmp_path).start(load_app().gated, 1, [login(cluster)])
        wait_started(run, 1)
        (spool,) = (host.home / ".local/state/hydra-remote-launcher/runs").glob("*/*")
        first = json.loads(unseal((spool / "turns" / "1").read_bytes()) or b"")["pid"]
        before = records(spool / "submitter.1")
        host.run(f"kill -STOP {first}")
        host.run("hostname login2")
        host.kill_sessions()
        run.wait_for("the next turn", (spool / "submitter.2").exists, _LONG)
        host.run(f"kill -CONT {first}")
        run.wait_for(
            "the next one to serve", lambda: [one for one in run.of(events.HostReady) if one.reconnected], _LONG
        )
        assert records(spool / "submitter.1") == [*before, "left"]
        open_gate(host)
        run.finish(_LONG)
        run.check_nothing_lost(host, 1)
        check_nothing_left(cluster)
