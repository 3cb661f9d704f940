"""`launcher top` on a terminal: drawn again at each answer, until `q`.

Rule: the terminal's former content comes back at the end, and so does its mode.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from launcher.display.console import PatientConsole
from launcher.display.text import clock
from launcher.terminal.ending import Ending
from launcher.terminal.factory import keyboard
from launcher.terminal.keys import KeyReader
from launcher.terminal.top.top_rows import Row, top_rows

if TYPE_CHECKING:
    from launcher.terminal.top.use import AskedHost, RunHere, RunsHere

__all__ = ["Top", "show_top"]


class Top:
    """What is on the screen. Rows that do not fit can be reached by arrows."""

    def __init__(self, hosts: Sequence[AskedHost]) -> None:
        self._hosts = hosts
        self.runs: Mapping[str, RunHere] = {}
        self.problems: Mapping[str, str] = {}
        self._first = 0
        self._page = 10
        self.is_over = threading.Event()
        self.is_changed = threading.Event()

    def press(self, key: str) -> None:
        """Take a key."""
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -self._page, "page down": self._page, " ": self._page}
        if key in ("q", "escape"):
            self.is_over.set()
        self._first = 0 if key == "home" else max(self._first + steps.get(key, 0), 0)
        self.is_changed.set()

    def rows(self, now: float, height: int) -> list[Row]:
        """Return as many rows as fit, the title among them."""
        rows = list(top_rows(self._hosts, self.runs, now, self.problems))
        room = max(height - 2, 1)
        self._page, self._first = room, min(self._first, max(len(rows) - room, 0))
        more = "   arrows: more" if len(rows) > room else ""
        return [(f"{clock(now)}   q: end{more}", "dim"), *rows[self._first : self._first + room]]


def show_top(hosts: Sequence[AskedHost], here: RunsHere, every: float) -> None:
    """Show them until the user ends it."""
    console = PatientConsole(file=sys.stdout)
    top = Top(hosts)

    def render() -> RenderableType:
        drawn = top.rows(time.time(), console.size.height)
        return Group(*(Text(text, style, no_wrap=True, overflow="ellipsis") for text, style in drawn))

    top.runs, top.problems = here.read(), here.problems
    ending, fd = Ending(console.file), keyboard()
    keys = KeyReader(fd, top.press, lambda: False) if fd is not None else None
    ending.begin()
    try:
        with Live(console=console, get_renderable=render, screen=True, auto_refresh=False) as live:
            if keys is not None:
                keys.open()
            for host in hosts:
                # Nobody waits for these: one may hang in a connection.
                asked = (every, top.is_over, top.is_changed.set)
                threading.Thread(target=host.ask_always, args=asked, name=f"top {host.label}", daemon=True).start()
            read_at = time.monotonic()
            while not top.is_over.is_set():
                live.refresh()
                top.is_changed.wait(every)
                top.is_changed.clear()
                if time.monotonic() - read_at >= every:
                    top.runs, top.problems, read_at = here.read(), here.problems, time.monotonic()
    finally:
        top.is_over.set()
        if keys is not None:
            keys.close()
        ending.end()
