"""What a report says of a run, from its journal alone."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from launcher import events
from launcher.code.files.snapshot import take
from launcher.errors import UsageError
from launcher.report_page.facts import Homes, ReportFacts, read_facts
from launcher.report_page.page import render
from launcher.runs.journal import FOLDER, Journal
from tests.journals import START, MadeJob, failure, make_run


def facts_of(folder: Path, jobs: list[MadeJob], **how: Any) -> ReportFacts:
    """The facts of a run of these jobs."""
    return read_facts(make_run(folder, jobs, **how))


def test_failures_are_grouped_by_type_and_raising_line(tmp_path: Path) -> None:
    """The most frequent first, each with one traceback, its members and their hosts. The id of a group is the same for another run."""
    other = failure(type="my.Odd", message="odd 3", traceback='  File "/home/u/code/a.py", line 3, in f\nOdd: odd 3\n')
    jobs = [
        MadeJob(state="FAILED", error=other),
        *(MadeJob(state="FAILED", host=f"gpu{num}") for num in (1, 2, 2)),
        MadeJob(value=1),
    ]
    first, second = facts_of(tmp_path / "1", jobs).failures
    assert (first.title, first.place, first.nums) == (
        "ZeroDivisionError: division by zero",
        "my_app.py:7 in train",
        [1, 2, 3],
    )
    assert (first.hosts, second.nums) == ({"gpu1": 1, "gpu2": 2}, [0])
    assert "~/code/my_app.py" in first.traceback
    assert [one.id for one in facts_of(tmp_path / "2", jobs[:2]).failures] == [second.id, first.id]


def test_many_distinct_failures_are_counted(tmp_path: Path) -> None:
    """A hostile host lets each job fail in another way."""
    jobs = [MadeJob(state="FAILED", error=failure(type=f"E{num}", traceback="x" * 5000)) for num in range(130)]
    facts = facts_of(tmp_path, jobs)
    assert (len(facts.failures), facts.failures_left_out) == (100, 30)
    assert max(len(one.traceback) for one in facts.failures) <= 1000


def test_times_of_a_host_are_moved_to_our_clock(tmp_path: Path) -> None:
    """By the least difference that was seen. A start that was told late, after a lost link, stands where it was."""
    entry = make_run(tmp_path, [MadeJob(begin=5.0, duration=3.0), MadeJob(begin=9.0, duration=1.0, slot=1)])
    # The host's clock is an hour behind, and it told the second start 100 s late.
    with sqlite3.connect(tmp_path / ".launcher" / "journal.sqlite") as connection:
        for seq, data in connection.execute("select seq, data from events where kind = 'attempt_started'").fetchall():
            event = json.loads(data)
            event["started_at"] -= 3600.0
            event["at"] += 100.0 if event["num"] == 1 else 0.0
            connection.execute("update events set data = ? where seq = ?", (json.dumps(event), seq))
    facts = read_facts(entry)
    assert facts.hosts[0].offset == pytest.approx(3600.0)
    assert [(round(span.start, 3), round(span.end, 3), span.slot) for span in facts.spans] == [
        (5.0, 8.0, 0),
        (9.0, 10.0, 1),
    ]


def test_a_host_cannot_say_times_outside_of_the_run(tmp_path: Path) -> None:
    """Any number may come from it. An attempt lies within its run, and a clock that cannot be is not compared with ours."""
    jobs = [MadeJob(begin=1.0, duration=duration, slot=slot) for slot, duration in enumerate((1.0, 2.0, 3.0))]
    entry = make_run(tmp_path, jobs)
    lies = {0: -1.7e308, 1: 1.7e308, 2: START + 2e9}
    with sqlite3.connect(tmp_path / ".launcher" / "journal.sqlite") as connection:
        for seq, data in connection.execute("select seq, data from events").fetchall():
            event = json.loads(data)
            if event["kind"] == "attempt_started":
                event["started_at"] = lies[event["num"]]
            if event["kind"] in ("attempt_ended", "job_returned"):
                event["duration"] = 1.7e308
            connection.execute("update events set data = ? where seq = ?", (json.dumps(event), seq))
    facts = read_facts(entry)
    assert facts.hosts[0].offset == pytest.approx(-2e9, abs=10)
    assert all(0.0 <= span.start <= span.end <= facts.span for span in facts.spans)
    assert facts.busy_share is not None
    page = render(facts, tmp_path).decode()
    assert "0" * 40 not in page.partition("</style>")[2].partition("<script")[0]


def test_the_busy_share_is_of_open_slots(tmp_path: Path) -> None:
    """From when the host took jobs until the end of the run, but for the time without a link."""
    jobs = [MadeJob(begin=1.0, duration=5.0), MadeJob(begin=1.0, duration=10.0, slot=1)]
    facts = facts_of(tmp_path, jobs, slots=2)
    assert facts.span == pytest.approx(12.0)
    assert facts.busy_share == pytest.approx(15 / (2 * 11.5))


def test_lost_links_are_gaps(tmp_path: Path) -> None:
    """Until the link is there again, or the run ends."""
    happened = [
        events.HostUnknown(START + 2, "gpu1", "reset"),
        events.HostReady(START + 4, "gpu1", 2, "3.11.7", reconnected=True),
        events.HostUnknown(START + 5, "gpu1", "timed out"),
        events.HostLost(START + 6, "gpu1", "given up"),
    ]
    facts = facts_of(tmp_path, [MadeJob(begin=1.0, duration=9.0)], happened=happened)
    (host,) = facts.hosts
    assert (host.gaps, host.state) == ([(2.0, 4.0, "reset"), (5.0, 11.0, "timed out")], "given up")


def test_a_repeated_job_has_a_span_for_each_attempt(tmp_path: Path) -> None:
    """On the host of each."""
    facts = facts_of(tmp_path, [MadeJob(earlier=("gpu2",), begin=3.0)])
    assert [(span.host, span.attempt, span.state) for span in facts.spans] == [
        ("gpu2", 1, "given up"),
        ("gpu1", 2, "COMPLETED"),
    ]
    assert (facts.spans[0].collected, facts.spans[1].collected) == (None, pytest.approx(5.02))


@pytest.mark.parametrize(("end", "state"), [("ended", "completed"), ("detached", "detached"), ("", "died")])
def test_a_run_of_any_state_has_a_report(tmp_path: Path, end: str, state: str) -> None:
    """What still runs does so until the last event."""
    jobs = [MadeJob(value=1, begin=1.0, duration=4.0)]
    if end != "ended":
        jobs += [MadeJob(state="running", begin=2.0), MadeJob(state="waiting"), MadeJob(state="assigned")]
    facts = facts_of(tmp_path, jobs, end=end)
    assert (facts.status.state, facts.spans[0].end) == (state, 5.0)
    if end == "":
        assert facts.spans[1].end == pytest.approx(facts.span) == pytest.approx(5.02)


def test_a_run_that_died_at_once_has_a_report(tmp_path: Path) -> None:
    """Without a job, a host or a record."""
    facts = facts_of(tmp_path, [], end="")
    assert (facts.spans, facts.busy_share, facts.failures) == ([], None, [])


def test_what_ran_is_said_without_home_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command, the commit, and the hash of the code. They are left in if the user asks for it."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "app.py").write_text("def train(cfg): ...\n")
    snapshot = take(project / "app.py")
    monkeypatch.setenv("HOME", "/srv/people/ann")
    setup = {
        "argv": ["/srv/people/ann/bin/launcher", "multirun", "/srv/people/ann/app.py", "lr=1,2", "data=/home/bob/x y"],
        "cwd": "/srv/people/ann",
        "code": {"root": "/srv/people/ann", "commit": "abc123", "dirty": True},
    }
    entry = make_run(tmp_path, [MadeJob()], setup=setup)
    with closing(Journal(tmp_path / FOLDER)) as journal:
        journal.put_blob("manifest", snapshot.manifest_bytes())
    about = dict(read_facts(entry).about)
    assert about["command"] == "launcher multirun ~/app.py lr=1,2 'data=~/x y'"
    assert (about["in folder"], about["commit"], about["code"]) == (
        "~",
        "abc123, with changes that were not committed",
        snapshot.hash,
    )
    assert "/srv/people/ann" in dict(read_facts(entry, full_paths=True).about)["in folder"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('File "/home/ann/x.py"', 'File "~/x.py"'),
        ("/root/a and /Users/bob: /root", "~/a and ~: ~"),
        ("/data/home/ann and /rooted and x/root/y", "/data/home/ann and /rooted and x/root/y"),
    ],
)
def test_home_folders_are_replaced(text: str, shown: str) -> None:
    """Those of hosts, too, and nothing that only looks like one."""
    assert Homes(are_kept=False)(text) == shown
    assert Homes(are_kept=True)(text) == text


def test_our_own_home_is_replaced_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that begins with its name is another one."""
    monkeypatch.setenv("HOME", "/srv/ann")
    assert Homes(are_kept=False)("/srv/ann/x /srv/anna") == f"~{os.sep}x /srv/anna"


def test_equal_warnings_are_counted(tmp_path: Path) -> None:
    """With where they come from."""
    happened = [events.Warned(START + 0.6, "hook", "it raised", host="gpu1")] * 3
    assert facts_of(tmp_path, [MadeJob()], happened=happened).warnings == [("hook on gpu1: it raised", 3)]


def test_a_report_is_sorted_by_a_column_that_there_is(tmp_path: Path) -> None:
    """Or refused with the nearest."""
    entry = make_run(tmp_path, [MadeJob(value={"loss": loss}) for loss in (2, 1)])
    assert [row.job.num for row in read_facts(entry, sort="loss").ordered] == [1, 0]
    with pytest.raises(UsageError, match="did you mean 'loss'"):
        read_facts(entry, sort="los")
