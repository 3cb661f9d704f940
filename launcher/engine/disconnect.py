"""Closing the connections to all hosts at once, within one deadline.

Rule: many hosts that do not answer take no longer than one. A connection that has not ended by the deadline ends later by itself.
The run no longer depends on it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launcher.agents.connection import AgentConnection

__all__ = ["close_all", "wait_for_ends"]

#: Seconds for agents to confirm that the run has ended, and for connections to close.
_END_PATIENCE = 10.0
_CLOSE_PATIENCE = 2.0
#: After this many seconds, the user sees which hosts have not answered.
_SAY_AFTER = 1.0
_MAX_NAMES = 8


def wait_for_ends(told: Iterable[AgentConnection], say: Callable[[str], None]) -> list[str]:
    """Wait for agents that were told to finish. Returns the hosts of those that did not confirm in time.

    Args:
        say: shows which hosts have not answered, if it takes longer than a second.
    """
    began = time.monotonic()
    late = _still_there(told, began + _SAY_AFTER)
    if not late:
        return []
    names = ", ".join(session.host for session in late[:_MAX_NAMES])
    more = f" and {len(late) - _MAX_NAMES} more" if len(late) > _MAX_NAMES else ""
    say(f"waiting up to {_END_PATIENCE:.0f} s for hosts to end the run: {names}{more}")
    return [session.host for session in _still_there(late, began + _END_PATIENCE)]


def _still_there(sessions: Iterable[AgentConnection], deadline: float) -> list[AgentConnection]:
    # Wait for one after the other, all until the same deadline.
    return [session for session in sessions if not session.wait_finished(max(0.0, deadline - time.monotonic()))]


def close_all(sessions: Iterable[AgentConnection]) -> None:
    """Close all of these at the same time. One that still waits for its host at the deadline ends later by itself."""
    threads = [
        threading.Thread(target=session.close, name=f"closing {session.host}", daemon=True) for session in sessions
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _CLOSE_PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
