"""Formats text for people: no control characters, no endless lines, readable numbers and times.

Rule: all text from a host or a job goes through `clean` before it is written to a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from launcher.util.text.quantities import size
from launcher.util.text.terminal_text import clean, clean_line, clean_lines

__all__ = [
    "about",
    "clean",
    "clean_line",
    "clean_lines",
    "clock",
    "count",
    "environment_text",
    "error_line",
    "fetched_text",
    "report_text",
    "seconds",
    "shorten",
    "signal_name",
    "size",
    "some",
    "varying",
    "whole_seconds",
]


def shorten(text: str, width: int) -> str:
    """Return one line of at most `width` characters."""
    line = " ".join(clean(text).split())
    return line if len(line) <= width else line[: max(width - 3, 0)] + "..."


def seconds(value: float | None) -> str:
    """Format a duration."""
    if value is None:
        return "-"
    if value < 10:
        return f"{value:.2f} s"
    if value < 120:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def whole_seconds(value: float | None) -> str:
    """Format a duration that still grows, in whole seconds."""
    return "" if value is None else seconds(float(int(value))).replace(".00", "")


def about(value: float) -> str:
    """Format an estimated duration: in seconds up to a minute and a half, then in minutes, then in hours."""
    if value < 90:
        return f"{max(round(value), 1)} s"
    if value < 90 * 60:
        return f"{round(value / 60)} min"
    return f"{round(value / 3600)} h" if value < 48 * 3600 else f"{round(value / 86400)} days"


def varying(jobs: Sequence[Sequence[str]]) -> tuple[str, list[str]]:
    """Return the overrides that all jobs share, and for each job its other ones.

    Args:
        jobs: the overrides of each.
    """
    common = set(jobs[0]).intersection(*jobs[1:]) if len(jobs) > 1 else set()
    rest = [_one_line(one for one in overrides if one not in common) for overrides in jobs]
    return _one_line(one for one in (jobs[0] if jobs else ()) if one in common), rest


def _one_line(overrides: Iterable[str]) -> str:
    return clean_line(" ".join(overrides))


def some(nums: Sequence[int], limit: int = 10) -> str:
    """Format some numbers: `3, 4, 7 and 12 more`."""
    told = ", ".join(str(num) for num in nums[:limit])
    return told if len(nums) <= limit else f"{told} and {len(nums) - limit:,} more"


def clock(at: float) -> str:
    """Format a local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def count(number: int, noun: str) -> str:
    """Format a count: `1 job`, `1,000 jobs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def signal_name(number: int | None) -> str:
    """Return a signal's name: `SIGSEGV` for 11."""
    import signal

    try:
        return signal.Signals(number).name if number else "a signal"
    except ValueError:
        return f"signal {number}"


def environment_text(state: str, done: int, total: int, fetched: int = 0) -> str:
    """Describe the state of an environment in words. `fetched`: the bytes that the host got from its own internet."""
    words = {
        "resolving": "resolving its packages",
        "sending": f"sending packages, {size(done)} of {size(total)} there{fetched_text(fetched)}",
        "waiting": "another run builds it",
        "building": f"building ({size(total)} of packages)",
    }
    return words.get(state, state)


def fetched_text(fetched: int) -> str:
    """Say how much a host got from its own internet; empty where that is nothing."""
    return f", {size(fetched)} from its own internet" if fetched else ""


def report_text(step: float | None, values: Mapping[str, Any], width: int = 500) -> str:
    """Format what a job has reported: `step 3, loss 0.25`."""
    told = [] if step is None else [f"step {step:g}"]
    told += [f"{name} {value:.4g}" if type(value) is float else f"{name} {value}" for name, value in values.items()]
    return shorten(", ".join(told), width)


def error_line(error: dict[str, Any] | None) -> str:
    """Format an error as one line, with its kind if that says more than its type."""
    if not error:
        return ""
    kind, type_, message = error.get("kind", ""), str(error.get("type") or ""), clean(error.get("message") or "")
    if kind == "import":
        # The next step is left out here, because the host's warning has it.
        message = message.partition("\n")[0]
    name = type_.rpartition(".")[2]
    if kind in ("exception", "hook", "import", "unpicklable"):
        what = name or kind
        if kind != "exception":
            what = f"{kind}: {name}" if name else kind
    elif kind == "killed":
        what = f"killed by {signal_name(error.get('signal'))}"
    elif kind == "exited":
        code = error.get("exit_code")
        what = "exited" if code is None else f"exited with code {code}"
    else:
        what = str(kind)
    if message.startswith(what):
        return message
    return f"{what}: {message}" if message else what
