"""The times of hosts on the clock of this machine."""

from __future__ import annotations

import pytest

from launcher.runs.clocks import is_time, offsets_of, times_of
from launcher.runs.status import AttemptStatus, JobStatusLine


def started(host: str, at: float, host_at: float | None, duration: float | None = None) -> AttemptStatus:
    """An attempt whose start was known here at one time, and there at another."""
    return AttemptStatus(1, host, started_at=at, host_started_at=host_at, duration=duration)


def test_the_least_difference_counts() -> None:
    """A message may come late and never early. A host that started nothing, or says no time, has no offset."""
    jobs = [
        JobStatusLine(0, attempts=[started("gpu1", 105.0, 40.0), started("gpu2", 100.0, 3700.5)]),
        JobStatusLine(1, attempts=[started("gpu1", 101.0, 41.0), started("gpu3", 1.0, 1e300)]),
        JobStatusLine(2, attempts=[AttemptStatus(1, "gpu4")]),
    ]
    assert offsets_of(jobs) == {"gpu1": 60.0, "gpu2": -3600.5}


@pytest.mark.parametrize(
    ("attempt", "expected"),
    [
        (started("h", 105.0, 40.0, 3.0), (100.0, 103.0)),
        (started("h", 105.0, None, 3.0), (105.0, 108.0)),
        (started("h", 105.0, 40.0), (100.0, 200.0)),
        (started("h", 105.0, -1e9, 1e9), (90.0, 200.0)),
        (started("h", 105.0, 1e9, 5.0), (200.0, 200.0)),
    ],
)
def test_an_attempt_lies_within_its_run(attempt: AttemptStatus, expected: tuple[float, float]) -> None:
    """Whatever its host says."""
    assert times_of(attempt, 60.0, 90.0, 200.0) == expected


def test_which_numbers_are_times() -> None:
    """Those that a clock may show."""
    assert is_time(0.0)
    assert is_time(1.7e9)
    assert not is_time(None)
    assert not is_time(1e12)
