"""Sees to it that the end of a sweep is told, once, whatever ends it.

Rule: Hydra fires `on_multirun_end` when a sweep went well and forgets it otherwise. From `install` on it fires exactly
once: when Hydra fires it, when the sweeper is left by an exception (a failed job, SystemExit, Ctrl-C), or at exit.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hydra.plugins.sweeper import Sweeper

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["EndGuard"]

_log = logging.getLogger("hydra_plugins.hydra_remote_launcher")


class EndGuard:
    """Calls `end(error)` once; error is what the sweeper was left by, or None.

    Args:
        composite: Hydra's callbacks, as the HydraContext has them.
        end: fires the hook; replaced by whoever knows better how, later.
    """

    def __init__(self, composite: Any, end: Callable[[BaseException | None], None]) -> None:
        self._composite = composite
        self.end = end
        self._has_fired = False
        self._pid = os.getpid()

    def install(self) -> None:
        """Take the place of the composite's `on_multirun_end`, stand around the sweeper, and wait at the exit."""
        self._composite.on_multirun_end = self._on_multirun_end
        sweeper = _sweeper_on_the_stack()
        if sweeper is not None:
            sweeper.sweep = self._around(sweeper.sweep)
        # At exit it may be too late for hooks that start threads; it is for what neither of the two above can see.
        atexit.register(self._at_exit)

    def _around(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def sweep(*args: Any, **kwargs: Any) -> Any:
            try:
                return original(*args, **kwargs)
            except BaseException as error:
                self.fire(error)
                raise

        return sweep

    def _on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        self.fire()

    def _at_exit(self) -> None:
        # A child that the application forked is not the one who started the sweep.
        if os.getpid() == self._pid:
            self.fire()

    def fire(self, error: BaseException | None = None) -> None:
        """End the sweep, if that has not been done.

        Raises:
            Exception: what `end` raises, where no error is on its way already: that one is then told, and logged here.
        """
        if self._has_fired:
            return
        self._has_fired = True
        atexit.unregister(self._at_exit)
        try:
            self.end(error)
        except Exception as problem:
            if error is None:
                raise
            _log.error("%s: %s", type(problem).__name__, problem)


def _sweeper_on_the_stack() -> Any:
    """The sweeper that sets this launcher up; the outermost, where one wraps another.

    Hydra gives a launcher no way to know that its sweeper failed.
    """
    found = None
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the stack is where it is
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, Sweeper):
            found = owner
        frame = frame.f_back
    return found
