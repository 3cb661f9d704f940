"""When the submitter looks at the shared disk, and when it asks for the allocations of the jobs that have come."""

from __future__ import annotations

import itertools

import pytest

from remote_agent.slurm.submitter.pace import Gathering, LookPace


def looks(pace: LookPace, since: float, until: float, *, took: float = 0.0, logs: int = 1) -> list[float]:
    """The times of all looks until then, if each finds nothing."""
    found = []
    pace.looked(since, since + took, logs)
    while pace.at <= until:
        found.append(pace.at)
        pace.looked(pace.at, pace.at + took, logs)
    return found


def test_after_news_it_looks_at_once_and_then_ever_less_often():
    """A look comes late by a tenth of the wait, and by half a second at most."""
    pace = LookPace()
    pace.news(100.0)
    found = looks(pace, 100.0, 200.0)
    pauses = [later - earlier for earlier, later in itertools.pairwise(found)]
    assert pauses[0] == pytest.approx(0.05)
    assert [round(one, 6) for one in pauses] == sorted(round(one, 6) for one in pauses)
    assert pauses[-1] == pytest.approx(0.5)
    assert all(0.05 < pause < 0.5 for at, pause in zip(found, pauses, strict=False) if 101.0 < at < 104.0)


def test_where_no_allocation_runs_it_looks_once_a_second():
    """Nothing is written there, but for allocations that begin."""
    found = looks(LookPace(), 100.0, 110.0, logs=0)
    assert [later - earlier for earlier, later in itertools.pairwise(found)] == pytest.approx([1.0] * 9)


def test_many_logs_are_looked_at_less_often():
    """At most 200 of them are opened in a second."""
    pace = LookPace()
    pace.news(100.0)
    pace.looked(100.0, 100.0, 400)
    assert pace.at == pytest.approx(102.0)


def test_news_bring_the_next_look_forward():
    """Whoever waits for the next line waits a twentieth of a second."""
    pace = LookPace()
    pace.looked(100.0, 100.0, 1)
    assert pace.at == pytest.approx(100.5)
    pace.news(100.1)
    assert pace.at == pytest.approx(100.15)


def test_a_slow_disk_is_asked_less_often():
    """A look that took half a second is followed by five seconds without one, whatever is new."""
    pace = LookPace()
    pace.news(100.0)
    pace.looked(100.0, 100.5, 1)
    assert pace.at == pytest.approx(105.5)


def test_one_job_is_asked_for_at_once_and_several_together():
    """The second one that comes shows that there are more. Jobs that never stop to come are asked for after a second."""
    gathering = Gathering()
    assert gathering.came(100.0) == pytest.approx(100.05)
    assert gathering.came(100.01) == pytest.approx(100.21)
    assert [gathering.came(100.0 + n / 10) for n in range(1, 15)][-1] == pytest.approx(101.0)
    gathering.asked()
    assert gathering.came(102.0) == pytest.approx(102.05)


def test_files_are_read_in_what_looks_leave_of_the_time():
    """A slow look, or a slow batch, puts the next batch off by ten times as long. No look waits for a batch."""
    pace = LookPace()
    pace.looked(100.0, 100.2, 1)
    assert pace.free_at == pytest.approx(102.2)
    at = pace.at
    pace.read(102.5, 103.5)
    assert (pace.free_at, pace.at) == (pytest.approx(113.5), at)
    pace.looked(104.0, 104.1, 1)
    assert pace.free_at == pytest.approx(113.5)
