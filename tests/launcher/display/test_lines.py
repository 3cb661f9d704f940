"""Lines of a run: each event that a user wants to see, and no more of what repeats."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from launcher import events
from launcher.display.lines import SHOWN_ONE_BY_ONE, TRACEBACK_LINES, EventLines, LineDisplay
from launcher.display.summary import summary_json
from launcher.display.tally import Tally
from launcher.events.base import KINDS
from tests.launcher.display.happened import TRACEBACK, error, one_job, ready, started, summary_of, tally_of, told


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


def test_another_attempt_is_announced_with_the_outcome_of_the_last_one() -> None:
    """One that failed with its error, one that was given up with the reason; where it was, and that another one follows."""
    failed = [event for event in one_job(0, failure=error()) if not isinstance(event, events.JobReturned)]
    assert told([started(), ready(), *failed, events.JobRequeued(103, 0, 1, "gpu1", "retried after: exception")])[
        -1
    ] == ("job 0: attempt 1 on gpu1 FAILED: ZeroDivisionError: division by zero; another attempt follows")
    given_up = events.JobRequeued(105, 0, 2, "gpu1", "cannot start /bin/py")
    assert told([started(), ready(), given_up])[-1] == (
        "job 0: attempt 2 on gpu1 given up: cannot start /bin/py; another attempt follows"
    )


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


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_event_can_be_shown(kind: str) -> None:
    """Whatever its fields hold, an observer must not raise: the engine would leave it out."""
    cls = KINDS[kind]
    values: dict[str, Any] = {
        "at": 1.0, "num": 1, "attempt": 2, "slots": 1, "slot": 0, "started_at": 1.0, "files": 3, "sent_files": 1,
        "sent_bytes": 4096, "done": 1, "total": 2, "fetched": 1, "is_new": True, "completed": 1, "failed": 0, "duration": None, "error": None, "ok": True, "kill": True,
        "hosts": ("a",), "jobs": (1,), "overrides": (), "gpus": (), "counts": {}, "reconnected": False,
    }  # fmt: skip
    event = cls(**{name: values.get(name, "text") for name in (one.name for one in fields(cls))})
    told([started(), event], verbose=True)


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
    assert told(13, "building", 100 << 20) == ["host h: environment: building (100.0 MiB of packages)"]
    ready = events.EnvironmentReady(14, "h", "a" * 64, is_new=True, total=100 << 20)
    assert [line.text for line in shown.lines(ready)] == [f"host h: environment {'a' * 12} is built (100.0 MiB)"]


def test_a_job_that_was_taken_over_has_no_line() -> None:
    """A note says of all of them which they are. Jobs that run have theirs."""
    queued, *_, returned = one_job(0)
    taken = [queued, events.JobTakenOver(101, 0, "r", 5, 1, "gpu1"), returned]
    assert [line for line in told([started(), *taken, *one_job(1)]) if line.startswith("job ")] == [
        "job 1 on gpu1: completed after 0.50 s"
    ]
