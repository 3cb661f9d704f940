"""Slurm's own controller dies while jobs are submitted and while they run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import launcher
from launcher import events
from tests.end_to_end.test_slurm import balanced, check_nothing_left, login
from tests.faults.injection import lines, load_app, open_gate
from tests.hosts.slurm import running_cluster
from tests.remote_agent.agents import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

#: Seconds that nothing here takes, however busy the machine is.
_LONG = 400.0


def test_no_job_is_lost_or_runs_twice_when_slurms_controller_dies(tmp_path: Path):
    """What runs goes on, and its result arrives. What is submitted meanwhile is asked for when Slurm answers again, and the run says both."""
    app = load_app()
    said: list[str] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.Note):
            said.append(event.message)

    with running_cluster(tmp_path / "login") as cluster:
        with launcher.Session.open(
            hosts=[login(cluster)], folder=tmp_path / "out", callbacks=[app.Witness()], observers=[listen]
        ) as session:
            first = session.submit(app.gated, {"num": 0})
            wait_until(lambda: lines(cluster.login, "ran") == ["0"], "it to run", _LONG)
            cluster.do("kill-ctld")
            others = [session.submit(app.gated, {"num": num}) for num in (1, 2)]
            open_gate(cluster.login)
            assert first.result() == 0
            wait_until(lambda: any("jobs that run go on" in one for one in said), "the word that it is away", _LONG)
            cluster.do("start-ctld")
            assert [job.result() for job in others] == [10, 20]
        assert any("answers again" in one for one in said)
        assert Counter(lines(cluster.login, "ran")) == Counter("012")
        balanced(cluster)
        check_nothing_left(cluster)
