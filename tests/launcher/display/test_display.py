"""The display tells what matters, in bounded memory, and lets nothing through that a terminal would obey."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import pytest

from launcher import events
from launcher.display import LineDisplay, ProgressDisplay, Tally, make_display, print_summary, summary_json
from launcher.display.lines import SHOWN_ONE_BY_ONE, TRACEBACK_LINES, EventLines
from launcher.display.tally import MAX_FAILURES, MAX_GROUPS
from launcher.display.text import clean, clean_lines, error_line, seconds, size, varying

TRACEBACK = """Traceback (most recent call last):
  File "/home/u/code/my_app.py", line 7, in train
    return 1 / cfg.lr
ZeroDivisionError: division by zero
"""


def error(kind: str = "exception", **fields: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "type": "ZeroDivisionError",
        "message": "division by zero",
        "traceback": TRACEBACK,
        "exit_code": None,
        "signal": None,
        "causes": [],
        **fields,
    }


def started(*hosts: str) -> events.RunStarted:
    return events.RunStarted(100.0, "run-1", "MULTIRUN", "/work/multirun/1", hosts or ("gpu1",))


def ready(host: str = "gpu1", **fields: Any) -> events.HostReady:
    return events.HostReady(100.5, host, 2, "3.11.7", **fields)


def one_job(
    num: int, *, host: str = "gpu1", failure: dict[str, Any] | None = None, at: float = 101.0
) -> list[events.Event]:
    """The events of a job from beginning to end."""
    status = "COMPLETED" if failure is None else "FAILED"
    return [
        events.JobQueued(at, num, (f"lr={num}",)),
        events.JobAssigned(at, num, 1, host),
        events.AttemptStarted(at, num, 1, host, 0, at),
        events.AttemptEnded(at, num, 1, host, status, 0.5, failure),
        events.JobReturned(at, num, 1, host, status, 0.5, failure, (f"lr={num}",)),
    ]


def told(happened: Iterable[events.Event], **options: Any) -> list[str]:
    """The lines of a plain display."""
    lines: list[str] = []
    with LineDisplay(Tally(), lines.append, **options) as display:
        for event in happened:
            display(event)
    return lines


def tally_of(happened: Iterable[events.Event]) -> Tally:
    tally = Tally()
    for event in happened:
        tally(event)
    return tally


def summary_of(tally: Tally, **options: Any) -> str:
    stream = io.StringIO()
    print_summary(tally, stream, **options)
    return stream.getvalue()


# -- counting --------------------------------------------------------------------------------------------------------


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


def test_a_resumed_run_is_announced() -> None:
    """Another process has resumed it and knows its name and its hosts."""
    happened = [
        events.RunResumed(1, "run-1", ("gpu1",)),
        events.RunDetaching(2, "run-1", "SIGHUP"),
        events.RunDetached(3, "run-1", "SIGHUP", ("gpu1",)),
    ]
    assert told(happened) == [
        "run run-1 resumed on gpu1",
        "detaching (SIGHUP): the hosts get every job that still waits here",
        "detached (SIGHUP): run run-1 goes on, on gpu1",
    ]
    assert tally_of(happened).detached == "SIGHUP"


def test_another_attempt_is_announced_with_the_outcome_of_the_last_one() -> None:
    """One that failed with its error, one that was given up with the reason; where it was, and that another one follows."""
    failed = [event for event in one_job(0, failure=error()) if not isinstance(event, events.JobReturned)]
    assert told([started(), ready(), *failed, events.JobRequeued(103, 0, 1, "gpu1", "retried after: exception")])[
        -1
    ] == ("job 0: attempt 1 on gpu1 FAILED: ZeroDivisionError: division by zero; another attempt follows")
    given_up = events.JobRequeued(105, 0, 2, "gpu1", "gpu1: cannot start /bin/py")
    assert told([started(), ready(), given_up])[-1] == (
        "job 0: attempt 2 on gpu1 given up: cannot start /bin/py; another attempt follows"
    )


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


# -- lines -----------------------------------------------------------------------------------------------------------


def test_the_plain_lines_of_a_run() -> None:
    """Hosts, jobs, failures; one line each."""
    lines = told([started(), ready(gpus=("GPU-1", "GPU-2")), *one_job(0), *one_job(1, failure=error())])
    assert lines == [
        "run run-1 (MULTIRUN) on gpu1; results in /work/multirun/1",
        "host gpu1: ready, 2 slots, 2 GPUs, agent on Python 3.11.7",
        "job 0 on gpu1: completed after 0.50 s",
        "job 1 on gpu1: FAILED after 0.50 s: ZeroDivisionError: division by zero",
    ]


def test_output_is_prefixed_by_its_job() -> None:
    """Each line of it; of a progress bar what it showed last."""
    lines = told([events.OutputArrived(1, 3, "gpu1", "stdout", "one\n 10%\r 20%\ntwo\n")])
    assert lines == ["[3 gpu1] one", "[3 gpu1]  20%", "[3 gpu1] two"]


def test_lines_are_whole_however_the_output_was_cut() -> None:
    """A line, a character, a carriage return that was cut in two is joined; a last line without a newline is shown when the job returns."""
    text = "gr\u00fc\u00df\r\n 10%\r 20%\nlast".encode()
    for cut in range(len(text) + 1):
        parts = [text[:cut], text[cut:]]
        arrived = [
            events.OutputArrived(1, 3, "gpu1", "stdout", part.decode("utf-8", "surrogateescape")) for part in parts
        ]
        lines = told([*arrived, one_job(3)[-1]])
        assert lines[:3] == ["[3 gpu1] gr\u00fc\u00df", "[3 gpu1]  20%", "[3 gpu1] last"]


def test_a_line_without_end_is_shown_in_pieces() -> None:
    """It takes no more memory than a long line may."""
    endless = [events.OutputArrived(1, 3, "gpu1", "stdout", "x" * 40_000) for _ in range(5)]
    lines = told(endless)
    assert [len(line) for line in lines] == [80_009, 80_009]


def test_a_warning_is_attributed_in_full_and_every_time() -> None:
    """Hook, callback, job and host, with the traceback; the second time too."""
    warned = events.Warned(1, "callback upload.on_job_end", "OSError: no route", TRACEBACK, 3, "gpu1")
    lines = told([warned, warned])
    assert lines[0] == "warning: callback upload.on_job_end (job 3 on gpu1): OSError: no route"
    assert '      File "/home/u/code/my_app.py", line 7, in train' in lines
    assert lines.count(lines[0]) == 2


def test_a_deep_traceback_is_cut_in_the_middle() -> None:
    """Its beginning and its end are what people read."""
    deep = "\n".join(f"frame {number}" for number in range(500))
    lines = told([events.Warned(1, "callback x.on_job_end", "RecursionError", deep)])
    assert len(lines) == TRACEBACK_LINES + 2
    assert lines[1].strip() == "frame 0"
    assert lines[-1].strip() == "frame 499"
    assert any("lines left out" in line for line in lines)


def test_a_lost_link_is_unknown_since_a_time() -> None:
    """Unknown, not failed; and known again when the host is back."""
    lines = told([started(), ready(), events.HostUnknown(1, "gpu1", "reset by peer", (1, 2)), ready(reconnected=True)])
    assert "link lost (reset by peer); 2 jobs unknown since " in lines[2]
    assert lines[3] == "host gpu1: connected again; the state of its jobs is known again"
    assert not any("FAILED" in line for line in lines)


def test_a_host_with_little_room_is_shown_once() -> None:
    """Its state changes again and again: it is shown once for each reason, and the tally has its present state."""
    full, gone = ("spool: No space left on device", "spool: Input/output error")
    happened = [started(), ready()]
    for at, why in enumerate((full, full, gone)):
        happened += [events.HostClosed(at, "gpu1", why, True), events.HostOpened(at, "gpu1")]
    assert told(happened)[2:] == [
        f"host gpu1: gets no further jobs until it has room again: {why}" for why in (full, gone)
    ]
    tally = Tally()
    for event in happened[:-1]:
        tally(event)
    assert tally.hosts["gpu1"].state == "closed"
    tally(happened[-1])
    assert (tally.hosts["gpu1"].state, tally.hosts["gpu1"].detail) == ("ready", "")


def test_an_unusable_host_has_a_next_step() -> None:
    """Phase, reason, and what to do."""
    lines = told(
        [events.HostUnusable(1, "gpu1", "host key", "unknown\nSHA256:abc", "add this line:\ngpu1 ssh-ed25519 AAAA")]
    )
    assert lines == [
        "host gpu1: cannot be used: host key: unknown",
        "    SHA256:abc",
        "    next: add this line:\n          gpu1 ssh-ed25519 AAAA",
    ]


def test_jobs_that_never_started_have_no_line_of_their_own() -> None:
    """After Ctrl-C a long sweep would print a line for each job that waited; one that ran has its line."""
    failure = error("cancelled", message="cancelled before it started: interrupted (Ctrl-C)")
    never = [events.JobReturned(2, num, 0, "", "FAILED", None, failure) for num in range(1, 10)]
    ran = events.JobReturned(2, 0, 1, "gpu1", "FAILED", 0.5, error("cancelled", message="cancelled"))
    lines = told([started(), ready(), *never, ran])
    assert [line for line in lines if line.startswith("job ")] == ["job 0 on gpu1: FAILED after 0.50 s: cancelled"]


@pytest.mark.slow
def test_many_jobs_are_counted_instead_of_shown() -> None:
    """A log of 10,000 jobs stays readable: some lines of its own, then one every ten seconds."""
    happened: list[events.Event] = [started(), ready()]
    for num in range(10_000):
        happened += one_job(num, failure=error() if num % 10 == 0 else None, at=101 + num * 0.01)
    lines = told(happened, total=10_000)
    assert sum("completed after" in line for line in lines) == SHOWN_ONE_BY_ONE
    assert sum("FAILED" in line for line in lines) == SHOWN_ONE_BY_ONE
    assert any("further failures are counted" in line for line in lines)
    counting = [line for line in lines if line.startswith("so far:")]
    assert 8 <= len(counting) <= 10


def test_hooks_are_shown_if_asked_for() -> None:
    """The hook, its callback, its place, and whether it raised."""
    fired = [
        events.HookFired(1, "on_multirun_start", "upload", "controller", True),
        events.HookFired(1, "on_job_end", "upload", "host", False, 3, "gpu1"),
    ]
    assert told(fired) == []
    assert told(fired, hooks=True) == [
        "hook on_multirun_start of upload (controller)",
        "hook on_job_end of upload (gpu1, job 3): it raised",
    ]


def test_an_output_pattern_that_matched_nothing_is_shown_once() -> None:
    """In the summary, with how many jobs it concerns; a pattern with a typo costs files."""
    happened = [started(), ready()]
    for num in range(3):
        missed = ("*.jsn", "*.pt") if num == 1 else ("*.jsn",)
        job = one_job(num)
        happened += [*job[:-1], events.OutputsUnmatched(101, num, "gpu1", missed), job[-1]]
    assert not any("pattern" in line for line in told(happened))
    tally = tally_of(happened)
    said = [line for line in summary_of(tally).splitlines() if "pattern" in line]
    assert said == [
        "output pattern '*.jsn' matched no file of any completed job",
        "output pattern '*.pt' matched no file of 1 of the 3 completed jobs",
    ]
    assert summary_json(tally, exit_code=0)["unmatched_outputs"] == {"*.jsn": 3, "*.pt": 1}
    assert "pattern" not in summary_of(tally_of([started(), ready(), *one_job(0)]))


def test_quiet_shows_only_problems() -> None:
    """No other line."""
    lines = told([started(), ready(), *one_job(0), *one_job(1, failure=error())], quiet=True)
    assert lines == ["job 1 on gpu1: FAILED after 0.50 s: ZeroDivisionError: division by zero"]


@pytest.mark.parametrize("kind", sorted(events._KINDS))
def test_every_kind_of_event_can_be_shown(kind: str) -> None:
    """Whatever its fields hold, an observer must not raise: the engine would leave it out."""
    cls = events._KINDS[kind]
    values: dict[str, Any] = {
        "at": 1.0, "num": 1, "attempt": 2, "slots": 1, "slot": 0, "started_at": 1.0, "files": 3, "sent_files": 1,
        "sent_bytes": 4096, "completed": 1, "failed": 0, "duration": None, "error": None, "ok": True, "kill": True,
        "hosts": ("a",), "jobs": (1,), "overrides": (), "gpus": (), "counts": {}, "reconnected": False,
        "done": 1, "total": 2, "is_new": True,
    }  # fmt: skip
    event = cls(**{name: values.get(name, "text") for name in (one.name for one in fields(cls))})
    told([started(), event], verbose=True)


# -- what came from elsewhere ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b[2J\x1b[Hgone", "gone"),
        ("bell\x07", "bell\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("evil\u202etxt", "evil\\x202etxt"),
        ("tab\tnewline\n", "tab\tnewline\n"),
    ],
)
def test_terminals_get_no_control_characters_from_hosts(raw: str, shown: str) -> None:
    """Escape sequences go, other controls become visible."""
    assert clean(raw) == shown


def test_hostile_output_cannot_move_the_cursor() -> None:
    """Not by live output, nor by a message, a note, or a host's reason."""
    evil = "\x1b[2J\x07evil"
    happened = [
        events.OutputArrived(1, 0, "gpu1", "stdout", evil + "\n"),
        events.Note(1, evil, "gpu1"),
        events.Warned(1, "hosts", evil, evil),
        events.HostUnusable(1, "gpu1", "agent", evil, evil),
        events.HostUnknown(1, "gpu1", evil, (1,)),
        *one_job(1, failure=error(message=evil, traceback=evil)),
    ]
    text = "\n".join(told(happened)) + summary_of(tally_of(happened))
    assert "\x1b" not in text
    assert "\x07" not in text


def test_lines_without_an_end() -> None:
    """Output that stops within a line, and empty lines."""
    assert clean_lines("a\n\nb") == ["a", "", "b"]


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (error(), "ZeroDivisionError: division by zero"),
        (error(type="my_app.Odd", message=""), "Odd"),
        (error("killed", type="SIGSEGV", signal=11, message="killed by SIGSEGV"), "killed by SIGSEGV"),
        (error("killed", signal=9, message="out of memory?"), "killed by SIGKILL: out of memory?"),
        (error("exited", exit_code=3, message=""), "exited with code 3"),
        (error("timeout", message="after 30 s"), "timeout: after 30 s"),
        (error("import", type="ImportError", message="no torch"), "import: ImportError: no torch"),
        (error("killed", signal=99, message=""), "killed by signal 99"),
        (None, ""),
    ],
)
def test_an_error_is_one_line(failure: dict[str, Any] | None, line: str) -> None:
    """With its kind if that says more than its type."""
    assert error_line(failure) == line


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.123, "0.12 s"), (75, "75 s"), (130, "2 min 10 s"), (7260, "2 h 01 min"), (3599.9, "1 h 00 min")],
)
def test_durations(value: float | None, text: str) -> None:
    """As people say them."""
    assert seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB")])
def test_sizes(value: int, text: str) -> None:
    """As people say them."""
    assert size(value) == text


# -- the end ---------------------------------------------------------------------------------------------------------


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
    assert "not reached to end the run there: gpu9" in text


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


# -- the terminal ----------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def console(stream: Terminal, **options: Any) -> Any:
    from rich.console import Console

    return Console(file=stream, force_terminal=True, width=120, height=20, color_system=None, **options)


def rendered(display: ProgressDisplay, stream: Terminal) -> str:
    """What is drawn now."""
    target = console(stream)
    with target.capture() as capture:
        target.print(display.render())
    return capture.get()


def test_a_terminal_has_a_line_per_host() -> None:
    """With its state and its jobs; above it the lines of a log."""
    stream = Terminal()
    with ProgressDisplay(Tally(), console(stream), total=10) as display:
        for event in [started("gpu1", "gpu2"), ready(), *one_job(0), *one_job(1)[:3], *one_job(2)[:2]]:
            display(event)
        display(events.HostUnknown(1.0, "gpu2", "reset", ()))
        drawn = rendered(display, stream)
        display(events.Note(1.0, "isolation is spawn", "gpu1"))
    (first,) = (line for line in drawn.splitlines() if line.startswith("gpu1"))
    assert " ".join(first.split()) == "gpu1 ready 1/2 running 1 queued 1 done 0 failed job 1"
    (second,) = (line for line in drawn.splitlines() if line.startswith("gpu2"))
    assert "unknown since" in second
    assert "1/10" in drawn
    assert "note (gpu1): isolation is spawn" in stream.getvalue()


def test_progress_says_how_long_what_runs_and_how_long_yet() -> None:
    """Elapsed time, the jobs that run on each host, and a guess by the rate since the first job started."""
    display = ProgressDisplay(Tally(), console(Terminal()), total=10, clock=lambda: 400.0)
    for event in [started("gpu1", "gpu2"), ready(), ready("gpu2"), *one_job(0, at=200.0), *one_job(1, at=200.0)]:
        display(event)
    for num, host in ((2, "gpu1"), (3, "gpu1"), (4, "gpu2")):
        for event in one_job(num, host=host)[:3]:
            display(event)
    drawn = rendered(display, Terminal()).splitlines()
    assert [line.split("failed")[1].strip() for line in drawn[:2]] == ["jobs 2, 3", "job 4"]
    # Begun at 100; two returned in the 200 seconds since the first started, so that eight take 800 more.
    assert "5 min 00 s" in drawn[2]
    assert "about 13 min left" in drawn[2]


def test_a_log_says_how_long_what_runs_and_how_long_yet() -> None:
    """The same in a line every ten seconds, also while each job that returns has a line of its own."""
    happened: list[events.Event] = [started(), ready()]
    for num in range(4):
        happened += one_job(num, at=200.0)[:3]
    happened += one_job(0, at=200.0)[3:] + one_job(1, at=260.0)[3:]
    lines = [line for line in told(happened, total=10) if line.startswith("so far")]
    assert lines == [
        "so far: 1 completed, 0 failed, 3 running (1, 2, 3), 6 waiting; 100 s elapsed",
        "so far: 2 completed, 0 failed, 2 running (2, 3), 6 waiting; 2 min 40 s elapsed, about 4 min left",
    ]


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


def test_more_hosts_than_lines() -> None:
    """Hosts with problems are shown, the rest is counted."""
    stream = Terminal()
    names = tuple(f"node{number:03}" for number in range(200))
    display = ProgressDisplay(Tally(), console(stream))
    for event in [started(*names), *(ready(name) for name in names[:150])]:
        display(event)
    drawn = rendered(display, stream)
    assert "node150" in drawn
    assert "more hosts" in drawn
    assert len(drawn.splitlines()) <= 20


def test_the_display_fits_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress on a terminal; lines in a pipe, on a dumb terminal, and when quiet."""
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(make_display(Tally(), Terminal()), ProgressDisplay)
    assert isinstance(make_display(Tally(), io.StringIO()), LineDisplay)
    assert isinstance(make_display(Tally(), Terminal(), quiet=True), LineDisplay)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_display(Tally(), Terminal()), LineDisplay)


def test_lines_reach_the_stream_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A log that is followed shows what happens when it happens."""
    with make_display(Tally(), sys.stdout) as display:
        display(ready())
        assert "host gpu1: ready" in capsys.readouterr().out


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device")])
def test_a_stream_that_breaks_costs_the_display_and_nothing_else(
    error: OSError, capsys: pytest.CaptureFixture[str]
) -> None:
    """It shows nothing more; the counts and the exit code stay right. A full disk is reported, a closed pipe is not."""
    written: list[str] = []

    def write(line: str) -> None:
        if len(written) == 2:
            raise error
        written.append(line)

    tally = Tally()
    display = LineDisplay(tally, write)
    for event in [started(), ready(), *one_job(0), *one_job(1, failure={"kind": "killed"})]:
        display(event)
    assert (len(written), tally.completed, tally.failed) == (2, 1, 1)
    said = capsys.readouterr().err
    assert said.count("nothing more can be shown") == (0 if isinstance(error, BrokenPipeError) else 1)


def test_an_environment_is_told_as_it_comes() -> None:
    """A line for each state, and for long sending one every ten seconds; then what the host has."""
    shown = EventLines(Tally())

    def told(at: float, state: str, done: int) -> list[str]:
        return [line.text for line in shown.lines(events.EnvironmentChanged(at, "h", state, done, 100 << 20))]

    assert told(0, "resolving", 0) == ["host h: environment: resolving its packages"]
    assert told(1, "sending", 0) == ["host h: environment: sending packages, 0 B of 100.0 MiB there"]
    assert told(2, "sending", 10 << 20) == []
    assert told(12, "sending", 50 << 20) == ["host h: environment: sending packages, 50.0 MiB of 100.0 MiB there"]
    assert told(13, "building", 100 << 20) == ["host h: environment: building"]
    ready = events.EnvironmentReady(14, "h", "a" * 64, is_new=True, total=100 << 20)
    assert [line.text for line in shown.lines(ready)] == [f"host h: environment {'a' * 12} is built (100.0 MiB)"]


def test_a_hosts_row_says_what_is_done_for_its_environment() -> None:
    """Until it is there."""
    tally = Tally()
    tally(events.RunStarted(0, "r", "RUN", "/f", ("h",)))
    tally(events.EnvironmentChanged(1, "h", "building", 1, 1))
    assert tally.hosts["h"].environment == "building"
    tally(events.EnvironmentReady(2, "h", "a" * 64, is_new=True, total=1))
    assert tally.hosts["h"].environment == ""
