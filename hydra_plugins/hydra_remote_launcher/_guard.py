"""Fires the end hook of a sweep exactly once, however the sweep ends.

Rule: Hydra fires `on_multirun_end` only after a sweep without an error. From `install` on, it fires exactly once: when Hydra
fires it, when an exception ends the sweeper (a failed job, SystemExit, Ctrl-C), or at exit.
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
    """Calls `end(error)` once; error is the exception that ended the sweeper, or None.

    Args:
        composite: Hydra's callbacks, as the HydraContext has them.
        end: fires the hook; it is replaced when the sweep is set up.
    """

    def __init__(self, composite: Any, end: Callable[[BaseException | None], None]) -> None:
        self._composite = composite
        self.end = end
        self._has_fired = False
        self._pid = os.getpid()

    def install(self) -> None:
        """Replace the composite's `on_multirun_end`, wrap the sweeper, and register a function for the exit."""
        self._composite.on_multirun_end = self._on_multirun_end
        sweeper = _sweeper_on_the_stack()
        if sweeper is not None:
            sweeper.sweep = self._around(sweeper.sweep)
        # The last resort, for an end that the other two do not see: at exit, a hook cannot start threads any more.
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
        # A forked child of the application did not start the sweep.
        if os.getpid() == self._pid:
            self.fire()

    def fire(self, error: BaseException | None = None) -> None:
        """End the sweep, unless it has ended already.

        Raises:
            Exception: what `end` raises, if the sweeper raised nothing. Otherwise it is only logged.
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
    """The sweeper that sets this launcher up; the outermost one, if sweepers wrap each other.

    Hydra does not tell a launcher that its sweeper failed.
    """
    found = None
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the stack is where it is
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, Sweeper):
            found = owner
        frame = frame.f_back
    return found
