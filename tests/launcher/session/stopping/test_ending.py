"""What is said of a run that is left: which jobs are where, and what it waits for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from launcher import events
from launcher.engine.scheduling.policies import Policies
from launcher.engine.scheduling.scheduler import Scheduler
from launcher.session.stopping.ending import last_event, waits_for, what_is_left
from tests.launcher.engine.schedulers import ready, submit


def engine(jobs: int, *, slots: int = 0, stalled: str = "", crash: BaseException | None = None) -> Any:
    """An engine with a real scheduler, one host, and so many jobs."""
    scheduler = Scheduler(["gpu1"], Policies())
    submit(scheduler, jobs)
    if slots:
        ready(scheduler, slots=slots)
        scheduler.plan(0.0, 0.0)
    return SimpleNamespace(scheduler=scheduler, stalled=stalled, crash=crash)


@pytest.mark.parametrize(
    ("jobs", "slots", "where"),
    [
        (0, 0, "; some hooks have not fired"),
        (1, 0, " with job 0 on no host yet; results stay there"),
        (3, 0, " with jobs 0, 1, 2 on no host yet; results stay there"),
        (10, 0, " with jobs 0, 1, 2, 3, 4, 5, 6, 7 and 2 more on no host yet; results stay there"),
    ],
)
def test_what_is_left_names_jobs_and_places(jobs: int, slots: int, where: str) -> None:
    """No more than some of them by number, and how to collect them."""
    said = what_is_left(engine(jobs, slots=slots), "r1", "Ctrl-C")
    assert said == f"Ctrl-C, twice: the controller leaves run r1{where}; 'launcher attach r1' collects it"


def test_jobs_on_a_host_are_named_with_what_is_wrong_with_it() -> None:
    """Those that wait here come last."""
    made = engine(200, slots=1)
    made.scheduler.observe_unknown(1.0, "gpu1", "no route")
    on_host = len(made.scheduler.hosts["gpu1"].jobs)
    assert 0 < on_host < 200
    first, second = waits_for(made).split("; ")
    assert first.startswith("job")
    assert first.endswith(" on gpu1 (no route)")
    assert second.startswith(f"jobs {on_host}, ")
    assert second.endswith("more on no host yet")


def test_a_disk_that_is_full_comes_first() -> None:
    """Nothing is decided until it has room."""
    assert waits_for(engine(0)) == ""
    assert waits_for(engine(1, stalled="no space")).split("; ") == [
        "the disk: no space (free some space)",
        "job 0 on no host yet",
    ]


@pytest.mark.parametrize(
    ("is_cut", "crash", "why"),
    [
        (True, None, "SIGTERM, twice; some hooks have not fired"),
        (True, RuntimeError(), "SIGTERM, twice; some hooks have not fired"),
        (False, RuntimeError(), "the controller failed"),
        (False, None, None),
    ],
)
def test_a_run_has_ended_only_if_its_hooks_have_fired(
    is_cut: bool, crash: BaseException | None, why: str | None
) -> None:
    """Else it is detached, and they fire when it is resumed."""
    ended = events.RunEnded(1.0, "r1", 1, 0, {})
    hooks: Any = SimpleNamespace(is_cut=is_cut)
    interrupts: Any = SimpleNamespace(why="SIGTERM")
    last = last_event(engine(0, crash=crash), hooks, interrupts, ended)
    if why is None:
        assert last is ended
    else:
        assert isinstance(last, events.RunDetached)
        assert (last.run, last.why) == ("r1", why)
