"""The last lines that a job has printed, as they come, while a user looks at them.

Rule: a thread of its own reads them, because that may wait for a host. Lines are cut, cleaned, and only the last ones are kept.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.text import Text

from launcher.display.tally import Tally
from launcher.display.text import clean
from launcher.errors import LauncherError
from launcher.live.lines import LineCutter
from launcher.terminal.rows import row

if TYPE_CHECKING:
    from launcher.display.controls import JobText

__all__ = ["JobTail"]

#: How many lines are kept.
_KEPT = 2000
_READ_EVERY = 0.5
#: A line is cut after so many characters.
_WIDTH = 1000


class JobTail:
    """What one job prints.

    Args:
        opened: opens it; called in the thread.
        changed: called when there is something new.
    """

    def __init__(self, num: int, opened: Callable[[], JobText], changed: Callable[[], None]) -> None:
        self.num = num
        self._opened = opened
        self._changed = changed
        self._lines: deque[str] = deque(maxlen=_KEPT)
        self._cutter = LineCutter()
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self.problem = ""
        self.has_read = False

    def open(self) -> None:
        """Begin to read."""
        threading.Thread(target=self._run, name="job output", daemon=True).start()

    def close(self) -> None:
        """Read no more. Does not wait for a host."""
        self._is_over.set()

    def _run(self) -> None:
        try:
            source = self._opened()
        except LauncherError as error:
            self._tell(str(error))
            return
        try:
            while not self._is_over.is_set():
                said = source.read()
                self.take(said)
                self._tell(source.problem)
                if not any(said.values()):
                    self._is_over.wait(_READ_EVERY)
        except LauncherError as error:
            self._tell(str(error))
        finally:
            source.close()

    def _tell(self, problem: str) -> None:
        is_new = problem != self.problem or not self.has_read
        self.problem, self.has_read = problem, True
        if is_new and not self._is_over.is_set():
            self._changed()

    def take(self, said: dict[str, bytes]) -> None:
        """Add what was read."""
        with self._lock:
            for stream, data in said.items():
                if data:
                    self._lines.extend(line[:_WIDTH] for line in self._cutter.feed(self.num, stream, data))
        if any(said.values()) and not self._is_over.is_set():
            self._changed()

    def rows(self, tally: Tally, scroll: int, room: int) -> list[Text]:
        """Return a title and the last lines, without the `scroll` last ones."""
        place, host = tally.place_of(self.num)
        where = f"{place} on {host}" if host else place or "has returned"
        title = row((f"job {self.num}", "bold"), (f" ({where})", "dim"))
        with self._lock:
            lines = list(self._lines)
        end = len(lines) - min(scroll, max(len(lines) - room + 1, 0))
        shown = lines[max(end - room + 1, 0) : end]
        if self.problem:
            shown = [*shown[-max(room - 2, 0) :], clean(self.problem).replace("\n", "; ")]
        elif not lines:
            shown = ["it has printed nothing so far" if self.has_read else "asking its host ..."]
        return [title, *(row(line) for line in shown)]
