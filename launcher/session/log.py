"""Logs what goes wrong in a run, for Python users who pass no observer.

Rule: it logs what a command would show as a warning: a host that cannot be used, with the next step; a hook that raised, with its
traceback. The logger is `launcher`. If no logging is set up, Python prints its warnings to stderr.
"""

from __future__ import annotations

import logging

from launcher import events
from launcher.util.text.terminal_text import clean

__all__ = ["log_problems"]

_log = logging.getLogger("launcher")


def log_problems(event: events.Event) -> None:
    """An observer that logs problems, and nothing that goes well."""
    if isinstance(event, events.HostUnusable):
        step = f"\n    next: {clean(event.next_step)}" if event.next_step else ""
        _log.warning("host %s: cannot be used: %s: %s%s", event.host, clean(event.phase), clean(event.why), step)
    elif isinstance(event, events.HostUnknown):
        _log.warning("host %s: link lost (%s); reconnecting", event.host, clean(event.why))
    elif isinstance(event, events.HostLost):
        _log.warning(
            "host %s: given up (%s); jobs: %s", event.host, clean(event.why), ", ".join(map(str, event.jobs)) or "none"
        )
    elif isinstance(event, events.Warned):
        if event.source.startswith("callback ") and not event.host:
            # This is a hook of the controller. The composite has already reported it, with its traceback.
            return
        whose = "".join(
            [f" (job {event.num})" if event.num is not None else "", f" on {event.host}" if event.host else ""]
        )
        trace = f"\n{clean(event.traceback).rstrip()}" if event.traceback else ""
        _log.warning("%s%s: %s%s", clean(event.source), whose, clean(event.message), trace)
