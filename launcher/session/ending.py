"""Ending a run: on its hosts, and in its journal.

Rule: a run whose hooks were cut short by a second signal, or whose controller failed, is not ended but detached: whoever resumes it fires
what is owed, and collects what is on the hosts.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from launcher import events

if TYPE_CHECKING:
    from launcher.engine.engine import Engine
    from launcher.session.hooks import RunHooks
    from launcher.session.interrupts import Interrupts

__all__ = ["end_on_hosts", "last_event"]

#: Seconds between two looks at whether there was a second signal.
_LOOK = 0.05
#: Seconds for a thread to end when nothing can be decided any more.
_PATIENCE = 5.0


def end_on_hosts(engine: Engine, interrupts: Interrupts) -> list[str]:
    """End the run on all hosts; returns those that were not reached. A second signal cuts it short.

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
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            failed.append(error)

    closing = threading.Thread(target=close, name="closing", daemon=True)
    closing.start()
    while closing.is_alive() and not interrupts.must_detach:
        closing.join(_LOOK)
    if failed:
        raise failed[0]
    return engine.not_ended if closing.is_alive() else unreached


def last_event(
    engine: Engine, hooks: RunHooks, interrupts: Interrupts, ended: events.RunEnded
) -> events.RunEnded | events.RunDetached:
    """What the journal says last: that the run has ended, as `ended` says, or that it is detached and why."""
    if hooks.is_cut:
        return events.RunDetached(time.time(), ended.run, f"{interrupts.why}, twice; hooks are owed")
    if engine.crash is not None:
        return events.RunDetached(time.time(), ended.run, "the controller failed")
    return ended
