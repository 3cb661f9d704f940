"""What passes between the controller and jobs that run on a Slurm cluster: reports, requests to stop, and leases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events
from tests.end_to_end.test_slurm import check_nothing_left, login
from tests.faults.injection import FaultyRun, lines, load_app, open_gate
from tests.hosts.slurm import SlurmCluster, running_cluster
from tests.remote_agent.agents import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

#: Seconds that nothing here takes, however busy the machine is.
_LONG = 400.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster of four nodes with two CPUs each, for all tests here."""
    with running_cluster(tmp_path_factory.mktemp("slurm") / "login") as running:
        yield running


@pytest.fixture(autouse=True)
def _no_earlier_words(cluster: SlurmCluster) -> None:
    for name in ("ran", "hooks", "gate"):
        (cluster.login.home / name).unlink(missing_ok=True)


def test_a_job_is_pruned_by_what_it_reports(cluster: SlurmCluster, tmp_path: Path):
    """It could go on for ever. The hook here sees its reports while it runs, and asks it to stop. The other job is left alone."""
    app = load_app()
    prunes = app.Prunes(steps=20)
    run = FaultyRun(tmp_path).start(app.reports, 2, [login(cluster)], callbacks=[prunes])
    pruned, other = run.finish(_LONG)
    assert (pruned.status.name, pruned.stopped) == ("COMPLETED", True)
    assert (other.status.name, other.stopped, other.return_value) == ("COMPLETED", False, 10)
    seen = [step for num, step in prunes.seen if num == 0]
    assert seen == sorted(set(seen))
    assert pruned.return_value == {"twice": 2 * seen[-1]}, "the last report is never lost"
    assert [step for num, step in prunes.seen if num == 1] == [0, 1, 2]
    assert sorted(lines(cluster.login, "hooks")) == ["end 0", "end 1", "start 0", "start 1"]
    check_nothing_left(cluster)


def grown(files: list[Path], sizes: list[int]) -> bool:
    """Whether each file is larger than it was."""
    return all(path.exists() and path.stat().st_size > size for path, size in zip(files, sizes, strict=True))


@pytest.mark.parametrize("options", [{}, {"jobs": "many", "slots": 2}])
def test_files_come_while_their_job_runs(cluster: SlurmCluster, tmp_path: Path, options: dict[str, Any]):
    """Of each of two jobs, also after the link was lost. In the end there is what the jobs have left, and nothing else."""
    files = [tmp_path / "sweep" / str(num) / "log" for num in range(2)]
    sizes = [0, 0]
    run = FaultyRun(tmp_path).start(load_app().logs, 2, [login(cluster, **options)], sync_outputs=1)
    for number in range(2):
        run.wait_for("more of both files", lambda sizes=sizes: grown(files, sizes), _LONG)  # type: ignore[misc]
        assert not run.of(events.JobReturned)
        assert list(files[0].parent.glob("only-on-*"))
        assert cluster.login.kill_sessions()
        sizes = [path.stat().st_size for path in files]
        run.wait_for("another link", lambda number=number: len(run.of(events.HostReady)) > number + 1, _LONG)  # type: ignore[misc]
    open_gate(cluster.login)
    returns = run.finish(_LONG)
    assert [path.read_text(encoding="utf-8") for path in files] == [one.return_value for one in returns]
    for path in files:
        assert sorted(one.name for one in path.parent.iterdir()) == [".hydra", ".launcher", "log", "logs.log"]
    check_nothing_left(cluster)


def test_a_detached_run_brings_its_reports_with_the_result(cluster: SlurmCluster, tmp_path: Path):
    """Nobody is connected while the job runs. Whoever comes back gets all of them."""
    app = load_app()
    with launcher.Session.open(hosts=[login(cluster)], folder=tmp_path / "out") as session:
        session.submit(app.reports, {"num": 1})
        session.detach()
    wait_until(lambda: lines(cluster.login, "ran") == ["1"], "it to run", _LONG)
    with launcher.Session.resume(tmp_path / "out") as session:
        (job,) = session.as_completed()
        assert job.result() == 10
        assert [(one.step, one.values) for one in job.reports] == [(step, {"twice": 2 * step}) for step in range(3)]
    check_nothing_left(cluster)


def test_a_job_that_waits_for_slurm_and_is_stopped_never_starts(cluster: SlurmCluster, tmp_path: Path):
    """It has nothing to report, so it is cancelled, and its allocation is withdrawn."""
    app = load_app()
    host = login(cluster, options=["--hold"])
    with launcher.Session.open(hosts=[host], folder=tmp_path / "out") as session:
        job = session.submit(app.reports, {"num": 0})
        wait_until(lambda: cluster.ask("squeue -h -o %r").split() == ["JobHeldUser"], "Slurm to have it", _LONG)
        job.stop()
        wait_until(job.done, "its end", _LONG)
        assert "stopped before it started" in str(job.job_return().error)
    assert lines(cluster.login, "ran") == []
    check_nothing_left(cluster)


def test_the_lease_of_a_controller_that_has_gone_ends_its_jobs(cluster: SlurmCluster, tmp_path: Path):
    """The job that runs gets SIGTERM, and its end hook fires. The one that waits never starts. Whoever comes back sees both."""
    app = load_app()
    host = login(cluster, jobs="many", allocations=1)
    with launcher.Session.open(hosts=[host], folder=tmp_path / "out", callbacks=[app.Witness()], lease=3.0) as session:
        for num in range(2):
            session.submit(app.gated, {"num": num})
        wait_until(lambda: lines(cluster.login, "ran") == ["0"], "it to run", _LONG)
        session.detach()
    wait_until(lambda: lines(cluster.login, "hooks") == ["start 0", "end 0"], "its end hook", _LONG)
    with launcher.Session.resume(tmp_path / "out") as session:
        errors = {job.num: job.job_return().error for job in session.as_completed()}
    assert {num: one.kind for num, one in errors.items()} == {0: "cancelled", 1: "cancelled"}
    assert errors[1].message == "cancelled: its controller's lease ended"
    assert lines(cluster.login, "ran") == ["0"]
    check_nothing_left(cluster)
