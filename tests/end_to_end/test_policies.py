"""A policy decides about a job that fails, takes too long or loses its host.

These tests use real jobs, and every attempt is visible.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher.demo.server import DemoServer
from launcher.runs.journal import JournalReader
from launcher.runs.status import JobStatusLine, read_jobs, read_status
from launcher.session.session import Session
from tests.controllers import Project, until


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """The imported application."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = Project(tmp_path / "project")
    monkeypatch.chdir(made.folder)
    monkeypatch.syspath_prepend(str(made.folder))
    yield made
    made.close()
    sys.modules.pop("durable_app", None)


def run(project: Project, jobs: int, config: dict[str, Any] | None = None, **options: Any) -> Any:
    """Run a sweep in this process."""
    import durable_app

    configs = [{"x": x, "marks": str(project.marks), **(config or {})} for x in range(jobs)]
    callbacks = [durable_app.Recorder(str(project.marks))]
    return launcher.multirun(
        durable_app.work, configs, folder=project.run, callbacks=callbacks, **{"hosts": ["local/1"], **options}
    )


def shown(project: Project) -> list[JobStatusLine]:
    """Return the jobs, as in `launcher show`."""
    with JournalReader(project.entry.journal) as reader:
        return read_jobs(reader)


def kinds(returns: Any) -> list[str]:
    """Return each job's error kind; empty if it completed."""
    return [one.error.kind if one.error else "" for one in returns]


@pytest.mark.slow
def test_retries_count_by_kind_of_error(project: Project) -> None:
    """There is one retry for an exception and two for a death. In every attempt, each start hook has its end hook."""
    returns = run(project, 3, {"how": {"0": "raise", "1": "kill"}}, retries={"exception": 1, "killed": 2})
    assert kinds(returns) == ["exception", "killed", ""]
    assert [one.attempt for one in returns] == [2, 3, 1]
    assert project.marked("ran") == Counter({"0": 2, "1": 3, "2": 1})
    assert project.marked("job_start") == project.marked("job_end") == project.marked("ran")
    assert project.marked("return") == Counter({"0": 1, "1": 1, "2": 1})
    assert [[one.state for one in job.attempts] for job in shown(project)] == [
        ["FAILED"] * 2,
        ["FAILED"] * 3,
        ["COMPLETED"],
    ]


@pytest.mark.slow
def test_a_retry_that_succeeds_is_the_jobs_result(project: Project) -> None:
    """The failed attempt stays visible."""
    (returned,) = run(project, 1, {"how": {"0": "raise once"}}, retries=3)
    assert (returned.status.name, returned.attempt, returned.return_value["x"]) == ("COMPLETED", 2, 0)
    (job,) = shown(project)
    assert [one.why for one in job.attempts] == ["retried after: exception", ""]


@pytest.mark.slow
def test_a_retry_on_the_same_host_finds_what_the_first_attempt_left(project: Project) -> None:
    """It knows where and why that one ended, and its output folder is still there."""
    with DemoServer("first") as first:
        host = {"name": first.alias, "address": first.alias, "ssh_config": str(first.ssh_config), "slots": 1}
        (returned,) = run(project, 1, {"how": {"0": "resume"}}, retries=3, hosts=[host])
    assert returned.return_value == [(1, "first", "exception", ["saved.1"])]
    assert list(project.run.rglob("saved.2"))


@pytest.mark.slow
def test_a_job_that_takes_too_long_is_ended_with_its_hooks(project: Project) -> None:
    """Its error has the kind `timeout`. Nothing waits for its gate."""
    (returned,) = run(project, 1, {"gate": str(project.folder / "never")}, timeout=0.3, grace=5)
    assert returned.error.kind == "timeout"
    assert project.texts("job_end") == ["FAILED"]


@pytest.mark.slow
def test_fail_fast_stops_after_the_first_failed_job(project: Project) -> None:
    """Jobs that have not started are cancelled, and every job returns."""
    returns = run(project, 6, {"how": {"0": "raise"}, "seconds": 0.2}, fail_fast=True)
    assert kinds(returns)[0] == "exception"
    assert kinds(returns)[-1] == "cancelled"
    assert len(project.marked("ran")) < 6
    assert len(project.texts("end")) == 1


@pytest.mark.slow
def test_max_failures_stops_the_run(project: Project) -> None:
    """Two jobs may fail, and the third failure ends the run."""
    how = {str(num): "raise" for num in range(8)}
    returns = run(project, 8, {"how": how, "seconds": 0.1}, max_failures=3)
    assert kinds(returns)[:3] == ["exception"] * 3
    assert kinds(returns)[-1] == "cancelled"
    assert len(project.marked("ran")) < 8


@pytest.mark.slow
def test_a_lease_ends_the_jobs_of_a_controller_that_is_gone(project: Project) -> None:
    """Their hooks fire. If the run is resumed, they are cancelled."""
    controller = project.start(2, {"gate": str(project.folder / "never")}, lease=0.5, hosts=["local/1"])
    until("a job to run", lambda: project.marked("ran"))
    controller.kill()
    until("the lease to end it", lambda: project.texts("job_end") == ["FAILED"])
    with Session.resume(project.run) as session:
        pass
    assert kinds(session.returns) == ["cancelled"] * 2
    assert project.marked("ran") == Counter({"0": 1})


@pytest.mark.slow
def test_a_controller_that_was_stopped_beyond_the_lease_goes_on(project: Project) -> None:
    """This is like a laptop that slept.

    In the meantime, the host ended the job. The controller learns this when it wakes up, and finishes the run.
    """
    controller = project.start(2, {"gate": str(project.folder / "never")}, lease=0.5, hosts=["local/1"])
    until("a job to run", lambda: project.marked("ran"))
    controller.process.send_signal(signal.SIGSTOP)
    try:
        until("the lease to end both", lambda: project.texts("job_end") == ["FAILED"], timeout=90)
    finally:
        controller.process.send_signal(signal.SIGCONT)
    lines = controller.wait().splitlines()
    assert [line for line in lines if line.endswith("FAILED")] == ["0 FAILED", "1 FAILED"], lines
    status = read_status(project.entry)
    assert (status.open, status.kinds) == (0, {"cancelled": 2})
    assert len(project.texts("end")) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "expected"), [("retry", ""), ("fail", "lost")])
def test_jobs_of_a_host_that_is_given_up(project: Project, policy: str, expected: str) -> None:
    """Its job runs elsewhere or is lost, depending on the options. The hook gets the host and the jobs."""
    gate = project.folder / "gate"
    lost: list[tuple[str, list[int]]] = []

    class Watcher(launcher.Callback):
        """Records the loss, and lets the job end on the other host."""

        def on_host_lost(self, config: Any, host: str, jobs: list[int], **kwargs: Any) -> None:
            lost.append((host, list(jobs)))
            gate.touch()

    import durable_app

    with DemoServer("first") as first, DemoServer("second") as second:
        hosts = [
            {"name": one.alias, "address": one.alias, "ssh_config": str(one.ssh_config), "slots": 1}
            for one in (first, second)
        ]
        options = {"hosts": hosts, "on_host_loss": policy, "host_loss_timeout": 0.5}
        with Session.open(folder=project.run, callbacks=[Watcher()], **options) as session:
            configs = [{"x": x, "marks": str(project.marks), "gate": str(gate)} for x in range(2)]
            jobs = [session.submit(durable_app.work, config) for config in configs]
            until("both to run", lambda: len(project.marked("ran")) == 2)
            (num,) = [job.num for job in shown(project) if job.host == "first"]
            first.stop()
            returned = jobs[num].job_return(timeout=60)
    assert lost == [("first", [num])]
    assert (returned.error.kind if returned.error else "") == expected
    attempts = [(one.host, one.state) for one in shown(project)[num].attempts]
    assert attempts == (
        [("first", "given up"), ("second", "COMPLETED")] if policy == "retry" else [("first", "FAILED")]
    )
