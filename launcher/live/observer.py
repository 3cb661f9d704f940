"""What a session knows of whatever shows the output of its jobs."""

from __future__ import annotations

import sys
from typing import Protocol

from launcher import events
from launcher.live.lines import LinePrinter
from launcher.live.output import LiveOutput

__all__ = ["Live", "live_here"]


class Live(Protocol):
    """Shows what jobs print."""

    def __call__(self, event: events.Event) -> None:
        """Take an event of a run."""

    def wait_shown(self) -> None:
        """Wait until what has come is written, as long as its reader takes any of it."""

    def close(self) -> None:
        """Write what still waits."""


def live_here(mode: str) -> Live:
    """Return an observer that shows in this process what the jobs of a run print, as the command line does."""
    return LiveOutput(sys.stdout, sys.stderr) if mode == "RUN" else LinePrinter()
