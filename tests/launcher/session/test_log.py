"""The log of a run that was started from Python without observers."""

from __future__ import annotations

from pathlib import Path

import pytest

import launcher
from launcher import events
from launcher.session.log import log_problems


class BadOnHost(launcher.Callback):
    """Raises on the host."""

    def on_job_start(self, config: object, **kwargs: object) -> None:
        """Raise."""
        raise RuntimeError("bad on the host")


def task(config: object) -> int:
    """Return one."""
    return 1


@pytest.mark.slow
def test_a_hook_that_raises_on_a_host_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With its callback, its job, its host and its traceback. Nobody had to ask for events."""
    launcher.multirun(task, [{}], callbacks=[BadOnHost()], folder=tmp_path / "run")
    (record,) = [record for record in caplog.records if record.name == "launcher"]
    said = record.getMessage()
    assert said.startswith("callback BadOnHost.on_job_start (job 0) on local: RuntimeError: bad on the host\nTraceback")


@pytest.mark.slow
def test_with_an_observer_nothing_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The user does not get everything twice."""
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
    """Each has its host and the next step, and no control characters."""
    log_problems(event)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", said)]


def test_a_hook_of_the_controller_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Its composite has logged it when it raised."""
    log_problems(events.Warned(0.0, "callback Mine.on_job_return", "RuntimeError: bad"))
    assert not caplog.records
