"""A tally counts jobs where they stand, and takes as much memory for many as for few."""

from __future__ import annotations

import pytest

from launcher import events
from launcher.display.summary import summary_json
from launcher.display.tally import MAX_FAILURES, MAX_GROUPS, MAX_STEPS, Tally
from tests.launcher.display.happened import TRACEBACK, error, one_job, ready, started, summary_of, tally_of


def test_jobs_are_counted_where_they_stand() -> None:
    """A job is waiting, queued on its host, running there, then done; never in two places."""
    tally = tally_of([started(), ready()])
    host = tally.hosts["gpu1"]
    seen = []
    for event in one_job(0):
        tally(event)
        seen.append((tally.waiting, host.queued, host.running, host.completed))
    assert seen == [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 0), (0, 0, 0, 1)]


def test_a_job_that_is_given_back_waits_again() -> None:
    """Requeued, then run by another host: the first one's counts are as before."""
    tally = tally_of(
        [started("gpu1", "gpu2"), *one_job(0)[:3], events.JobRequeued(102, 0, 1, "gpu1", "retried after: killed")]
    )
    assert (tally.waiting, tally.hosts["gpu1"].running, tally.retried) == (1, 0, 1)
    for event in one_job(0, host="gpu2")[1:]:
        tally(event)
    assert (tally.hosts["gpu1"].completed, tally.hosts["gpu2"].completed, tally.total) == (0, 1, 1)


@pytest.mark.slow
def test_memory_does_not_grow_with_finished_jobs() -> None:
    """100,000 jobs, half of them failing in one way: counts, capped rows, one group."""
    tally = tally_of([started(), ready()])
    for num in range(100_000):
        for event in one_job(num, failure=error() if num % 2 else None):
            tally(event)
    assert (tally.total, tally.completed, tally.failed) == (100_000, 50_000, 50_000)
    assert len(tally.failures) == MAX_FAILURES
    assert len(tally.groups) == 1
    assert tally.groups[0].count == 50_000
    assert not tally._where
    assert all(not row.error["traceback"] for row in tally.failures if row.error)


def test_failures_are_the_same_by_kind_type_and_last_frames() -> None:
    """Another message at the same line is the same failure; another line is another, and so is another signal."""
    other_line = error(traceback=TRACEBACK.replace("line 7", "line 9"))
    killed = [error("killed", type="", traceback="", signal=number, message="killed") for number in (9, 11)]
    failures = [error(), error(message="x is 3"), other_line, *killed]
    tally = tally_of(event for num, one in enumerate(failures) for event in one_job(num, failure=one))
    assert [group.nums for group in tally.groups] == [[0, 1], [2], [3], [4]]


def test_too_many_different_failures_are_only_counted() -> None:
    """Above the limit they are not compared any more, and the summary says so."""
    tally = tally_of(
        event
        for num in range(MAX_GROUPS + 7)
        for event in one_job(num, failure=error(traceback=TRACEBACK.replace("line 7", f"line {num}")))
    )
    assert (len(tally.groups), tally.ungrouped) == (MAX_GROUPS, 7)
    assert "7 failed jobs whose errors were not compared" in summary_of(tally)


def test_a_job_that_runs_again_counts_once() -> None:
    """Its first JobReturn no longer counts. A job that this process never saw counts as a new one."""
    tally = tally_of(
        [started(), ready(), *one_job(0, failure=error()), events.JobRetried(102, 0, 1, "FAILED", "exception")]
    )
    assert (tally.total, tally.failed, tally.waiting, tally.kinds) == (1, 0, 1, {})
    for event in one_job(0)[1:]:
        tally(event)
    tally(events.JobRetried(103, 7, 1, "FAILED", "exception"))
    assert (tally.total, tally.completed, tally.failed, tally.waiting) == (2, 1, 0, 1)
    assert "remote traceback" not in summary_of(tally)


@pytest.mark.parametrize(
    ("happened", "expected"),
    [
        ([events.HostUnusable(1, "gpu1", "connect", "refused")], True),
        ([ready(), events.HostLost(1, "gpu1", "gone")], False),
        ([], False),
    ],
)
def test_no_host_usable_means_that_no_host_was_ever_usable(happened: list[events.Event], expected: bool) -> None:
    """A host that got jobs and was lost later does not count."""
    assert tally_of([started(), *happened]).has_no_usable_host is expected


def test_a_hosts_row_says_what_is_done_for_its_environment() -> None:
    """Until it is there."""
    tally = Tally()
    tally(events.RunStarted(0, "r", "RUN", "/f", ("h",)))
    tally(events.EnvironmentChanged(1, "h", "building", 1, 1))
    assert tally.hosts["h"].environment == "building (1 B of packages)"
    tally(events.EnvironmentReady(2, "h", "a" * 64, is_new=True, total=1))
    assert tally.hosts["h"].environment == ""


def changed(at: float, state: str, done: int = 0, total: int = 0) -> events.EnvironmentChanged:
    return events.EnvironmentChanged(at, "gpu1", state, done, total)


def test_how_a_host_came_to_its_environment() -> None:
    """Each step has its begin, and what was there at its begin and at its end; the summary for a machine has all of them."""
    seen = [changed(101, "resolving"), changed(102, "sending", 10, 100), changed(103, "sending", 60, 100)]
    tally = tally_of([started(), *seen, changed(104, "building", 100, 100)])
    assert tally.hosts["gpu1"].environment == "building (100 B of packages)"
    tally(events.EnvironmentReady(105, "gpu1", "abc", is_new=True, total=100))
    assert tally.hosts["gpu1"].environment == ""
    (host,) = summary_json(tally, exit_code=0)["hosts"]
    told = host["environment"]
    assert (told["key"], told["is_new"], told["bytes"]) == ("abc", True, 100)
    steps = [(one["state"], one["at"], one["bytes_before"], one["bytes"]) for one in told["steps"]]
    assert steps == [
        ("resolving", 101, 0, 0),
        ("sending", 102, 10, 60),
        ("building", 104, 100, 100),
        ("ready", 105, 100, 100),
    ]


def test_a_link_that_is_lost_again_and_again_makes_no_endless_list() -> None:
    """Steps beyond the cap are not kept; the key is."""
    tally = tally_of([started()])
    for number in range(10 * MAX_STEPS):
        tally(changed(number, ("resolving", "sending")[number % 2]))
    tally(events.EnvironmentReady(105, "gpu1", "abc", is_new=True, total=100))
    told = tally.hosts["gpu1"].environment_steps
    assert told is not None
    assert (len(told.steps), told.key) == (MAX_STEPS, "abc")


def test_a_host_without_an_environment_has_none() -> None:
    """The summary says so."""
    (host,) = summary_json(tally_of([started(), ready()]), exit_code=0)["hosts"]
    assert host["environment"] is None


def test_a_job_that_was_taken_over_counts_for_no_host() -> None:
    """It ran in an earlier run, on a host that this one may not have. The rate of this run does not come from it."""
    queued, *_, returned = one_job(0, host="elsewhere")
    tally = tally_of(
        [started(), ready(), queued, events.JobTakenOver(101, 0, "r", 5, 1, "elsewhere"), returned, *one_job(1)]
    )
    assert (tally.completed, tally.taken_over, tally.waiting, list(tally.hosts)) == (2, 1, 0, ["gpu1"])
    assert tally.hosts["gpu1"].completed == 1
    assert tally.seconds_left(102.0, 4) == 2.0
    assert summary_json(tally, exit_code=0)["taken_over"] == 1
