"""Which display a run gets: the live one on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TextIO

from launcher import events
from launcher.display.lines import LineDisplay
from launcher.display.tally import Tally
from launcher.live.output import LiveOutput
from launcher.util import terminal_mode

if TYPE_CHECKING:
    from typing_extensions import Self

    from launcher.display.controls import Controls

__all__ = ["Display", "keyboard", "make_display"]


class Display(Protocol):
    """An observer that is open as long as its run."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __call__(self, event: events.Event) -> None:
        """Show an event."""

    def wait_shown(self) -> None:
        """Wait until what a job printed is on the screen, before a hook of the controller prints something."""

    def use(self, controls: Controls) -> None:
        """Offer the user what can be done to the run. Only a terminal has keys for it."""


def make_display(
    tally: Tally,
    stream: TextIO,
    *,
    verbose: bool = False,
    quiet: bool = False,
    total: int | None = None,
    live: LiveOutput | None = None,
) -> Display:
    """Return a display of a run on a stream. It feeds the tally.

    Args:
        live: shows what the only job of a run prints, exactly as the job wrote it. The display closes it.
    """
    if stream.isatty() and not quiet:
        from launcher.display.console import PatientConsole
        from launcher.terminal.live_display import LiveDisplay

        console = PatientConsole(file=stream)
        if console.is_terminal and not console.is_dumb_terminal:
            return LiveDisplay(tally, console, verbose=verbose, total=total, live=live, keys=keyboard())

    def write(line: str) -> None:
        stream.write(line + "\n")
        stream.flush()

    return LineDisplay(tally, write, verbose=verbose, quiet=quiet, total=total, live=live)


def keyboard() -> int | None:
    """The descriptor of the terminal that the user types on; None if there is none, or if it is not ours."""
    try:
        fd = sys.stdin.fileno() if sys.stdin is not None else -1
    except (OSError, ValueError):
        return None
    return fd if fd >= 0 and terminal_mode.is_ours(fd) else None
