"""Ten thousand histories of faults, and the promises that hold in each of them."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import replace

import pytest

from launcher import events
from launcher.engine.scheduling.placing import HostView, Placing
from remote_agent.shared.room import Admission
from tests.simulation.history import History, Job, Step, generate, shrink
from tests.simulation.model_host import Violation
from tests.simulation.mutants import CAUGHT, GivesUpAtOnce
from tests.simulation.world import World

_FIRST = int(os.environ.get("SIMULATION_FIRST_SEED", "0"))


def failure(history: History, **parts) -> Violation | None:
    """How a history breaks a promise; None if it keeps them all."""
    try:
        World(history, **parts).run()
    except Violation as violation:
        return violation
    return None


def check(seed: int) -> None:
    """Fail with a minimal history if that of this seed breaks a promise."""
    history = generate(seed)
    violation = failure(history)
    if violation is None:
        return
    minimal = shrink(history, lambda smaller: getattr(failure(smaller), "name", None) == violation.name)
    pytest.fail(f"seed {seed}: {failure(minimal)}\n{minimal}", pytrace=False)


def test_some_histories():
    """Every promise holds in each history."""
    for seed in range(_FIRST, _FIRST + 150):
        check(seed)


@pytest.mark.simulation
def test_ten_thousand_histories():
    """Every promise holds in each history."""
    for seed in range(_FIRST + 150, _FIRST + 10_150):
        check(seed)


def writes_of(history: History) -> int:
    """How often the controller writes its journal."""
    return World(history).run().disk.writes


_SEEDS = (3, 7, 13, 24, 27, 40, 67, 96, 1040, 1923)


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[] if seed in _SEEDS[:2] else pytest.mark.slow) for seed in _SEEDS]
)
def test_a_controller_that_dies_at_each_of_its_writes(seed):
    """Killed before or behind any write of its journal, and resumed, a run comes to the same promises."""
    history = generate(seed)
    for write in range(1, writes_of(history) + 1):
        for when in ("before", "after"):
            world = World(history)
            world.kill_at(write, when)
            try:
                world.run()
            except Violation as violation:
                pytest.fail(f"killed {when} write {write}: {violation}\n{history}", pytrace=False)


def test_a_controller_that_dies_at_every_second_write():
    """A run comes to its end though no life of the controller gets far."""
    history = History(5, (2,), tuple(Job(0.0, 2.0) for _ in range(6)))
    world = World(history)
    for write in range(2, 60, 2):
        world.kill_at(write, "after" if write % 4 else "before")
    world.run()
    assert world.lives > 5
    assert sorted(world.starts) == [f"{num}.1" for num in range(6)]


@pytest.mark.slow
def test_jobs_of_a_slow_host_end_on_a_fast_one():
    """Each job starts once. Together the hosts take about as long as they would if every job went to the first free one."""
    history = History(1, (1, 1), tuple(Job(0.0, 5.0) for _ in range(100)), slowness=(1.0, 4.0))
    steps = (Step(2.0, "detach"), Step(3.0, "kill_controller"))
    for told in ((), steps):
        world = World(replace(history, steps=told)).run()
        started = Counter(attempt.partition(".")[0] for attempt in world.starts)
        assert set(started.values()) == {1}
        assert world.now < 1.1 * 100 * 5.0 / (1 + 1 / 4) + 60 * bool(told)


def _passed_by(world: World, large: int) -> int:
    """How many jobs that were submitted later have started before this one."""
    order = [int(attempt.partition(".")[0]) for attempt in world.starts]
    before = order[: order.index(large)] if large in order else order
    return sum(num > large for num in before)


@pytest.mark.parametrize(
    ("slots", "slowness"),
    [
        ((3,), ()),
        pytest.param((3, 1), (), marks=pytest.mark.slow),
        pytest.param((3, 3), (1.0, 4.0), marks=pytest.mark.slow),
    ],
)
def test_a_large_job_is_not_held_up_by_small_ones(slots, slowness, monkeypatch):
    """A stream of small ones goes on for long, and never leaves three GPUs free by itself. Without the rule of `Admission` they all come first."""
    small = [Job(0.1 * num, 5.0 + num % 3) for num in range(100)]
    large = 5
    jobs = (*small[:large], Job(0.1 * large, 5.0, gpus=3), *small[large:])
    history = History(1, slots, jobs, slowness=slowness)
    world = World(history).run()
    assert {event.status for event in world.disk.happened if isinstance(event, events.JobReturned)} == {"COMPLETED"}
    assert _passed_by(world, large) <= 2 * sum(slots)
    monkeypatch.setattr(Admission, "fits", Admission._has_free)
    monkeypatch.setattr(Admission, "wait", lambda self, first: None)
    monkeypatch.setattr(Placing, "_next", _next_of_any_size)
    world = World(history)
    with contextlib.suppress(Violation):  # in the end there is room, and nobody gives it to the large one
        world.run()
    assert _passed_by(world, large) > 40


def _next_of_any_size(self: Placing, view: HostView, views: list[HostView]) -> int | None:
    """The first job that has room, whatever waits before it."""
    sizes = [needs for needs in self._state.pending.sizes() if view.has_room(needs)]
    return next((num for needs in sizes if (num := self._first(needs, view.host)) is not None), None)


@pytest.mark.parametrize(
    ("part", "mutant", "promise", "history"), CAUGHT, ids=[mutant.__name__ for _, mutant, _, _ in CAUGHT]
)
def test_a_defect_is_found(part, mutant, promise, history):
    """The simulation can fail: each of these broken parts breaks the promise that it should; the real part keeps it."""
    violation = failure(history, **{part: mutant})
    assert violation is not None
    assert violation.name == promise
    assert failure(history) is None


def test_a_failure_is_shown_as_a_minimal_history():
    """What is printed is short, fails by itself, and nothing can be left out of it."""

    def fails(history: History) -> bool:
        return getattr(failure(history, make_scheduler=GivesUpAtOnce), "name", None) == "unknown is not lost"

    long = next(history for history in map(generate, range(1000)) if len(history.steps) >= 5 and fails(history))
    minimal = shrink(long, fails)
    assert len(minimal.steps) == 1
    assert len(minimal.jobs) == 1
    namespace = {"History": History, "Job": Job, "Step": Step, "inf": float("inf")}
    assert eval(str(minimal), namespace) == minimal


def test_the_same_history_does_the_same_twice():
    """A failing seed can be looked at again."""
    one, other = World(generate(27)).run(), World(generate(27)).run()
    assert [event.to_json() for event in one.disk.happened] == [event.to_json() for event in other.disk.happened]
