"""Tasks, and a start hook that does what a test says. Hosts import this module, and have no package of the tests'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from remote_agent.callbacks.base import Callback

#: What the start hook does here: it would be pickled with a callback that holds it.
DO: dict[str, Callable[[], Any]] = {}


class Starter(Callback):
    """Does what the test says when the run begins."""

    def on_run_start(self, config: Any, **kwargs: Any) -> None:
        """Do it."""
        self.made = DO["start"]()


def twice(config: Any) -> int:
    """A task."""
    return 2 * int(config.x)


def when_told(config: Any) -> int:
    """A task; the first of a run waits for a byte in the FIFO `told`."""
    if config.x == 0:
        with open(config.told, "rb", buffering=0) as told:
            told.read(1)
    return int(config.x)
