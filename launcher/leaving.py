"""Leaving a run to its hosts: nothing is cancelled, no end hook fires, and another controller may take it up.

Rule: what no host has when the controller leaves is in the journal, and what the callbacks have learnt since the start is, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from launcher import events, run_record

if TYPE_CHECKING:
    from launcher.engine import Engine
    from launcher.interrupts import Interrupts
    from launcher.run_hooks import RunHooks
    from launcher.run_setup import RunSetup

__all__ = ["depart", "hand_over"]


def hand_over(engine: Engine, pump: Callable[[float], Any], why: str, timeout: float) -> None:
    """Give every job to a host, taking what arrives meanwhile; for half of timeout seconds each host may be waited for."""
    engine.detach(why)
    deadline = time.monotonic() + timeout
    is_hurried = False
    while not engine.is_delivered and time.monotonic() < deadline:
        if not is_hurried and deadline - time.monotonic() < timeout / 2:
            is_hurried = True
            engine.detach(why, hurry=True)
        pump(0.05)
    while not engine.is_idle and not engine.arrivals.empty():
        pump(0)


def depart(engine: Engine, setup: RunSetup, hooks: RunHooks, interrupts: Interrupts, why: str) -> int:
    """Leave, and close the journal; returns how many jobs no host has."""
    whole = engine.leave()
    left = len(engine.scheduler.pending)
    interrupts.restore_signals()
    try:
        blob = run_record.callbacks_blob(setup, setup.dumps_here)
        engine.journal.put_blob("callbacks", blob)
    except Exception as error:  # noqa: BLE001 - it is a user's callback that cannot be pickled
        hooks.warn("callbacks", f"their state is that of the start when the run is taken up: {error}")
    detached = events.RunDetached(time.time(), setup.run_id, why, tuple(whole))
    engine.observe(detached)
    engine.close_journal(detached)
    return left
