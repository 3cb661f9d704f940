"""Progress on a terminal: a line for each host, as many as fit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from launcher import events
from launcher.display.tally import Tally
from launcher.terminal import live_display
from launcher.terminal.live_display import LiveDisplay
from tests.launcher.display.happened import (
    Terminal,
    error,
    one_job,
    ready,
    started,
)
from tests.launcher.terminal.test_job_tail import Text


def console(stream: Terminal, **options: Any) -> Any:
    from rich.console import Console

    return Console(file=stream, force_terminal=True, width=120, height=20, color_system=None, **options)


def rendered(display: LiveDisplay, stream: Terminal) -> str:
    """What is drawn now."""
    target = console(stream)
    with target.capture() as capture:
        target.print(display.render())
    return capture.get()


def test_a_terminal_has_a_line_per_host() -> None:
    """With its state and its jobs; above it the lines of a log."""
    stream = Terminal()
    with LiveDisplay(Tally(), console(stream), total=10, clock=lambda: 110.0) as display:
        for event in [started("gpu1", "gpu2"), ready(), *one_job(0), *one_job(1)[:3], *one_job(2)[:2]]:
            display(event)
        display(events.HostUnknown(1.0, "gpu2", "reset", ()))
        drawn = rendered(display, stream)
        display(events.Note(1.0, "isolation is spawn", "gpu1"))
    (first,) = (line for line in drawn.splitlines() if line.startswith("gpu1"))
    assert " ".join(first.split()) == "gpu1 ready 1/2 running 1 queued 1 done 0 failed job 1 lr=1 9 s"
    (second,) = (line for line in drawn.splitlines() if line.startswith("gpu2"))
    assert "unknown since" in second
    assert "1/10" in drawn
    assert "note (gpu1): isolation is spawn" in stream.getvalue()


def test_progress_says_how_long_what_runs_and_how_long_yet() -> None:
    """Elapsed time, the jobs that run on each host and since when, how long jobs take, and when the run probably ends."""
    display = LiveDisplay(Tally(), console(Terminal()), total=10, clock=lambda: 400.0)
    for event in [started("gpu1", "gpu2"), ready(), ready("gpu2")]:
        display(event)
    for num, host in ((2, "gpu1"), (3, "gpu1"), (4, "gpu2")):
        for event in one_job(num, host=host, at=380.0)[:3]:
            display(event)
    assert "about" not in rendered(display, Terminal())
    for num in (0, 1):
        for event in one_job(num, at=200.0):
            display(replace(event, duration=60.0) if isinstance(event, events.JobReturned) else event)
    drawn = rendered(display, Terminal()).splitlines()
    assert [line.split("failed")[1].strip() for line in drawn[:2]] == [
        "jobs 2 (20 s), 3 (20 s) of about 60 s",
        "job 4 lr=4 20 s of about 60 s",
    ]
    # Five wait for a minute each, and three need 40 seconds more, in four slots.
    assert "5 min 00 s" in drawn[2]
    assert "about 2 min left, until " in drawn[2]


def test_more_hosts_than_lines() -> None:
    """Hosts with problems are shown, the rest is counted."""
    stream = Terminal()
    names = tuple(f"node{number:03}" for number in range(200))
    display = LiveDisplay(Tally(), console(stream))
    for event in [started(*names), *(ready(name) for name in names[:150])]:
        display(event)
    drawn = rendered(display, stream)
    assert "node150" in drawn
    assert "more hosts" in drawn
    assert len(drawn.splitlines()) <= 20


def test_a_run_without_jobs_shows_its_hosts_alone() -> None:
    """As `launcher prepare` does: what is done for the environment of each, with its bytes."""
    display = LiveDisplay(Tally(), console(Terminal()), total=0)
    for event in [started(), events.EnvironmentChanged(101.0, "gpu1", "sending", 1 << 20, 3 << 20)]:
        display(event)
    (line,) = rendered(display, Terminal()).splitlines()
    assert " ".join(line.split()) == "gpu1 connecting sending packages, 1.0 MiB of 3.0 MiB there"


# -- keys, without a terminal ----------------------------------------------------------------------------------------


class Keys:
    """What keys have asked for."""

    def __init__(self, no_detach: str = "") -> None:
        self.no_detach = no_detach
        self.asked: list[tuple[str, int]] = []

    def cancel(self, num: int) -> None:
        if num == 13:
            raise OSError("the folder is gone\x1b[2J")
        self.asked.append(("cancel", num))

    def detach(self) -> None:
        self.asked.append(("detach", -1))

    def output(self, num: int) -> Any:
        return Text(b"epoch 1\n")

    def runs_users_code(self) -> bool:
        return False


def pressed(display: LiveDisplay, *keys: str) -> str:
    for key in keys:
        display.press(key)
    return rendered(display, Terminal())


@pytest.fixture
def shown() -> Iterator[tuple[LiveDisplay, Keys, Terminal]]:
    """A display with one running job, and no thread that draws."""
    stream, keys = Terminal(), Keys()
    display = LiveDisplay(Tally(), console(stream), total=10, clock=lambda: 110.0)
    display.use(keys)
    for event in [started(), ready(), *one_job(13)[:3]]:
        display(event)
    return display, keys, stream


def test_a_cancel_that_cannot_be_asked_for_says_why(shown: tuple[LiveDisplay, Keys, Terminal]) -> None:
    """The display goes on."""
    display, keys, _ = shown
    for event in one_job(4)[:3]:
        display(event)
    assert "cancel job 13?" not in pressed(display, "c", "1", "3", "enter", "y")
    assert keys.asked == []
    pressed(display, "4", "enter", "y")
    assert keys.asked == [("cancel", 4)]


def test_the_output_of_a_job_takes_the_place_of_the_hosts(shown: tuple[LiveDisplay, Keys, Terminal]) -> None:
    """And the hosts come back."""
    display, _, _ = shown
    drawn = pressed(display, "o")
    while "epoch 1" not in drawn:
        drawn = rendered(display, Terminal())
    assert "job 13 (running on gpu1)" in drawn
    assert "1/2 running" not in drawn
    assert "1/2 running" in pressed(display, "b")


def test_leaving_asks_first_and_says_why_it_cannot_be(shown: tuple[LiveDisplay, Keys, Terminal]) -> None:
    """A sweeper needs the results."""
    display, keys, _ = shown
    pressed(display, "d", "y")
    assert keys.asked == [("detach", -1)]
    display.use(Keys("its sweeper needs the results"))
    pressed(display, "d", "y")
    assert keys.asked == [("detach", -1)]


def test_closing_the_view_goes_on_with_lines(shown: tuple[LiveDisplay, Keys, Terminal]) -> None:
    """Each completed job then has its line, as in a log."""
    display, _, stream = shown
    pressed(display, "q")
    for event in one_job(13):
        display(event)
    display.wait_shown()
    assert "the live part is closed" in stream.getvalue()
    assert "job 13 on gpu1: completed" in stream.getvalue()


# -- the cost of lines -----------------------------------------------------------------------------------------------


def test_no_line_is_lost_and_the_order_stays() -> None:
    """Ten thousand events, each with its line. They are printed together, a few times a second."""
    stream = Terminal()
    with LiveDisplay(Tally(), console(stream)) as display:
        display(started())
        for num in range(10_000):
            display(events.Note(101.0, f"note {num}."))
    seen = re.findall(r"note (\d+)\.", stream.getvalue())
    assert seen == [str(num) for num in range(10_000)]


def test_a_terminal_that_takes_nothing_costs_output_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of jobs' output are left out and counted; those of failures are kept."""
    monkeypatch.setattr(live_display, "_MOST_LINES", 10)
    stream = Terminal()
    display = LiveDisplay(Tally(), console(stream))
    display(started())
    for num in range(50):
        display(events.OutputArrived(101.0, 1, "gpu1", "stdout", f"line {num}\n"))
    for event in one_job(1, failure=error()):
        display(event)
    display.wait_shown()
    assert "41 lines of jobs' output are not shown here" in stream.getvalue()
    assert "job 1 on gpu1: FAILED" in stream.getvalue()
    assert display.tally.failed == 1
