"""The display for a terminal: a row for each host and one for the run, below the lines of events. Keys open jobs, cancel them, and leave the run.

Rule: drawing never delays a run. Events change counts and add lines. A thread of its own draws, at most a few times a second, and all lines
that have come since at once.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from launcher import events
from launcher.display.base import BaseDisplay
from launcher.display.lines import EventLines, Line
from launcher.display.tally import Tally
from launcher.display.text import clean_line
from launcher.errors import LauncherError
from launcher.live.output import LiveOutput
from launcher.terminal import rows
from launcher.terminal.ending import Ending
from launcher.terminal.views import HELP, Views

if TYPE_CHECKING:
    from typing_extensions import Self

    from launcher.display.controls import Controls
    from launcher.terminal.job_tail import JobTail
    from launcher.terminal.keys import KeyReader

__all__ = ["LiveDisplay"]

#: Seconds between two drawings while events come. Below: while none come, because times go on.
_DRAW_EVERY = 0.15
_IDLE = 0.5
#: Lines that wait while a terminal takes none. Beyond that, lines of jobs' output are left out.
_MOST_LINES = 10_000
#: Rows of the terminal that the live part leaves to the lines above it.
_LEFT = 4
_STYLES = {
    "plain": "",
    "good": "green",
    "bad": "bold red",
    "warning": "yellow",
    "dim": "dim",
    "output": "",
    "count": "dim",
}
_KEYS = {
    "hosts": "?: keys   o: what a job prints   c: cancel a job   d: leave the run   q: close this view",
    "jobs": "arrows or a number: choose   o: what it prints   c: cancel it   escape: back",
    "output": "arrows, page up, home: earlier   end: follow   c: cancel the job   escape: back",
    "help": "any key: back",
}
#: Of what a job prints that has ended.
_KEYS_OF_AN_ENDED_JOB = "arrows, page up, home: earlier   end: follow   escape: back"


class LiveDisplay(BaseDisplay):
    """Shows the live part below and lines above, until the output of the run's only job needs the terminal.

    Args:
        keys: the descriptor from which keys are read; None for no keys.
    """

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
        keys: int | None = None,
    ) -> None:
        super().__init__(tally, live)
        self._console = console
        self._total = total
        self._clock = clock
        self._has_live_output = live is not None
        self._event_lines = EventLines(
            tally, verbose=verbose, quiet=quiet, is_counting=False, shows_output=live is None, total=total
        )
        self._lines: deque[Line] = deque()
        self._left_out = 0
        self._has_new = threading.Condition()
        self._is_changed = True
        self._is_closing = False
        self._thread: threading.Thread | None = None
        #: Held while something is drawn, so that lines stay in order.
        self._drawing = threading.RLock()
        self._ending = Ending(console.file)
        self._keys_fd = keys
        self._keys: KeyReader | None = None
        self._views = Views()
        self._views_lock = threading.RLock()
        self._controls: Controls | None = None
        self._tail: JobTail | None = None
        self._problem = ""
        self._live = Live(
            console=console,
            get_renderable=self.render,
            transient=True,
            auto_refresh=False,
            # Hooks' output goes to the console, above the live part, but only if it would have gone to this stream anyway.
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )
        if live is not None:
            live.before_terminal = self._close_live

    # -- begin and end -------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._ending.begin()
        self._live.start()
        self._thread = threading.Thread(target=self._draw_all, name="display", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            with self._has_new:
                self._is_closing = True
                self._has_new.notify_all()
            if self._thread is not None:
                self._thread.join()
            self._close_live()
            self._ending.end()

    def _close_live(self) -> None:
        """End the live part and the keys. Any thread may call it, also twice."""
        keys, self._keys = self._keys, None
        if keys is not None:
            keys.close()
        with self._drawing:
            self.attempt(self._live.stop, is_last=True)
        tail, self._tail = self._tail, None
        if tail is not None:
            tail.close()

    def use(self, controls: Controls) -> None:
        """Read keys from now on."""
        self._controls = controls
        if self._keys_fd is None or not self._live.is_started:
            return
        from launcher.terminal.keys import KeyReader

        self._keys = KeyReader(self._keys_fd, self.press, controls.runs_users_code)
        self.attempt(self._keys.open)

    # -- lines ---------------------------------------------------------------------------------------------------

    def show(self, event: events.Event) -> None:
        """Print the lines of the event above the live part, soon; at once where they must be in order with a job's output."""
        lines = self._event_lines.lines(event)
        if lines and self._has_live_output:
            self.write(lambda: self._print(lines))
        with self._has_new:
            self._is_changed = True
            if not self._has_live_output:
                for line in lines:
                    if line.tone == "output" and len(self._lines) >= _MOST_LINES:
                        self._left_out += 1
                    else:
                        self._lines.append(line)
            if lines:
                self._has_new.notify_all()

    def wait_shown(self) -> None:
        """Show all lines so far, before a hook of the controller prints something."""
        super().wait_shown()
        self._print_waiting()

    def _print(self, lines: list[Line]) -> None:
        text = Text("\n").join(Text(line.text, _STYLES[line.tone]) for line in lines)
        with self._drawing:
            self._console.print(text, soft_wrap=True, highlight=False)

    def _print_waiting(self) -> bool:
        """Print what waits. Returns whether there was something; then the live part was drawn, too."""
        with self._drawing:
            with self._has_new:
                lines, left_out = list(self._lines), self._left_out
                self._lines.clear()
                self._left_out = 0
                self._is_changed = self._is_changed and not lines
            if left_out:
                lines.append(
                    Line(f"{left_out:,} lines of jobs' output are not shown here; their folders have them", "warning")
                )
            if lines:
                self.attempt(lambda: self._print(lines))
            return bool(lines)

    # -- drawing -------------------------------------------------------------------------------------------------

    def _draw_all(self) -> None:
        """Draw until the end. In a thread of its own."""
        while True:
            with self._has_new:
                self._has_new.wait_for(lambda: self._lines or self._is_changed or self._is_closing, _IDLE)
                is_closing = self._is_closing
            self.draw()
            if is_closing:
                return
            with self._has_new:
                self._has_new.wait_for(lambda: self._is_closing, _DRAW_EVERY)

    def draw(self) -> None:
        """Print the lines that wait, and draw the live part as it is now."""
        if self._print_waiting() or not self._live.is_started:
            return
        with self._has_new:
            self._is_changed = False
        with self._drawing:
            self.attempt(self._live.refresh)

    def render(self) -> RenderableType:
        """Return the live part."""
        width, height = self._console.size
        room = max(height - _LEFT, 3)
        with self._views_lock, self.tally.lock:
            return Group(*self._rows(width, room))

    def _rows(self, width: int, room: int) -> list[Text]:
        jobs = rows.shown_jobs(self.tally) if self._views.now.name != "hosts" else []
        self._views.follow(jobs)
        now, view = self._clock(), self._views.now
        has_jobs = self._total != 0
        self._views.page = max(room - 3, 1)
        footer = []
        if self._keys is not None:
            text = rows.question(view.name, view.num) if view.name not in _KEYS else _KEYS[view.name]
            if view.name == "output" and view.num not in jobs:
                text = _KEYS_OF_AN_ENDED_JOB
            footer = [rows.key_row(text, self._problem)]
        last = [rows.run_row(self.tally, now, max(self._total or 0, self.tally.total), width)] if has_jobs else []
        room -= len(footer) + len(last)
        if view.name == "help":
            body = [rows.row((f"{keys:<10}", "bold"), what) for keys, what in HELP][:room]
        elif view.name == "jobs":
            body = rows.job_rows(self.tally, jobs, view.num, now, room) or [rows.row("no job runs or waits")]
        elif self._tail is not None and view.name in ("output", "cancel"):
            body = self._tail.rows(self.tally, view.scroll, room)
        else:
            body = rows.host_rows(self.tally, now, width, room, has_jobs=has_jobs)
        return [*body, *last, *footer]

    # -- keys ----------------------------------------------------------------------------------------------------

    def press(self, key: str) -> None:
        """Take a key. Called in the thread that reads them."""
        controls = self._controls
        if controls is None:
            return
        with self._views_lock:
            with self.tally.lock:
                jobs = rows.shown_jobs(self.tally)
            self._problem = ""
            command = self._views.press(key, jobs)
        # Without that lock, because who draws holds the other one first.
        if command is not None:
            try:
                self._obey(command.name, command.num, controls)
            except (LauncherError, OSError) as error:
                self._problem = clean_line(str(error))
        with self._has_new:
            self._is_changed = True
        self.draw()

    def _obey(self, name: str, num: int, controls: Controls) -> None:
        if name == "open":
            self._open(num, controls)
        elif name == "close":
            tail, self._tail = self._tail, None
            if tail is not None:
                tail.close()
        elif name == "cancel":
            controls.cancel(num)
            self._say(f"job {num}: asked to be cancelled")
        elif name == "detach":
            if controls.no_detach:
                self._problem = controls.no_detach
            else:
                controls.detach()
        elif name == "quit":
            self._event_lines.begin_counting(self._clock())
            self._say("the live part is closed; the run goes on, and Ctrl-C cancels it")
            self._close_live()

    def _open(self, num: int, controls: Controls) -> None:
        from launcher.terminal.job_tail import JobTail

        def changed() -> None:
            with self._has_new:
                self._is_changed = True
                self._has_new.notify_all()

        if self._tail is not None:
            self._tail.close()
        self._tail = JobTail(num, lambda: controls.output(num), changed)
        self._tail.open()

    def _say(self, text: str) -> None:
        with self._has_new:
            self._lines.append(Line(text, "dim"))
