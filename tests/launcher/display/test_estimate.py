"""When jobs and the run will probably end."""

from __future__ import annotations

from dataclasses import replace

from launcher import events
from launcher.display.estimate import Durations, run_left
from launcher.display.tally import Tally
from tests.launcher.display.happened import one_job, ready, started, tally_of


def ended(num: int, duration: float, at: float = 200.0) -> list[events.Event]:
    return [
        replace(one, duration=duration) if isinstance(one, events.JobReturned) else one for one in one_job(num, at=at)
    ]


def running(num: int, at: float) -> list[events.Event]:
    return one_job(num, at=at)[:3]


def test_one_job_is_no_base() -> None:
    """Two are: the median, and the longest."""
    durations = Durations()
    assert durations.typical is None
    durations.add(3.0)
    assert durations.typical is None
    for duration in (4.0, 100.0):
        durations.add(duration)
    assert (durations.typical, durations.longest) == (4.0, 100.0)


def test_nothing_is_said_before_there_is_a_base() -> None:
    """Neither with no job, nor with one."""
    assert run_left(Tally(), 100.0, 10) is None
    assert run_left(tally_of([started(), ready(), *ended(0, 60.0)]), 300.0, 10) is None


def test_what_runs_and_what_waits_counts() -> None:
    """Two slots: one job needs 50 seconds yet, and four wait for a minute each."""
    tally = tally_of([started(), ready(), *ended(0, 60.0), *ended(1, 60.0), *running(2, 290.0)])
    assert run_left(tally, 300.0, 7) == (4 * 60.0 + 50.0) / 2


def test_the_last_job_counts_alone() -> None:
    """Nothing shares its time."""
    tally = tally_of([started(), ready(), *ended(0, 60.0), *ended(1, 60.0), *running(2, 290.0)])
    assert run_left(tally, 300.0, 3) == 50.0


def test_the_rate_counts_when_each_slot_has_had_some() -> None:
    """It has everything between two jobs in it: four returned in 100 seconds, so that four more take as long."""
    jobs = [one for num in range(4) for one in ended(num, 1.0)]
    assert run_left(tally_of([started(), ready(), *jobs]), 300.0, 8) == 100.0


def test_nobody_knows_when_a_queue_lets_a_job_start() -> None:
    """So nothing is said while jobs wait in it."""
    happened = [started(), ready(), *ended(0, 60.0), *ended(1, 60.0)]
    queued = [*one_job(2, at=201.0)[:2], events.Note(202.0, "slurm: allocations wait: Priority", "gpu1")]
    assert run_left(tally_of([*happened, *queued]), 300.0, 3) is None
    assert run_left(tally_of([*happened, *queued[:2]]), 300.0, 3) == 60.0


def test_nobody_knows_how_long_a_job_goes_on_that_is_the_longest_of_all() -> None:
    """Nothing is said when only such jobs are left."""
    tally = tally_of([started(), ready(), *ended(0, 60.0), *ended(1, 60.0), *running(2, 100.0)])
    assert run_left(tally, 300.0, 3) is None


def test_a_run_that_is_stopping_has_no_estimate() -> None:
    """Its jobs are cancelled."""
    tally = tally_of([started(), ready(), *ended(0, 60.0), *ended(1, 60.0), events.RunInterrupt(250.0, "Ctrl-C")])
    assert run_left(tally, 300.0, 9) is None
