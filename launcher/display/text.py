"""Text from elsewhere, made fit to be shown: no control characters, no line without end, numbers and times as people say them.

Rule: everything that a host or a job said goes through `clean` before it is written to a terminal.
"""

from __future__ import annotations

import time
from typing import Any

from launcher.clean_text import clean

__all__ = ["clean", "clean_lines", "clock", "count", "error_line", "seconds", "shorten", "signal_name", "size"]


def clean_lines(text: str) -> list[str]:
    """The lines of what a job wrote; of a line that it wrote over (a progress bar) what it showed last."""
    return [clean(line.rstrip("\r").rpartition("\r")[2]) for line in text.removesuffix("\n").split("\n")]


def shorten(text: str, width: int) -> str:
    """One line of at most width characters."""
    line = " ".join(clean(text).split())
    return line if len(line) <= width else line[: max(width - 3, 0)] + "..."


def seconds(value: float | None) -> str:
    """A duration."""
    if value is None:
        return "-"
    if value < 10:
        return f"{value:.2f} s"
    if value < 120:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def size(value: float) -> str:
    """A number of bytes."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def clock(at: float) -> str:
    """A time of day, local."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def count(number: int, noun: str) -> str:
    """`1 job`, `1,000 jobs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def signal_name(number: int | None) -> str:
    """`SIGSEGV` for 11."""
    import signal

    try:
        return signal.Signals(number).name if number else "a signal"
    except ValueError:
        return f"signal {number}"


def error_line(error: dict[str, Any] | None) -> str:
    """An error as one line: its kind where that says more than its type does."""
    if not error:
        return ""
    kind, type_, message = error.get("kind", ""), str(error.get("type") or ""), clean(error.get("message") or "")
    if kind == "import":
        # What to do about it follows; the host's warning says it, once.
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
