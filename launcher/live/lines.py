"""What many jobs print, as complete lines with the job and its host.

Rule: a line is shown when it is complete, or when it is very long. If a job has overwritten it (a progress bar), its last text counts.
"""

from __future__ import annotations

from launcher import events
from launcher.util.text.terminal_text import clean_lines

__all__ = ["LineCutter", "LinePrinter"]

#: A line without an end is shown when it has this many bytes.
_MOST_OF_A_LINE = 1 << 16


class LineCutter:
    """Makes complete, clean lines from what many jobs print. If a job has overwritten a line, its last text counts."""

    def __init__(self) -> None:
        self._begun: dict[tuple[int, str], bytes] = {}

    def feed(self, num: int, stream: str, data: bytes) -> list[str]:
        """Return the lines that are complete now."""
        whole, newline, rest = (self._begun.pop((num, stream), b"") + data).rpartition(b"\n")
        if len(rest) > _MOST_OF_A_LINE:
            rest = rest[rest.rfind(b"\r", 0, -1) + 1 :]
        if len(rest) > _MOST_OF_A_LINE:
            whole, newline, rest = whole + newline + rest, b"\n", b""
        if rest:
            self._begun[num, stream] = rest
        return clean_lines(_text(whole + newline)) if newline else []

    def finish(self, num: int) -> list[str]:
        """Return the last lines of a job, which have no newline, because it prints nothing more."""
        rest = [self._begun.pop((num, stream), b"") for stream in ("stdout", "stderr")]
        return [line for one in rest if one for line in clean_lines(_text(one))]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


class LinePrinter:
    """An observer for Python. It prints what jobs print to sys.stdout, each line with its job and host, like `multirun --live`."""

    def __init__(self) -> None:
        self._cutter = LineCutter()
        self._hosts: dict[int, str] = {}

    def __call__(self, event: events.Event) -> None:
        """Print the lines that are complete."""
        lines: list[str] = []
        if isinstance(event, events.OutputArrived):
            self._hosts[event.num] = event.host
            lines = self._cutter.feed(event.num, event.stream, event.data)
        elif isinstance(event, (events.JobReturned, events.JobRequeued)):
            lines = self._cutter.finish(event.num)
        else:
            return
        host = self._hosts.get(event.num, event.host)
        if not isinstance(event, events.OutputArrived):
            self._hosts.pop(event.num, None)
        for line in lines:
            print(f"[{event.num} {host}] {line}", flush=True)

    def wait_shown(self) -> None:
        """Do nothing: everything is shown at once."""

    def close(self) -> None:
        """Do nothing: nothing waits."""
