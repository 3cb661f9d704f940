"""The two ways to leave a run. It ends, on its hosts and in its journal. Or the controller detaches: the hosts go on, nothing is
cancelled, no end hook fires, and another controller may resume the run.

Rule: after detaching, the journal has the jobs that no host has, and the state of the callbacks. A run is also detached if a second
signal interrupted its hooks, or its controller failed. The hooks that have not fired, fire when it is resumed. After a second signal
nothing is waited for. Results that could not be written any more are on the hosts.
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
    from launcher.session.stopping.interrupts import Interrupts
    from launcher.setup.kinds.run_setup import RunSetup

__all__ = [
    "detach",
    "detach_at_once",
    "end_on_hosts",
    "last_event",
    "prepare_to_detach",
    "waits_for",
    "what_is_left",
]

#: When the controller detaches at once: seconds for the dispatcher's thread to end, and for frames to reach the hosts.
_SHORT_PATIENCE = 0.5
_ON_THEIR_WAY = 0.2
#: How many numbers of jobs are named.
_MAX_NAMED = 8
#: Seconds between two checks for a second signal.
_CHECK_EVERY = 0.05
#: Seconds for a thread to end if nothing can be decided any more.
_PATIENCE = 5.0


def end_on_hosts(engine: Engine, interrupts: Interrupts) -> list[str]:
    """End the run on all hosts. Returns those that were not reached. A second signal interrupts it.

    If nothing can be decided any more, the hosts keep what they have.
    """
    if engine.crash is not None:
        engine.detach_at_once(_PATIENCE)
        engine.drop_links()
        return []
    unreached: list[str] = []
    failed: list[BaseException] = []

    def close() -> None:
        try:
            unreached.extend(engine.close())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            failed.append(error)

    closing = threading.Thread(target=close, name="closing", daemon=True)
    closing.start()
    while closing.is_alive() and not interrupts.must_detach:
        closing.join(_CHECK_EVERY)
    if failed:
        raise failed[0]
    return engine.not_ended if closing.is_alive() else unreached


def last_event(
    engine: Engine, hooks: RunHooks, interrupts: Interrupts, ended: events.RunEnded
) -> events.RunEnded | events.RunDetached:
    """Return the last event of the journal: that the run has ended, as in `ended`, or that it is detached, and why."""
    if hooks.is_cut:
        return events.RunDetached(time.time(), ended.run, f"{interrupts.why}, twice; some hooks have not fired")
    if engine.crash is not None:
        return events.RunDetached(time.time(), ended.run, "the controller failed")
    return ended


def prepare_to_detach(
    engine: Engine, pump: Callable[[float], Any], why: str, timeout: float, is_stopped: Callable[[], bool]
) -> None:
    """Give every job to a host, and handle arrivals in the meantime. Waits half of `timeout` seconds for hosts that are not reached yet.

    Args:
        is_stopped: whether the user wants the run to stop instead.
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
    """Detach, and close the journal. Returns how many jobs no host has."""
    whole = engine.detach()
    left = len(engine.scheduler.pending)
    try:
        blob = record.callbacks_blob(setup)
        engine.journal.put_blob("callbacks", blob)
    except Exception as error:  # noqa: BLE001 - a user's callback cannot be pickled
        hooks.warn("callbacks", f"if the run is resumed, they have their state from its start: {error}")
    detached = events.RunDetached(time.time(), setup.run_id, why, tuple(whole))
    engine.observe(detached)
    engine.close_journal(detached)
    return left


def detach_at_once(engine: Engine, setup: RunSetup, interrupts: Interrupts) -> str:
    """Detach at once, and close the journal if it can be written. Returns a text that says what is left where, and how to collect it."""
    left = what_is_left(engine, setup.run_id, interrupts.why)
    if engine.detach_at_once(_SHORT_PATIENCE):
        detached = events.RunDetached(time.time(), setup.run_id, f"{interrupts.why}, twice")
        engine.observe(detached)
        try:
            engine.close_journal(detached)
        except JournalError:
            # Nothing is lost: the journal stays as it was, and the hosts keep what they have.
            left += f" (free some space first: {engine.stalled})" if engine.stalled else ""
    threading.Event().wait(_ON_THEIR_WAY)
    engine.drop_links()
    return left


def what_is_left(engine: Engine, run: str, why: str) -> str:
    """Return a text that says what the hosts and the journal keep of a run that is detached at once."""
    where = "; ".join(_by_host(engine))
    return (
        f"{why}, twice: the controller leaves run {run}"
        + (f" with {where}; results stay there" if where else "; some hooks have not fired")
        + f"; 'launcher attach {run}' collects it"
    )


def waits_for(engine: Engine) -> str:
    """Return what an interrupted run waits for; empty if it is nothing in particular."""
    stalled = f"the disk: {engine.stalled} (free some space)" if engine.stalled else ""
    return "; ".join(filter(None, [stalled, *_by_host(engine)]))


def _by_host(engine: Engine) -> list[str]:
    named = []
    for host in list(engine.scheduler.hosts.values()):
        nums = sorted(host.jobs.copy() | host.collecting.copy())
        if nums:
            named.append(f"{_named(nums)} on {host.name}" + (f" ({host.why})" if host.why else ""))
    waiting = sorted(engine.scheduler.pending)
    if waiting:
        named.append(f"{_named(waiting)} on no host yet")
    return named


def _named(nums: list[int]) -> str:
    shown = ", ".join(map(str, nums[:_MAX_NAMED]))
    more = f" and {len(nums) - _MAX_NAMED:,} more" if len(nums) > _MAX_NAMED else ""
    return f"job{'s' if len(nums) > 1 else ''} {shown}{more}"
