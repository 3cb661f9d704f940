"""`launcher trace`: the trace of a run, sent over OTLP/HTTP.

Rule: it is made from the journal alone, so it can be sent of any run, also of one that was started without `--otel`.
"""

from __future__ import annotations

from launcher.cli import arguments
from launcher.errors import LauncherError

__all__ = ["trace"]


def trace(run: arguments.Run = "last") -> None:
    """Send the trace of RUN over OTLP/HTTP: the run, its hosts, and each attempt with its queue, hooks, work and collection.

    OTEL_EXPORTER_OTLP_ENDPOINT says where to; without it, it is http://localhost:4318. A trace that is sent again has the same ids.
    """
    from launcher.runs import index
    from launcher.tracing.sending import send, shown_address
    from launcher.tracing.spans import read_trace

    sent = send(read_trace(index.find(run)))
    if sent.why:
        raise LauncherError(sent.why)
    print(f"trace {sent.trace}: {sent.spans} spans sent to {shown_address()}")
