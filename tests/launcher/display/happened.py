"""What happens in a run, and what is shown of it, for tests."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from launcher import events
from launcher.display.lines import LineDisplay
from launcher.display.summary import print_summary
from launcher.display.tally import Tally

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


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True
