"""Rows of the live part: one line each, cut at the edge, and clean."""

from __future__ import annotations

import pytest

from launcher import events
from launcher.display.tally import Tally
from launcher.terminal import rows
from tests.launcher.display.happened import one_job, ready, started, tally_of

#: Clears the screen, names the window, goes up, and begins another line.
HOSTILE = "\x1b[2J\x1b]0;owned\x07\x1b[A\rfoo\nbar"


def report(num: int, values: dict[str, object]) -> events.JobReported:
    return events.JobReported(105.0, num, 1, "gpu1", 1, 105.0, 3.0, values)


def plain(tally: Tally, width: int = 120, room: int = 20) -> list[str]:
    return [one.plain for one in rows.host_rows(tally, 110.0, width, room)]


def test_the_last_report_of_a_running_job() -> None:
    """With its number if several run there."""
    tally = tally_of([started(), ready(), *one_job(1)[:3], report(1, {"loss": 0.25})])
    assert plain(tally)[0].endswith("job 1 lr=1 9 s; step 3, loss 0.25")
    for event in one_job(2)[:3]:
        tally(event)
    assert plain(tally)[0].endswith("jobs 1 (9 s), 2 (9 s); 1: step 3, loss 0.25")


def test_why_jobs_wait_in_a_queue() -> None:
    """While some wait there, and no longer."""
    waits = events.Note(103.0, "slurm: allocations wait: Priority", "gpu1")
    tally = tally_of([started(), ready(), *one_job(1)[:2], waits])
    assert plain(tally)[0].endswith("1 in the queue: Priority")
    tally(one_job(1)[2])
    assert "queue: " not in plain(tally)[0]


def test_a_hostile_job_and_host_write_nothing_but_text() -> None:
    """Names of overrides, reports and reasons have no control character, and stay in their line."""
    queued = events.JobQueued(101.0, 1, (f"lr={HOSTILE}",))
    tally = tally_of(
        [started(), ready(), queued, *one_job(1)[1:3], report(1, {f"loss{HOSTILE}": HOSTILE})]
        + [events.Note(103.0, f"slurm: allocations wait: {HOSTILE}", "gpu1"), *one_job(2)[:2]]
        + [events.HostUnknown(104.0, "gpu2", HOSTILE)]
    )
    drawn = plain(tally) + [one.plain for one in rows.job_rows(tally, rows.shown_jobs(tally), 1, 110.0, 10)]
    assert any("foo" in line for line in drawn)
    assert not [line for line in drawn if not line.isprintable()]


def test_a_narrow_terminal_has_fewer_columns() -> None:
    """What runs is what counts."""
    tally = tally_of([started(), ready(), *one_job(1)[:3]])
    assert plain(tally, width=60)[0] == "gpu1  ready  1/2 running  job 1 lr=1 9 s"


def test_a_job_that_takes_longer_than_those_before() -> None:
    """Its end is not guessed."""
    tally = tally_of([started(), ready(), *one_job(0), *one_job(1), *one_job(2)[:3]])
    assert plain(tally)[0].endswith("job 2 lr=2 9 s, longer than those before (up to 1 s)")


def test_jobs_to_choose_from_stand_around_the_chosen_one() -> None:
    """Running ones first, then those that wait on a host, then those that wait here."""
    waiting: list[events.Event] = [one_job(num)[0] for num in range(10, 40)]
    tally = tally_of([started(), ready(), *waiting, *one_job(2)[:2], *one_job(1)[:3]])
    jobs = rows.shown_jobs(tally)
    assert jobs[:3] == [1, 2, 10]
    drawn = [one.plain for one in rows.job_rows(tally, jobs, 20, 110.0, 5)]
    assert len(drawn) == 5
    assert [line for line in drawn if line.startswith(">")] == ["> job 20  lr=20  waiting here"]


@pytest.mark.slow
def test_ten_thousand_jobs_leave_nothing_behind() -> None:
    """What is kept of jobs does not grow with those that have returned, and the counts are right."""
    tally = tally_of([started(), ready()])
    for num in range(10_000):
        for event in one_job(num):
            tally(event)
    assert (tally.completed, tally.overrides, rows.shown_jobs(tally)) == (10_000, {}, [])
    assert "10,000 done" in plain(tally)[0]
    assert "10,000/10,000" in rows.run_row(tally, 110.0, 10_000, 120).plain
