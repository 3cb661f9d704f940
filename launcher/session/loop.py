"""The loop of a session that submits configs: it submits while there is room, takes what arrives, and heeds interrupts.

Rule: a job never waits for a result, nor a result for a job. While there is something to take, nothing is submitted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launcher.engine.engine import Engine
    from launcher.session.interrupts import Interrupts

__all__ = ["SubmitLoop"]


@dataclasses.dataclass
class SubmitLoop:
    """One call of `Session.drive`.

    Attributes:
        source: (config, overrides) of the jobs that are not submitted yet.
        submit: takes them.
        pump: waits for an arrival, that many seconds at most, and takes it.
        detach_at_hangup: called when the terminal is gone and the hosts are to have everything.
        detach: called when all is submitted and the controller is to detach.
        is_planned: the journal has the whole source, so that detaching need not wait for its end.
        is_asked_to_detach: detach as soon as the hosts have everything.
    """

    engine: Engine
    interrupts: Interrupts
    source: Iterator[tuple[Any, Sequence[str]]]
    submit: Callable[[Any, Sequence[str]], Any]
    pump: Callable[[float], Any]
    detach_at_hangup: Callable[[], None]
    detach: Callable[[], Any]
    is_planned: bool
    is_asked_to_detach: bool
    has_more: bool = True

    def run(self) -> bool:
        """Run until everything has returned or the run is detached; True if it is detached, or was to be."""
        while self.has_more or not self.engine.is_idle:
            if self._step():
                return True
        return False

    def _step(self) -> bool:
        """Submit, then take; True if the run is detached."""
        is_detaching = (self.is_asked_to_detach or bool(self.interrupts.hangup)) and not self.interrupts
        if is_detaching:
            self.engine.lift_limit()
        if self.has_more and not self._submit_some(without_pause=is_detaching):
            self.has_more = False
            if not self.is_planned and not self.interrupts:
                self.engine.record(meta={"open": ""})
        if (
            is_detaching
            and not self.interrupts
            and (not self.has_more or not (self.is_asked_to_detach or self.is_planned))
        ):
            if self.interrupts.hangup:
                self.detach_at_hangup()
            self.detach()
            return not self.interrupts
        if not self.engine.is_idle and not is_detaching:
            self.pump(0.5 if not self.has_more else 0.05)
        return False

    def _submit_some(self, *, without_pause: bool) -> bool:
        """Submit while there is room and nothing has arrived; True if there may be more to submit."""
        while self.engine.has_room and not self.interrupts:
            if not without_pause and (self.interrupts.hangup or not self.engine.arrivals.empty()):
                break
            try:
                # A generator of the user may wait for anything.
                with self.interrupts.users_code(raise_at=1):
                    config, overrides = next(self.source)
            except StopIteration:
                return False
            except KeyboardInterrupt:
                if not self.interrupts.has_raised:
                    self.interrupts.add_ctrl_c()
                return False
            self.submit(config, overrides)
        return not self.interrupts
