"""The summary of a run: its table, its distinct failures, and the same for machines."""

from __future__ import annotations

import json
from dataclasses import replace

from launcher import events
from launcher.display.summary import summary_json
from launcher.display.text import varying
from tests.launcher.display.happened import TRACEBACK, error, one_job, ready, started, summary_of, tally_of


def test_the_table_of_the_summary_has_failures_first_and_is_limited() -> None:
    """What does not fit is counted."""
    happened = [event for num in range(100) for event in one_job(num, failure=error() if num >= 60 else None)]
    text = summary_of(tally_of([started(), ready(), *happened]), max_rows=45)
    rows = [
        line.split()[:3]
        for line in text.splitlines()
        if line.strip().startswith(tuple("0123456789")) and "gpu1" in line
    ]
    assert [row[2] for row in rows] == ["FAILED"] * 40 + ["COMPLETED"] * 5
    assert "... and 55 more completed" in text
    assert "60 completed, 40 failed (40 exception)" in text


def test_each_distinct_failure_has_its_remote_traceback_once() -> None:
    """With the jobs that had it."""
    failures = [error(), error(), error(traceback=TRACEBACK.replace("line 7", "line 9"))]
    text = summary_of(tally_of(event for num, one in enumerate(failures) for event in one_job(num, failure=one)))
    assert text.count("line 7, in train") == 1
    assert text.count("line 9, in train") == 1
    assert "2 jobs (0, 1): ZeroDivisionError" in text
    assert "job 2 on gpu1: ZeroDivisionError" in text


def test_without_a_usable_host_jobs_do_not_repeat_the_reason() -> None:
    """The line of the host has it once."""
    failure = error("host", message="no host can run it: gpu1: refused", traceback="", type="")
    happened = [started(), events.HostUnusable(1, "gpu1", "connect", "refused")]
    for num in range(3):
        happened += [events.JobQueued(1, num), events.JobReturned(1, num, 1, "", "FAILED", None, failure)]
    text = summary_of(tally_of(happened), unreached=("gpu9",))
    assert "refused" not in text
    assert "3 failed (3 host)" in text
    assert "hosts that could not be reached to end the run: gpu9" in text


def test_a_run_without_jobs_has_a_summary() -> None:
    """An empty sweep is not an error."""
    assert "0 completed, 0 failed" in summary_of(tally_of([started(), events.RunEnded(103.0, "run-1", 0, 0)]))


def test_the_json_report_is_whole_and_plain() -> None:
    """Every failure points to its distinct failure, whose error has the traceback."""
    tally = tally_of([started(), ready(), *one_job(0), *one_job(1, failure=error()), *one_job(2, failure=error())])
    report = json.loads(json.dumps(summary_json(tally, exit_code=1)))
    assert (report["version"], report["exit_code"], report["jobs"], report["completed"], report["failed"]) == (
        1,
        1,
        3,
        1,
        2,
    )
    assert [one["num"] for one in report["failures"]] == [1, 2]
    assert {one["failure"] for one in report["failures"]} == {0}
    assert report["failures"][0]["overrides"] == ["lr=1"]
    assert report["distinct_failures"][0]["error"]["traceback"] == TRACEBACK
    assert report["distinct_failures"][0]["nums"] == [1, 2]
    assert report["failures_left_out"] == 0


def test_a_resumed_run_counts_its_time_from_there() -> None:
    """`retry` of yesterday's run took seconds, not a day; a run that was only left still counts from its start."""
    again = [events.RunResumed(5000, "run-1", ("gpu1",)), *one_job(0, at=5001), events.RunEnded(5002, "run-1", 1, 0)]
    retried = tally_of([started(), ready(), *one_job(0, failure=error()), events.RunEnded(110, "run-1", 0, 1), *again])
    assert "in 2.00 s" in summary_of(retried)
    assert summary_json(retried, exit_code=0)["taken_up_at"] == 5000
    assert summary_json(retried, exit_code=0)["started_at"] == 100
    left = tally_of([started(), ready(), events.RunDetached(110, "run-1", "asked to"), *again])
    assert "in 1 h 21 min" in summary_of(left)


def test_rows_show_the_overrides_that_differ() -> None:
    """Common overrides are shown once above; the others are shown whole, however long they are."""
    long = "model.optimizer.parameters.schedule.warmup.steps.of.the.first.phase"
    happened: list[events.Event] = [started(), ready()]
    for num in range(3):
        overrides = ("data=imagenet", f"{long}.a=1", f"{long}.b={num}")
        *rest, returned = one_job(num)
        happened += [*rest, replace(returned, overrides=overrides)]
    text = summary_of(tally_of(happened))
    assert f"all jobs: data=imagenet {long}.a=1\n" in text
    assert [f"{long}.b={num}" in text for num in range(3)] == [True] * 3
    assert text.count(f"{long}.a=1") == 1


def test_a_single_job_shows_all_its_overrides() -> None:
    """There is no other job to compare it with."""
    *rest, returned = one_job(0, failure=error())
    assert "a=1 b=2" in summary_of(tally_of([*rest, replace(returned, overrides=("a=1", "b=2"))]))


def test_overrides_that_differ_in_their_spaces_only_look_different() -> None:
    """A newline in a value is shown as one."""
    assert varying([("x=a b",), ("x=a  b",), ("x=a\nb",)]) == ("", ["x=a b", "x=a  b", "x=a\\nb"])


def test_jobs_that_were_taken_over_are_counted() -> None:
    """The sum says how many of the completed jobs did not run now."""
    queued, *_, returned = one_job(0)
    taken = [queued, events.JobTakenOver(101, 0, "r", 5, 1, "gpu1"), returned]
    assert "2 completed (1 of them before), 0 failed" in summary_of(tally_of([started(), *taken, *one_job(1)]))
