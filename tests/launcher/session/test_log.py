"""What is logged of a run that was started from Python, when nobody looks at its events."""

from __future__ import annotations

from pathlib import Path

import pytest

import launcher
from launcher import events
from launcher.session.log import log_problems


class BadOnHost(launcher.Callback):
    """Raises next to the application."""

    def on_job_start(self, config: object, **kwargs: object) -> None:
        """Raises."""
        raise RuntimeError("bad on the host")


def task(config: object) -> int:
    """Returns one."""
    return 1


@pytest.mark.slow
def test_a_hook_that_raises_on_a_host_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With its callback, its job, its host and its traceback; nobody had to ask for events."""
    launcher.multirun(task, [{}], callbacks=[BadOnHost()], folder=tmp_path / "run")
    (record,) = [record for record in caplog.records if record.name == "launcher"]
    said = record.getMessage()
    assert said.startswith("callback BadOnHost.on_job_start (job 0) on local: RuntimeError: bad on the host\nTraceback")


@pytest.mark.slow
def test_an_observer_takes_its_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever looks at the events is not told twice."""
    seen: list[events.Event] = []
    launcher.multirun(task, [{}], callbacks=[BadOnHost()], folder=tmp_path / "run", observers=[seen.append])
    assert any(isinstance(event, events.Warned) for event in seen)
    assert not [record for record in caplog.records if record.name == "launcher"]


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (
            events.HostUnusable(0.0, "gpu1", "host key", "it is \x1b[31mnot known", "add this line"),
            "host gpu1: cannot be used: host key: it is not known\n    next: add this line",
        ),
        (events.HostUnknown(0.0, "gpu1", "timed out"), "host gpu1: link lost (timed out); reconnecting"),
        (events.HostLost(0.0, "gpu1", "too long", (1, 2)), "host gpu1: given up (too long); jobs: 1, 2"),
        (events.Warned(0.0, "files", "refused", num=3, host="gpu1"), "files (job 3) on gpu1: refused"),
    ],
)
def test_problems_are_warnings(event: events.Event, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each with host and next step, and without the control characters of others."""
    log_problems(event)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", said)]


def test_a_hook_of_the_controller_is_not_told_twice(caplog: pytest.LogCaptureFixture) -> None:
    """Its composite has logged it where it raised."""
    log_problems(events.Warned(0.0, "callback Mine.on_job_return", "RuntimeError: bad"))
    assert not caplog.records
