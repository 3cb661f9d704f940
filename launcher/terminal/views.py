"""Which part of a run is shown, and what a key does there.

Rule: it is pure: keys go in, commands come out. What ends something asks first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launcher.util.frozen import frozen

__all__ = ["HELP", "Command", "View", "Views"]

#: The keys, and what they do, for `?`.
HELP = (
    ("o, enter", "what a job prints; with several jobs, choose one (arrows, or its number)"),
    ("c", "cancel a job"),
    ("d", "leave the run; it goes on, and 'launcher attach' collects it"),
    ("q", "close this view; the run goes on here, with lines alone"),
    ("escape, b", "back"),
    ("Ctrl-C", "cancel the run; twice: leave it at once"),
)
_BACK = ("escape", "b", "q", "left")
#: Digits of a job's number.
_MOST_DIGITS = 9


@frozen
class Command:
    """What is to be done: `open` or `close` the output of a job, `cancel` it, `detach`, `quit` the view."""

    name: str
    num: int = -1


@dataclass
class View:
    """What is shown.

    Attributes:
        name: `hosts`, `jobs`, `output`, `help`, or a question: `cancel`, `detach`.
        num: the job that it is about; -1 if none.
        scroll: how many lines of the output are below the shown ones.
    """

    name: str = "hosts"
    num: int = -1
    scroll: int = 0


class Views:
    """The view, and those to which `back` leads."""

    def __init__(self) -> None:
        self._stack = [View()]
        #: The digits that were typed so far.
        self.typed = ""
        #: What the next letter is for, if a job must be chosen first: `open` or `cancel`.
        self._wish = "open"
        #: Lines on a page of output.
        self.page = 10

    @property
    def now(self) -> View:
        """The view that is shown."""
        return self._stack[-1]

    def press(self, key: str, jobs: Sequence[int]) -> Command | None:
        """Take a key. `jobs`: the numbers of the jobs that run or wait on a host."""
        view = self.now
        match view.name:
            case "help":
                self._back()
            case "cancel" | "detach":
                self._back()
                if key in ("y", "Y"):
                    return Command(view.name, view.num)
            case _ if key == "?":
                self._stack.append(View("help"))
            case _ if key == "d":
                self._stack.append(View("detach"))
            case "output":
                return self._press_in_output(view, key, jobs)
            case "jobs":
                return self._press_in_jobs(view, key, jobs)
            case _ if key == "q":
                return Command("quit")
            case _ if key in ("o", "enter", "c", "up", "down", "j", "k"):
                return self._choose("cancel" if key == "c" else "open", jobs)
        return None

    def follow(self, jobs: Sequence[int]) -> None:
        """Choose the next job if the chosen one has ended, and ask no longer whether to cancel it. `jobs`: as for `press`."""
        if self.now.name == "cancel" and self.now.num not in jobs:
            self._back()
        view = self.now
        if view.name == "jobs" and jobs and view.num not in jobs:
            view.num = next((num for num in jobs if num > view.num), jobs[-1])

    def _back(self) -> None:
        self._stack.pop()

    def _choose(self, wish: str, jobs: Sequence[int]) -> Command | None:
        if len(jobs) == 1:
            return self._act(wish, jobs[0])
        self._wish, self.typed = wish, ""
        if jobs:
            self._stack.append(View("jobs", jobs[0]))
        return None

    def _act(self, wish: str, num: int) -> Command | None:
        if wish == "cancel":
            self._stack.append(View("cancel", num))
            return None
        self._stack.append(View("output", num))
        return Command("open", num)

    def _press_in_jobs(self, view: View, key: str, jobs: Sequence[int]) -> Command | None:
        if key in _BACK:
            self._back()
        elif key in ("enter", "o", "c"):
            wish = {"o": "open", "c": "cancel"}.get(key, self._wish)
            if view.num in jobs:
                self.typed = ""
                return self._act(wish, view.num)
        elif (key.isascii() and key.isdigit()) or key == "backspace":
            self.typed = self.typed[:-1] if key == "backspace" else (self.typed + key)[-_MOST_DIGITS:]
            if self.typed and int(self.typed) in jobs:
                view.num = int(self.typed)
        elif jobs:
            self._move(view, key, jobs)
        return None

    def _move(self, view: View, key: str, jobs: Sequence[int]) -> None:
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -self.page, "page down": self.page}
        place = jobs.index(view.num) if view.num in jobs else 0
        place = {"home": 0, "end": len(jobs) - 1}.get(key, place + steps.get(key, 0))
        view.num, self.typed = jobs[min(max(place, 0), len(jobs) - 1)], ""

    def _press_in_output(self, view: View, key: str, jobs: Sequence[int]) -> Command | None:
        if key in _BACK:
            self._back()
            return Command("close", view.num)
        if key == "c" and view.num in jobs:
            self._stack.append(View("cancel", view.num))
        steps = {"up": 1, "k": 1, "down": -1, "j": -1, "page up": self.page, "page down": -self.page, " ": -self.page}
        view.scroll = max(view.scroll + steps.get(key, 0), 0)
        if key in ("end", "home"):
            view.scroll = 0 if key == "end" else 1 << 30
        return None
