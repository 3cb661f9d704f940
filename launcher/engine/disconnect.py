"""Closing the connections to all hosts at once, within one deadline.

Rule: many hosts that do not answer take no longer than one. What has not ended by the deadline ends by itself; the run no longer
depends on it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launcher.agents.connection import AgentConnection

__all__ = ["close_all", "wait_for_ends"]

#: Seconds for agents to say that the run is over for them, and for connections to come down.
_END_PATIENCE = 10.0
_CLOSE_PATIENCE = 2.0
#: After so many seconds the user is told which hosts are waited for.
_QUIET = 1.0
_MAX_NAMES = 8


def wait_for_ends(told: Iterable[AgentConnection], say: Callable[[str], None]) -> list[str]:
    """Wait for agents that were told to finish; returns the hosts of those that did not say so in time.

    Args:
        say: shows which hosts are waited for, if it takes longer than a second.
    """
    began = time.monotonic()
    late = _still_there(told, began + _QUIET)
    if not late:
        return []
    names = ", ".join(session.host for session in late[:_MAX_NAMES])
    more = f" and {len(late) - _MAX_NAMES} more" if len(late) > _MAX_NAMES else ""
    say(f"waiting up to {_END_PATIENCE:.0f} s for hosts to end the run there: {names}{more}")
    return [session.host for session in _still_there(late, began + _END_PATIENCE)]


def _still_there(sessions: Iterable[AgentConnection], deadline: float) -> list[AgentConnection]:
    # One after the other, but all until the same deadline.
    return [session for session in sessions if not session.wait_finished(max(0.0, deadline - time.monotonic()))]


def close_all(sessions: Iterable[AgentConnection]) -> None:
    """Close all of these at once. One that still waits for its host at the deadline is left to end by itself."""
    threads = [
        threading.Thread(target=session.close, name=f"closing {session.host}", daemon=True) for session in sessions
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _CLOSE_PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
