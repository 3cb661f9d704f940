"""The CPUs to which jobs are kept: those of two runs at once are different ones, as long as there are enough."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from remote_agent.agent.resources import cpus as module
from remote_agent.agent.resources.cpus import Cpus


@pytest.fixture(autouse=True)
def _own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other run on this machine has the names of these CPUs."""
    monkeypatch.setattr(module, "NAME", f"\0test-{os.getpid()}/cpu/{{}}")


@pytest.fixture
def runs() -> Iterator[tuple[Cpus, Cpus]]:
    """Two runs on one machine with four CPUs."""
    made = Cpus([0, 1, 2, 3]), Cpus([0, 1, 2, 3])
    yield made
    for one in made:
        one.close()


def test_two_runs_take_different_cpus(runs):
    """Whoever comes second takes those that are left."""
    first, second = runs
    assert (first.take(2), second.take(1), first.take(1), second.take(1)) == ([0, 1], [2], [3], [3])


def test_what_a_run_gives_back_is_for_all(runs):
    """A run that has ended gives back everything."""
    first, second = runs
    first.take(2)
    first.release([0, 1])
    assert second.take(2) == [0, 1]
    second.close()
    assert first.take(4) == [0, 1, 2, 3]


def test_no_cpu_is_in_two_jobs_of_a_run(runs):
    """Where all have a name, a job shares with another run, beginning at the end."""
    first, second = runs
    first.take(4)
    assert (second.take(1), second.take(2), second.take(1), second.take(1)) == ([3], [1, 2], [0], [])


def test_a_shared_cpu_gets_its_name_when_the_other_run_is_gone(runs):
    """So a third run does not take it."""
    first, second = runs
    first.take(4)
    second.take(1)
    first.close()
    second.take(1)
    third = Cpus([0, 1, 2, 3])
    try:
        assert third.take(2) == [1, 2]
    finally:
        third.close()


def test_cpus_of_jobs_that_run_already_are_taken(runs):
    """An agent that begins anew leaves them what they have."""
    first, second = runs
    first.hold([1, 2, 77])
    assert (second.take(2), first.take(1)) == ([0, 3], [3])


def test_where_cpus_are_not_known_no_job_is_kept_to_any():
    """As on macOS."""
    assert Cpus([]).take(2) == []
