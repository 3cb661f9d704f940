"""What jobs report reaches the controller while they run, and a job can be asked to stop."""

from __future__ import annotations

import inspect
import json
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events
from launcher.demo.server import DemoServer
from launcher.hosts.host_spec import HostSpec
from launcher.runs.journal_reader import JournalReader

#: A defect shows as a wait that does not end.
_PATIENCE = 120.0


class Seen(launcher.Callback):
    """Writes down the controller's hooks, and asks for a stop where the test says so."""

    def __init__(self, stop_at: int | None = None, on_error: str = "warn") -> None:
        self.stop_at = stop_at
        self.on_error = on_error
        self.calls: list[Any] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"stop_at": None, "on_error": self.on_error, "calls": []}

    def on_job_report(self, config: Any, job: Any, step: Any, values: Any, **kwargs: Any) -> None:
        self.calls.append(("report", job.num, step, values, config.x))
        if self.stop_at is not None and step is not None and step >= self.stop_at:
            job.stop()

    def on_job_return(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        self.calls.append(("return", job_return.num, job_return.stopped))

    def on_job_end(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        path = os.path.join(job_return.output_dir, "end")
        with open(path, "a") as file:
            file.write(f"{job_return.status.name} {job_return.stopped} {job_return._return_value}\n")


def counts(cfg: Any) -> str:
    """A task that reports some steps and returns."""
    for step in range(cfg.get("steps", 3)):
        launcher.report(step=step, loss=1 / (step + 1), name="x" * step)
    return "all"


def goes_on(cfg: Any) -> None:
    """A task that ends when it is asked to."""
    step = 0
    while True:
        launcher.report(step=step, loss=1 / (step + 1))
        step += 1
        time.sleep(0.02)


def saves(cfg: Any) -> str:
    """A task that catches the request, and ends in its own way."""
    try:
        goes_on(cfg)
    except launcher.StopRequested as request:
        launcher.report(saved=True)
        return f"saved at {request.step >= 0}"
    return "never"


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for something that another thread or process brings."""
    deadline = time.monotonic() + _PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.02)
    return found


def test_the_hook_gets_what_a_job_reports_before_its_return(tmp_path: Path) -> None:
    """In order, with the job's config; the journal has the same."""
    seen = Seen()
    with launcher.Session.open(hosts=["local/2"], folder=tmp_path / "out", callbacks=[seen]) as session:
        jobs = [session.submit(counts, {"x": num}) for num in range(2)]
        assert [job.result() for job in jobs] == ["all", "all"]
    expected = [(step, {"loss": 1 / (step + 1), "name": "x" * step}) for step in range(3)]
    for num, job in enumerate(jobs):
        mine = [call for call in seen.calls if call[1] == num]
        assert mine == [*(("report", num, *one, num) for one in expected), ("return", num, False)]
        assert [(one.step, one.values) for one in job.reports] == expected
    with JournalReader(tmp_path / "out" / ".launcher") as reader:
        assert [(one.step, one.values) for one in reader.reports(1)] == expected


@pytest.mark.slow
def test_a_job_that_does_not_catch_the_request_has_completed_with_its_last_values(tmp_path: Path) -> None:
    """Its end hook fires once and sees the same; no other job is stopped."""
    seen = Seen(stop_at=2)
    stopped, other = launcher.multirun(
        lambda cfg: goes_on(cfg) if cfg.x else counts({"steps": 2}),
        [{"x": 1}, {"x": 0}],
        hosts=["local/2"],
        folder=tmp_path / "out",
        callbacks=[seen],
    )
    assert (stopped.status.name, stopped.stopped, stopped.error) == ("COMPLETED", True, None)
    last = [call for call in seen.calls if call[:2] == ("report", 0)][-1]
    assert stopped.return_value == last[3]
    assert seen.calls.count(("return", 0, True)) == 1
    assert (Path(stopped.output_dir) / "end").read_text() == f"COMPLETED True {last[3]}\n"
    assert (other.status.name, other.stopped, other.return_value) == ("COMPLETED", False, "all")


def test_a_job_that_catches_the_request_returns_what_it_wants(tmp_path: Path) -> None:
    """It may report once more."""
    with launcher.Session.open(folder=tmp_path / "out", results="safe") as session:
        job = session.submit(saves, {"x": 0})
        wait_until(lambda: job.reports, "the first report")
        assert job.stop()
        assert job.result() == "saved at True"
        assert job.job_return().stopped
        assert job.reports[-1].values == {"saved": True}


@pytest.mark.slow
def test_asked_twice_a_job_is_stopped_once_and_after_its_end_nothing_happens(tmp_path: Path) -> None:
    """One event each; a job that has returned says that it was not asked."""
    happened: list[events.Event] = []
    with launcher.Session.open(folder=tmp_path / "out", observers=[happened.append]) as session:
        job, ended = session.submit(goes_on, {"x": 0}), session.submit(counts, {"x": 1})
        wait_until(lambda: job.reports, "the first report")
        assert job.stop()
        assert job.stop()
        assert ended.result() == "all"
        assert job.result() == job.reports[-1].values
        assert not job.stop()
        assert not ended.stop()
        assert not ended.job_return().stopped
    assert [event.num for event in happened if isinstance(event, events.JobStopping)] == [0]
    assert sorted(event.num for event in happened if isinstance(event, events.JobReturned)) == [0, 1]


@pytest.mark.slow
def test_a_job_that_reports_no_more_goes_on_to_its_end(tmp_path: Path) -> None:
    """It is asked, and nothing of it is cut."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def waits(cfg: Any) -> str:
        launcher.report(step=0)
        with open(cfg.gate) as file:
            return file.read()

    with launcher.Session.open(folder=tmp_path / "out") as session:
        job = session.submit(waits, {"gate": str(gate)})
        wait_until(lambda: job.reports, "the first report")
        assert job.stop()
        gate.write_text("to the end")
        assert job.result() == "to the end"
        assert not job.job_return().stopped


@pytest.mark.slow
def test_a_job_that_waits_is_cancelled_and_nothing_of_it_runs(tmp_path: Path) -> None:
    """Wherever it waits: here, or on its host."""
    with launcher.Session.open(hosts=["local/1"], folder=tmp_path / "out", callbacks=[Seen()]) as session:
        running = session.submit(goes_on, {"x": 0})
        wait_until(lambda: running.reports, "the first report")
        waiting = [session.submit(counts, {"x": num}) for num in range(1, 4)]
        for job in waiting:
            assert job.stop()
        for job in waiting:
            with pytest.raises(CancelledError):
                job.result()
            error = job.job_return().error
            assert (error.kind, error.message) == ("cancelled", "stopped before it started")
            assert not job.job_return().stopped
            assert job.reports == []
            assert not (tmp_path / "out" / str(job.num) / "end").exists()
        running.stop()
        assert running.job_return().stopped


@pytest.mark.slow
def test_threads_and_children_of_a_job_report_and_learn_of_the_stop(tmp_path: Path) -> None:
    """A thread that does not catch it ends, and so does a child; the job returns in its own way."""

    def many(cfg: Any) -> str:
        import multiprocessing

        def go(who: str) -> None:
            step = 0
            while True:
                launcher.report(step=step, **{who: step})
                step += 1
                time.sleep(0.02)

        child = multiprocessing.get_context("fork").Process(target=go, args=("child",))
        child.start()
        child.join()
        return "child ended"

    with launcher.Session.open(folder=tmp_path / "out") as session:
        job = session.submit(many, {"x": 0})
        wait_until(lambda: len(job.reports) > 2, "reports of the child")
        job.stop()
        assert job.result() == "child ended"
        assert job.job_return().stopped

        def threaded(cfg: Any) -> str:
            ended = []

            def go() -> None:
                try:
                    goes_on(cfg)
                except launcher.StopRequested:
                    ended.append(True)

            thread = threading.Thread(target=go)
            thread.start()
            thread.join()
            return f"thread ended {ended}"

        other = session.submit(threaded, {"x": 0})
        wait_until(lambda: other.reports, "reports of the thread")
        other.stop()
        assert other.result() == "thread ended [True]"


@pytest.mark.slow
def test_a_spawned_child_and_a_pool_report(tmp_path: Path) -> None:
    """They find the folder by the environment; a pool passes the request on as it does any exception."""

    def pool(cfg: Any) -> str:
        import concurrent.futures
        import multiprocessing

        out = []
        for method in ("spawn", "fork"):
            with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context(method)) as workers:
                out.append(workers.submit(launcher.report, step=1).result())
        return str(out)

    with launcher.Session.open(folder=tmp_path / "out") as session:
        job = session.submit(pool, {})
        assert job.result() == "[None, None]"
        assert [one.step for one in job.reports] == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["fork", "reuse", "spawn"])
def test_jobs_that_share_a_process_report_as_their_own(tmp_path: Path, isolation: str) -> None:
    """And a stop of one is none of the next."""
    with launcher.Session.open(hosts=["local/1"], folder=tmp_path / "out", isolation=isolation) as session:
        first = session.submit(goes_on, {})
        wait_until(lambda: first.reports, "the first report")
        first.stop()
        assert first.job_return().stopped
        later = [session.submit(counts, {"steps": 2 + num}) for num in range(3)]
        for num, job in enumerate(later):
            assert job.result() == "all"
            assert [one.step for one in job.reports] == list(range(2 + num))
            assert not job.job_return().stopped


@pytest.mark.slow
def test_very_many_reports_are_thinned_out_and_the_last_one_is_kept(tmp_path: Path) -> None:
    """The first hundred come as they are. NaN comes, too."""

    def floods(cfg: Any) -> None:
        for step in range(20_000):
            launcher.report(step=step, loss=math.nan)

    with launcher.Session.open(folder=tmp_path / "out") as session:
        job = session.submit(floods, {})
        job.result()
        steps = [one.step for one in job.reports]
        assert steps == sorted(steps)
        assert steps[-1] == 19_999
        assert math.isnan(job.reports[-1].values["loss"])
        assert len(steps) < 5000


class Raises(Seen):
    """Fails at the second step."""

    def on_job_report(self, config: Any, job: Any, step: Any, values: Any, **kwargs: Any) -> None:
        super().on_job_report(config, job, step, values)
        if step >= 1 and config.x:
            raise ValueError("as asked")


@pytest.mark.parametrize(
    "policy", ["fail", pytest.param("warn", marks=pytest.mark.slow), pytest.param("abort", marks=pytest.mark.slow)]
)
def test_a_hook_that_raises_has_the_policy_of_its_callback(tmp_path: Path, policy: str) -> None:
    """`warn` goes on, `fail` makes its job FAILED, and `abort` ends the run. Other jobs' results stay."""
    seen = Raises(on_error=policy)
    happened: list[events.Event] = []
    task = goes_on if policy != "warn" else counts
    kwargs: dict[str, Any] = {"folder": tmp_path / "out", "callbacks": [seen], "observers": [happened.append]}
    if policy == "abort":
        with pytest.raises(launcher.LauncherError, match="raised in on_job_report: as asked"):
            launcher.multirun(task, [{"x": 1}], **kwargs)
    else:
        (one,) = launcher.multirun(task, [{"x": 1}], **kwargs)
        assert one.status.name == ("COMPLETED" if policy == "warn" else "FAILED")
        if policy == "fail":
            assert (one.error.kind, one.error.message) == ("hook", "as asked")
    warned = [event for event in happened if isinstance(event, events.Warned) and "on_job_report" in event.source]
    assert warned
    assert warned[0].num == 0
    assert [call for call in seen.calls if call[0] == "return"] == [("return", 0, False)]


@pytest.mark.slow
def test_a_run_that_is_left_and_resumed_has_every_report_once(tmp_path: Path) -> None:
    """The host keeps them meanwhile. A stop that was asked for before is not asked for again, and reaches the job once."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def steps(cfg: Any) -> str:
        launcher.report(step=0)
        with open(cfg.gate) as file:
            file.read()
        for step in range(1, 5):
            launcher.report(step=step)
        return "all"

    seen = Seen()
    session = launcher.Session.open(hosts=["local/2"], folder=tmp_path / "out", callbacks=[seen])
    job = session.submit(steps, {"gate": str(gate), "x": 0})
    other = session.submit(goes_on, {"x": 1})
    wait_until(lambda: job.reports and other.reports, "the first reports")
    other.stop()
    session.detach()
    session.shutdown()
    gate.write_text("")
    again: list[events.Event] = []
    with launcher.Session.resume(tmp_path / "out", observers=[again.append]) as resumed:
        jobs = {one.num: one for one in resumed.as_completed()}
        assert jobs[0].result() == "all"
        assert [one.step for one in jobs[0].reports] == [0, 1, 2, 3, 4]
        assert jobs[1].job_return().stopped
        assert jobs[1].result() == jobs[1].reports[-1].values
    reported = [event for event in again if isinstance(event, events.JobReported)]
    assert [event.step for event in reported if event.num == 0] == [1, 2, 3, 4]
    assert not [event for event in again if isinstance(event, events.JobStopping)]
    with JournalReader(tmp_path / "out" / ".launcher") as reader:
        numbers = [(event.num, event.number) for _, event in reader.events_of("job_reported")]
    assert len(numbers) == len(set(numbers))


@pytest.mark.slow
def test_over_a_link_that_is_lost_again_and_again_no_report_is_lost_or_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a stop that is asked for without a link reaches the job with the next one."""
    from benchmarks.cutting import CuttingRelay

    project = tmp_path / "project"
    project.mkdir()
    (project / "going.py").write_text(
        f"import time\nimport launcher\n\n\n{inspect.getsource(goes_on)}".replace(": Any", "")
    )
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    import going  # type: ignore[import-not-found]

    happened: list[events.Event] = []
    with DemoServer("demo") as server, CuttingRelay(server.port) as relay:
        known, config = tmp_path / "known_hosts", tmp_path / "ssh_config"
        known.write_text(server.known_hosts.read_text().replace(f":{server.port} ", f":{relay.port} "))
        text = server.ssh_config.read_text().replace(str(server.known_hosts), str(known))
        config.write_text(text.replace(f"Port {server.port}", f"Port {relay.port}"))
        host = HostSpec("demo", "demo", ssh_config=str(config))
        with launcher.Session.open(hosts=[host], folder=tmp_path / "out", observers=[happened.append]) as session:
            job = session.submit(going.goes_on, {})
            for _ in range(3):
                seen = len(job.reports)
                wait_until(lambda seen=seen: len(job.reports) > seen + 10 or job.done(), "more reports")
                assert not job.done(), job.job_return().error
                relay.cut()
            job.stop()
            assert job.job_return().stopped
            steps = [one.step for one in job.reports]
    assert steps == sorted(set(steps))
    assert job.result() == job.reports[-1].values
    numbers = [event.number for event in happened if isinstance(event, events.JobReported)]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.slow
def test_a_stopped_job_that_fails_is_not_tried_again(tmp_path: Path) -> None:
    """The user wants no more of it."""

    def fails(cfg: Any) -> None:
        try:
            goes_on(cfg)
        except launcher.StopRequested:
            raise ValueError("while saving") from None

    with launcher.Session.open(folder=tmp_path / "out", retries={"exception": 3}) as session:
        job = session.submit(fails, {})
        wait_until(lambda: job.reports, "the first report")
        job.stop()
        returned = job.job_return()
    assert (returned.status.name, returned.attempt, returned.stopped) == ("FAILED", 1, True)


@pytest.mark.slow
def test_show_has_the_last_values_of_a_job_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In its row, for a program as JSON, and for one job with its step."""
    from launcher.cli.main import main

    def show(*args: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["show", *args])
        assert not ended.value.code
        return capsys.readouterr().out

    folder = tmp_path / "out"
    with launcher.Session.open(folder=folder) as session:
        job = session.submit(goes_on, {})
        wait_until(lambda: len(job.reports) > 3, "some reports")
        assert "loss" in show(str(folder))
        (row,) = json.loads(show(str(folder), "--json"))["jobs"]
        assert row["step"] >= 3
        assert 0 < row["values"]["loss"] <= 0.25
        assert "reported: step " in show(f"{folder}#0")
        job.stop()
        job.job_return()
    (row,) = json.loads(show(str(folder), "--json"))["jobs"]
    assert row["values"]["loss"] == job.result()["loss"]
    assert row["stopped"] is True
    assert "stopped early" in show(f"{folder}#0")
