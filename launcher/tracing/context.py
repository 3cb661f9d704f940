"""The trace that a run belongs to.

Rule: the id follows from that of the run, unless a program that started the run has a trace already. So each controller of a run, and
`launcher trace` later, make the same spans.
"""

from __future__ import annotations

import hashlib
import re

from launcher.util.frozen import frozen
from remote_agent.protocol.trace import is_trace

__all__ = ["TraceContext", "context_of"]

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")


@frozen
class TraceContext:
    """Its id, and the id of the span that started the run; empty if there is none."""

    trace: str
    parent: str = ""


def context_of(run: str, traceparent: str = "") -> TraceContext:
    """Return the trace of a run.

    Args:
        traceparent: what the first controller had in `TRACEPARENT`. Anything but a valid one counts as nothing, as W3C Trace Context says.
    """
    found = _TRACEPARENT.fullmatch(traceparent.strip().lower())
    if found is not None and is_trace(found[1]):
        return TraceContext(found[1], found[2])
    return TraceContext(hashlib.sha256(f"hydra-remote-launcher/{run}".encode()).hexdigest()[:32])
