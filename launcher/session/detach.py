"""Detaching from a run: its hosts go on, nothing is cancelled, no end hook fires, and another controller may resume it.

Rule: the journal has the jobs that no host has, and the state of the callbacks. After a second signal nothing is waited for: what could
not be written any more is on the hosts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from launcher import events
from launcher.errors import JournalError
from launcher.runs import record

if TYPE_CHECKING:
    from launcher.engine.engine import Engine
    from launcher.session.hooks import RunHooks
    from launcher.session.interrupts import Interrupts
    from launcher.setup.run_setup import RunSetup

__all__ = ["detach", "detach_at_once", "prepare_to_detach", "waits_for", "what_is_left"]

#: Seconds for the thread that decides to end when the controller detaches at once, and for frames on their way to hosts.
_HASTE = 0.5
_ON_THEIR_WAY = 0.2
#: Numbers of jobs that are named.
_MAX_NAMED = 8


def prepare_to_detach(
    engine: Engine, pump: Callable[[float], Any], why: str, timeout: float, is_stopped: Callable[[], bool]
) -> None:
    """Give every job to a host, and take what arrives meanwhile. Hosts that are not reached yet are waited for half of timeout seconds.

    Args:
        is_stopped: tells whether the user wants the run to stop instead.
    """
    engine.prepare_to_detach(why)
    deadline = time.monotonic() + timeout
    is_hurried = False
    while not engine.delivered.is_set() and time.monotonic() < deadline and not is_stopped():
        if not is_hurried and deadline - time.monotonic() < timeout / 2:
            is_hurried = True
            engine.prepare_to_detach(why, hurry=True)
        pump(0.05)
    while not engine.is_idle and not engine.arrivals.empty():
        pump(0)


def detach(engine: Engine, setup: RunSetup, hooks: RunHooks, why: str) -> int:
    """Detach, and close the journal; returns how many jobs no host has."""
    whole = engine.detach()
    left = len(engine.scheduler.pending)
    try:
        blob = record.callbacks_blob(setup)
        engine.journal.put_blob("callbacks", blob)
    except Exception as error:  # noqa: BLE001 - it is a user's callback that cannot be pickled
        hooks.warn("callbacks", f"they have their state from the start again when the run is resumed: {error}")
    detached = events.RunDetached(time.time(), setup.run_id, why, tuple(whole))
    engine.observe(detached)
    engine.close_journal(detached)
    return left


def detach_at_once(engine: Engine, setup: RunSetup, interrupts: Interrupts) -> str:
    """Detach at once, and close the journal if it can be written; returns a text: what is left where, and how to collect it."""
    left = what_is_left(engine, setup.run_id, interrupts.why)
    if engine.detach_at_once(_HASTE):
        detached = events.RunDetached(time.time(), setup.run_id, f"{interrupts.why}, twice")
        engine.observe(detached)
        try:
            engine.close_journal(detached)
        except JournalError:
            # Nothing is lost by it: it says what it said before, and what hosts have, they keep.
            left += f" (free some space first: {engine.stalled})" if engine.stalled else ""
    threading.Event().wait(_ON_THEIR_WAY)
    engine.drop_links()
    return left


def what_is_left(engine: Engine, run: str, why: str) -> str:
    """A text: what the hosts and the journal keep of a run that is detached at once."""
    where = "; ".join(_by_place(engine))
    return (
        f"{why}, twice: run {run} is left"
        + (f" with {where}; their results stay there" if where else ", its hooks are owed")
        + f"; 'launcher attach {run}' collects it"
    )


def waits_for(engine: Engine) -> str:
    """What an interrupted run waits for; empty if it is nothing in particular."""
    stalled = f"the disk: {engine.stalled} (free some space)" if engine.stalled else ""
    return "; ".join(filter(None, [stalled, *_by_place(engine)]))


def _by_place(engine: Engine) -> list[str]:
    places = []
    for host in list(engine.scheduler.hosts.values()):
        nums = sorted(host.jobs.copy() | host.collecting.copy())
        if nums:
            places.append(f"{_named(nums)} on {host.name}" + (f" ({host.why})" if host.why else ""))
    waiting = sorted(engine.scheduler.pending.copy())
    if waiting:
        places.append(f"{_named(waiting)} on no host yet")
    return places


def _named(nums: list[int]) -> str:
    shown = ", ".join(map(str, nums[:_MAX_NAMED]))
    more = f" and {len(nums) - _MAX_NAMED:,} more" if len(nums) > _MAX_NAMED else ""
    return f"job{'s' if len(nums) > 1 else ''} {shown}{more}"
