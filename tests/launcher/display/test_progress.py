"""Progress on a terminal: a line for each host, as many as fit."""

from __future__ import annotations

from typing import Any

from launcher import events
from launcher.display.progress import ProgressDisplay
from launcher.display.tally import Tally
from tests.launcher.display.happened import (
    Terminal,
    one_job,
    ready,
    started,
)


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


def test_a_run_without_jobs_shows_its_hosts_alone() -> None:
    """As `launcher prepare` does: what is done for the environment of each, with its bytes."""
    display = ProgressDisplay(Tally(), console(Terminal()), total=0)
    for event in [started(), events.EnvironmentChanged(101.0, "gpu1", "sending", 1 << 20, 3 << 20)]:
        display(event)
    (line,) = rendered(display, Terminal()).splitlines()
    assert " ".join(line.split()) == "gpu1 connecting sending packages, 1.0 MiB of 3.0 MiB there"
