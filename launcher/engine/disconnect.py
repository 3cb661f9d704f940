"""Taking leave of hosts: all at once, within one deadline, and saying whom is waited for.

Rule: a host that does not answer costs what one costs, however many there are. What has not ended by the deadline ends by
itself: nothing of the run depends on it any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

__all__ = ["Leaving", "close_all", "wait_for_ends"]

#: Seconds for agents to say that the run is over for them, and for connections to come down.
_END_PATIENCE = 10.0
_CLOSE_PATIENCE = 2.0
#: Seconds for which nobody has to be told that something is waited for.
_QUIET = 1.0
_MAX_NAMES = 8


class Leaving(Protocol):
    """What is asked of a session at the end."""

    host: str

    def wait_finished(self, timeout: float) -> bool:
        """The agent closed the link after `finish`, within that many seconds."""

    def close(self) -> None:
        """End the threads and the connection."""


def wait_for_ends(told: Iterable[Leaving], say: Callable[[str], None]) -> list[str]:
    """Wait for agents that were told to finish; returns the hosts of those that did not say so in time.

    Args:
        say: told whom is waited for, where that takes longer than a moment.
    """
    began = time.monotonic()
    late = _still_there(told, began + _QUIET)
    if not late:
        return []
    names = ", ".join(session.host for session in late[:_MAX_NAMES])
    more = f" and {len(late) - _MAX_NAMES} more" if len(late) > _MAX_NAMES else ""
    say(f"waiting up to {_END_PATIENCE:.0f} s for hosts to end the run there: {names}{more}")
    return [session.host for session in _still_there(late, began + _END_PATIENCE)]


def _still_there(sessions: Iterable[Leaving], deadline: float) -> list[Leaving]:
    # One after the other, but all until the same moment.
    return [session for session in sessions if not session.wait_finished(max(0.0, deadline - time.monotonic()))]


def close_all(sessions: Iterable[Leaving]) -> None:
    """Close these all at once. One that waits for its host is not waited for: it ends when that wait does."""
    threads = [
        threading.Thread(target=session.close, name=f"closing {session.host}", daemon=True) for session in sessions
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _CLOSE_PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
