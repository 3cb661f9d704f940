"""The spans of a run, from its journal alone."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from launcher import events
from launcher.runs.index import Entry
from launcher.tracing.span import Span
from launcher.tracing.spans import read_trace
from remote_agent.protocol.trace import attempt_span
from tests.journals import START, MadeJob, make_run


def spans_of(entry: Entry) -> dict[str, Span]:
    """The spans by their names, which must differ."""
    spans = list(read_trace(entry).spans)
    found = {span.name: span for span in spans}
    assert len(found) == len(spans)
    assert len({span.id for span in spans}) == len(spans)
    return found


def hook(name: str, num: int | None, began: float, took: float, host: str = "", ok: bool = True) -> events.HookFired:
    """A hook of the callback `cb`, told at the end."""
    side = "host" if host else "controller"
    attempt = 1 if host else None
    return events.HookFired(START + 20, name, "cb", side, ok, num, host, attempt, START + began, took)


def test_an_attempt_has_its_queue_hooks_work_and_collection(tmp_path: Path) -> None:
    """Each is where it was, one after the other, and belongs to the next larger thing."""
    hooks = [
        hook("on_job_start", 0, 5.1, 0.4, "gpu1"),
        hook("on_job_end", 0, 7.9, 1.0, "gpu1"),
        hook("on_multirun_start", None, 0.1, 0.2),
        hook("on_job_return", 0, 9.0, 0.25),
    ]
    entry = make_run(tmp_path, [MadeJob(["lr=1"], begin=5.0, duration=3.0)], happened=hooks)
    trace = read_trace(entry)
    found = spans_of(entry)
    run, job, attempt = found["multirun train"], found["job 0"], found["attempt 0.1"]
    assert (run.parent, job.parent, attempt.parent) == ("", run.id, job.id)
    assert attempt.id == attempt_span(trace.context.trace, "0.1")
    times = {name: (span.begin - START, span.end - START) for name, span in found.items()}
    assert times["queue"] == pytest.approx((4.95, 5.0))
    assert times["on_job_start cb"] == pytest.approx((5.1, 5.5))
    assert times["work"] == pytest.approx((5.5, 7.9))
    assert times["on_job_end cb"] == pytest.approx((7.9, 8.9))
    assert times["attempt 0.1"] == pytest.approx((4.95, 8.9))
    assert times["on_job_return cb"] == pytest.approx((9.0, 9.0), abs=0.3)
    assert times["set up gpu1"] == pytest.approx((0.3, 0.5))
    for name in ("queue", "work", "on_job_start cb", "on_job_end cb"):
        assert (found[name].parent, found[name].host) == (attempt.id, "gpu1")
    assert found["collect"].parent == found["on_job_return cb"].parent == job.id
    assert found["on_multirun_start cb"].parent == run.id
    assert job.attributes["remote_launcher.job.overrides"] == ("lr=1",)
    assert not any(span.problem for span in found.values())


def test_the_spans_of_a_run_have_the_same_ids_each_time(tmp_path: Path) -> None:
    """So a trace that is sent again does not double."""
    entry = make_run(tmp_path, [MadeJob(), MadeJob(state="FAILED")])
    assert list(read_trace(entry).spans) == list(read_trace(entry).spans)


def test_errors_have_type_and_message(tmp_path: Path) -> None:
    """By the names of OpenTelemetry, on the job and on its attempt; the run says how many failed."""
    found = spans_of(make_run(tmp_path, [MadeJob(state="FAILED"), MadeJob(host="gpu2")][:1]))
    for name in ("job 0", "attempt 0.1"):
        span = found[name]
        assert span.problem == "ZeroDivisionError: division by zero"
        assert span.attributes["error.type"] == "ZeroDivisionError"
        (moment,) = span.moments
        assert moment.name == "exception"
        assert moment.attributes["exception.type"] == "ZeroDivisionError"
        assert moment.attributes["exception.message"] == "division by zero"
        assert "my_app.py" in moment.attributes["exception.stacktrace"]
    assert found["multirun train"].problem == "1 of 1 jobs failed"


def test_a_hook_that_raised_says_what(tmp_path: Path) -> None:
    """From the warning that told it."""
    happened = [
        hook("on_job_end", 0, 2.0, 0.5, "gpu1", ok=False),
        events.Warned(START + 20, "callback cb.on_job_end", "ValueError: no", "", 0, "gpu1"),
    ]
    assert spans_of(make_run(tmp_path, [MadeJob()], happened=happened))["on_job_end cb"].problem == "ValueError: no"


def test_times_of_hosts_are_moved_to_our_clock(tmp_path: Path) -> None:
    """Those of hooks, too: the host's clock is an hour behind."""
    told = events.HookFired(
        START + 20, "on_job_start", "cb", "host", True, 0, "gpu1", 1, START + 5.1 - 3600, 0.4
    )  # fmt: skip
    entry = make_run(tmp_path, [MadeJob(begin=5.0, duration=3.0)], happened=[told])
    with sqlite3.connect(tmp_path / ".launcher" / "journal.sqlite") as connection:
        for seq, data in connection.execute("select seq, data from events where kind = 'attempt_started'").fetchall():
            changed = json.loads(data)
            changed["started_at"] -= 3600
            connection.execute("update events set data = ? where seq = ?", (json.dumps(changed), seq))
    found = spans_of(entry)
    assert found["on_job_start cb"].begin == pytest.approx(START + 5.1)
    assert found["work"].begin == pytest.approx(START + 5.5)
    assert found["work"].end == pytest.approx(START + 8.0)


def test_each_attempt_has_its_span(tmp_path: Path) -> None:
    """One that was given up says why."""
    found = {span.name: span for span in read_trace(make_run(tmp_path, [MadeJob(earlier=("gpu2",))])).spans}
    assert found["attempt 0.1"].problem == "the host was lost"
    assert (found["attempt 0.1"].host, found["attempt 0.2"].host) == ("gpu2", "gpu1")
    assert found["attempt 0.2"].problem == ""


@pytest.mark.parametrize("state", ["waiting", "assigned", "running"])
def test_a_run_that_goes_on_has_a_trace(tmp_path: Path, state: str) -> None:
    """Every span lies within what is known of the run."""
    entry = make_run(tmp_path, [MadeJob(state=state), MadeJob(begin=3.0)], end="")
    spans = list(read_trace(entry).spans)
    root = spans[0]
    assert all(root.begin <= span.begin <= span.end <= root.end for span in spans)
    assert ("attempt 0.1" in {span.name for span in spans}) == (state != "waiting")


def test_the_run_is_a_child_of_what_started_it(tmp_path: Path) -> None:
    """Its journal has the parent."""
    entry = make_run(tmp_path, [MadeJob()])
    told = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with sqlite3.connect(tmp_path / ".launcher" / "journal.sqlite") as connection:
        connection.execute("insert into meta values ('traceparent', ?)", (told,))
    trace = read_trace(entry)
    assert trace.context.trace == told.split("-")[1]
    assert next(trace.spans).parent == "b7ad6b7169203331"


def test_a_hostile_hook_time_leaves_the_trace_whole(tmp_path: Path) -> None:
    """A host may say any number."""
    happened: list[Any] = [hook("on_job_start", 0, 9e10, 9e10, "gpu1"), hook("on_job_end", 0, -9e10, 1.0, "gpu1")]
    spans = list(read_trace(make_run(tmp_path, [MadeJob()], happened=happened)).spans)
    root = spans[0]
    assert all(root.begin <= span.begin <= span.end <= root.end for span in spans)
