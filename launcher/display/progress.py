"""The display for a terminal: a progress line for each host and one for the run, below the lines of events.

Rule: drawing never delays a run. Events only change counts; rich redraws a few times a second.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from launcher import events
from launcher.display.base import BaseDisplay
from launcher.display.lines import EventLines
from launcher.display.tally import HostTally, Tally
from launcher.display.text import about, clock, report_text, shorten, some, whole_seconds
from launcher.live.output import LiveOutput

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from typing_extensions import Self

__all__ = ["ProgressDisplay"]

_REDRAWS = 8
_STYLES = {
    "plain": "",
    "good": "green",
    "bad": "bold red",
    "warning": "yellow",
    "dim": "dim",
    "output": "",
    "count": "dim",
}
_STATES = {
    "connecting": "cyan",
    "ready": "green",
    "unknown": "yellow",
    "closed": "yellow",
    "lost": "bold red",
    "unusable": "bold red",
}


class ProgressDisplay(BaseDisplay):
    """Shows the progress below and lines above, until the output of the run's only job needs the terminal."""

    def __init__(
        self,
        tally: Tally,
        console: Console,
        *,
        verbose: bool = False,
        quiet: bool = False,
        total: int | None = None,
        live: LiveOutput | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(tally, live)
        self._console = console
        self._total = total
        self._clock = clock
        self._event_lines = EventLines(
            tally, verbose=verbose, quiet=quiet, is_counting=False, shows_output=live is None
        )
        self._live = Live(
            console=console,
            get_renderable=self.render,
            refresh_per_second=_REDRAWS,
            transient=True,
            auto_refresh=True,
            # Hooks' output goes to the console, above the progress, but only if it would have gone to this stream anyway.
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )
        if live is not None:
            live.before_terminal = self._live.stop

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._live.stop()

    def show(self, event: events.Event) -> None:
        """Print the lines of the event above the progress."""
        lines = self._event_lines.lines(event)
        if lines:
            text = Text("\n").join(Text(line.text, _STYLES[line.tone]) for line in lines)
            self.write(lambda: self._console.print(text, soft_wrap=True, highlight=False))

    def render(self) -> RenderableType:
        """Return the lines of the progress: as many hosts as fit, and the run."""
        tally = self.tally
        # A run without any shows its hosts alone.
        has_jobs = self._total != 0
        with tally.lock:
            room = max(self._console.height - 8, 3)
            hosts = sorted(tally.hosts.values(), key=lambda host: host.state == "ready")[:room]
            left_out = len(tally.hosts) - len(hosts)
            table = Table.grid(padding=(0, 2))
            for host in (
                sorted(hosts, key=lambda host: list(tally.hosts).index(host.name)) if left_out else tally.hosts.values()
            ):
                row = _host_row(host, self._console.width, tally.reports)
                table.add_row(*(row if has_jobs else [*row[:2], row[-1]]))
            parts: list[RenderableType] = [table]
            if left_out:
                parts.append(Text(f"... and {left_out} more hosts", "dim"))
            if has_jobs:
                parts.append(self._run_row())
        return Group(*parts)

    def _run_row(self) -> RenderableType:
        tally = self.tally
        total = max(self._total or 0, tally.total)
        grid = Table.grid(padding=(0, 2))
        failed = Text(f"{tally.failed:,} failed", "bold red" if tally.failed else "dim")
        now = self._clock()
        left = tally.seconds_left(now, total)
        grid.add_row(
            Text("stopping" if tally.interrupted else "run", "bold"),
            ProgressBar(total=max(total, 1), completed=tally.returned, width=30),
            Text(f"{tally.returned:,}/{total:,}"),
            failed,
            Text(f"{tally.waiting:,} waiting here", "dim"),
            Text(whole_seconds(tally.elapsed(now))),
            Text(f"about {about(left)} left" if left is not None else "", "dim"),
        )
        return grid


def _report(running: Sequence[int], reports: Mapping[int, events.JobReported], width: int) -> str:
    """The latest report of a host's jobs, with the job's number if there are several; empty if there is no room for it."""
    latest = max((reports[num] for num in running if num in reports), key=lambda event: event.at, default=None)
    if latest is None or width < 20:
        return ""
    report = latest.report
    which = f"{latest.num}: " if len(running) > 1 else ""
    return shorten(f"; {which}{report_text(report.step, report.values)}", width)


def _host_row(host: HostTally, width: int, reports: Mapping[int, events.JobReported]) -> list[RenderableType]:
    state = Text(host.state, _STATES[host.state])
    if host.unknown_since is not None:
        state.append(f" since {clock(host.unknown_since)}")
    running = list(host.running_jobs)
    if host.state in ("lost", "unusable", "closed", "unknown"):
        detail = Text(shorten(host.detail, max(width - 70, 20)), "dim")
    elif running:
        told = f"{'job' if len(running) == 1 else 'jobs'} {some(running, max((width - 70) // 6, 1))}"
        detail = Text(told + _report(running, reports, width - 70 - len(told)), "dim")
    else:
        detail = Text(host.environment, "dim")
    return [
        Text(host.name, "bold"),
        state,
        Text(f"{host.running}/{host.slots} running" if host.slots else ""),
        Text(f"{host.queued} queued", "dim"),
        Text(f"{host.completed:,} done"),
        Text(f"{host.failed:,} failed", "red" if host.failed else "dim"),
        detail,
    ]
