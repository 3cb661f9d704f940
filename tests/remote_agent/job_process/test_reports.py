"""`launcher.report` in a process: in the task of a job, in its threads and children, and outside of a job."""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import launcher
from remote_agent.job_process import reports
from remote_agent.job_process.reports import StopRequested, report
from remote_agent.protocol.constants import REPORTS
from remote_agent.protocol.report import Report
from remote_agent.shared.report_ring import STOP, RingReader, is_ring, mark


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """This process is that of a job whose task runs, and it reports there."""
    path = str(tmp_path / "reports")
    monkeypatch.setenv(REPORTS, path)
    reports.begin(path)
    reports.let_stop(True)
    yield path
    reports.end()
    monkeypatch.setattr(reports, "_folder", None)
    monkeypatch.setattr(reports, "_reporter", None)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is no job's."""
    monkeypatch.delenv(REPORTS, raising=False)
    monkeypatch.setattr(reports, "_folder", None)
    monkeypatch.setattr(reports, "_reporter", None)


def written(folder: str) -> dict[str, list[Report]]:
    """What was reported, by ring."""
    found = {}
    for name in filter(is_ring, os.listdir(folder)):
        records = RingReader(os.path.join(folder, name)).read()
        found[name] = [Report.from_json(json.loads(data)) for _, data in records]
    return found


def test_a_report_is_in_the_ring_when_the_call_returns(folder: str) -> None:
    """With its step, its values, and the time."""
    report(step=3, loss=0.5, phase="warm up")
    report(loss=0.25)
    ((first, second),) = written(folder).values()
    assert (first.step, first.values) == (3, {"loss": 0.5, "phase": "warm up"})
    assert (second.step, second.values) == (None, {"loss": 0.25})
    assert first.at <= second.at


def test_a_wrong_value_is_refused_everywhere_in_the_same_way(folder: str) -> None:
    """By its name, and nothing is written."""
    with pytest.raises(TypeError, match=r"launcher\.report: model is a list"):
        report(step=1, loss=0.5, model=[1])
    with pytest.raises(ValueError, match="bytes as JSON"):
        report(**{f"n{number}": "x" * 500 for number in range(10)})
    assert not os.path.exists(folder)


def test_outside_of_a_job_values_are_checked_and_logged(outside: None, caplog: pytest.LogCaptureFixture) -> None:
    """The same code runs in plain Hydra, and as a script."""
    with caplog.at_level(logging.DEBUG, "remote_agent.report"):
        launcher.report(step=1, loss=0.5)
    assert caplog.messages == ["step 1: {'loss': 0.5}"]
    with pytest.raises(TypeError, match="loss is a NoneType"):
        launcher.report(step=1, loss=None)


def test_a_job_that_should_stop_learns_it_once_from_its_next_report(folder: str) -> None:
    """The exception has the last value of each name. What is reported later is taken as before."""
    report(step=1, loss=0.5, accuracy=0.1)
    mark(folder, STOP)
    with pytest.raises(StopRequested, match="asked to stop at step 2") as raised:
        report(step=2, loss=0.25)
    assert raised.value.step == 2
    assert raised.value.values == {"loss": 0.25, "accuracy": 0.1}
    assert reports.was_stopped()
    report(final=True)
    ((_, second, third),) = written(folder).values()
    assert second.values == {"loss": 0.25}
    assert third.values == {"final": True}


def test_it_is_not_an_exception_that_a_step_catches() -> None:
    """`except Exception` lets it through. It can be pickled, as a pool's process does."""
    assert not issubclass(StopRequested, Exception)
    again = pickle.loads(pickle.dumps(StopRequested(3, {"loss": 1.0})))
    assert (again.step, again.values) == (3, {"loss": 1.0})


def test_a_hook_is_never_stopped(folder: str) -> None:
    """Before and after the task a report raises nothing, and the task learns it then."""
    reports.let_stop(False)
    mark(folder, STOP)
    report(step=1)
    assert not reports.was_stopped()
    reports.let_stop(True)
    with pytest.raises(StopRequested):
        report(step=2)


def test_threads_share_a_ring_and_lose_nothing(folder: str) -> None:
    """Each of their reports is there."""

    def go(name: str) -> None:
        for step in range(10):
            report(step=step, **{name: step})

    threads = [threading.Thread(target=go, args=(f"t{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (found,) = written(folder).values()
    assert len(found) == 80
    for number in range(8):
        mine = [one.step for one in found if f"t{number}" in one.values]
        assert mine == list(range(10))


def test_a_forked_child_has_a_ring_of_its_own_and_learns_of_the_stop(folder: str) -> None:
    """Also if another thread held the lock at the fork."""
    report(step=0, who="parent")
    mark(folder, STOP)
    with reports._opening, reports._reporter._lock:
        pid = os.fork()
        if not pid:
            try:
                report(step=1, who="child")
            except StopRequested:
                os._exit(7)
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert sorted(one.values["who"] for each in written(folder).values() for one in each) == ["child", "parent"]
    assert reports.was_stopped()
    with pytest.raises(StopRequested):
        report(step=1, who="parent")


def test_a_started_program_finds_the_folder_by_its_variable(folder: str) -> None:
    """Where it can import `launcher`."""
    report(step=0, who="parent")
    code = "import launcher; launcher.report(step=1, who='program')"
    root = str(Path(__file__).parents[3])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": root})
    assert sorted(one.values["who"] for each in written(folder).values() for one in each) == ["parent", "program"]


def test_an_application_that_closes_all_descriptors_goes_on_to_report(folder: str, tmp_path: Path) -> None:
    """In another ring. A file that has got the number is not written to."""
    report(step=0)
    fd = reports._reporter._ring.fd
    mine = os.open(tmp_path / "mine", os.O_RDWR | os.O_CREAT)
    os.dup2(mine, fd)
    report(step=1)
    assert os.fstat(mine).st_size == 0
    os.close(fd)
    os.close(mine)
    assert sorted(one.step for each in written(folder).values() for one in each) == [0, 1]


def test_a_disk_that_takes_nothing_costs_the_job_nothing(
    folder: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so, once."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    for step in range(3):
        report(step=step)
    assert len(caplog.messages) == 1
    assert "No space left on device" in caplog.text


def test_after_the_end_of_the_job_a_report_is_only_logged(folder: str) -> None:
    """No ring is opened again: another job may have the process by then."""
    report(step=0)
    reports.end()
    report(step=1)
    ((only,),) = written(folder).values()
    assert only.step == 0
