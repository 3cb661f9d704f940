"""OpenTelemetry's spans, made of ours.

Rule: only what sends a trace imports this, because OpenTelemetry is an extra, and its import takes a while. The names of attributes are
those of OpenTelemetry's conventions where it has some; ours begin with `remote_launcher.`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry import trace as api
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from launcher import __version__
from launcher.tracing.span import Span
from launcher.tracing.spans import RunTrace
from launcher.util.text.terminal_text import clean

__all__ = ["SdkSpans"]

_NAME = "hydra-remote-launcher"


class SdkSpans:
    """Makes OpenTelemetry's spans of ours."""

    def __init__(self, trace: RunTrace) -> None:
        self._trace = trace
        self._scope = InstrumentationScope(_NAME, __version__)
        self._resources: dict[str, Resource] = {}

    def spans(self) -> Iterator[ReadableSpan]:
        """Yield all spans."""
        return map(self._made, self._trace.spans)

    def _made(self, span: Span) -> ReadableSpan:
        status = api.Status(api.StatusCode.ERROR, clean(span.problem)) if span.problem else api.Status()
        parent = self._context(span.parent, is_remote=span.parent == self._trace.context.parent)
        return ReadableSpan(
            name=clean(span.name)[:200],
            context=self._context(span.id),
            parent=parent if span.parent else None,
            resource=self._resource(span.host),
            attributes=_plain(span.attributes),
            events=[Event(one.name, _plain(one.attributes), _nanoseconds(one.at)) for one in span.moments],
            kind=api.SpanKind.CLIENT if span.peer else api.SpanKind.INTERNAL,
            status=status,
            start_time=_nanoseconds(span.begin),
            end_time=_nanoseconds(span.end),
            instrumentation_scope=self._scope,
        )

    def _context(self, span: str, *, is_remote: bool = False) -> Any:
        sampled = api.TraceFlags(api.TraceFlags.SAMPLED)
        return api.SpanContext(int(self._trace.context.trace, 16), int(span or "0", 16), is_remote, sampled)

    def _resource(self, host: str) -> Resource:
        """Return what the spans of a host, or of the controller, are of. OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME add to it."""
        if host not in self._resources:
            told = {"service.name": _NAME, "service.version": __version__}
            said = Resource.create().attributes
            # What the SDK says by itself is of this process; what the user says is of all of them.
            named = {
                name: value
                for name, value in said.items()
                if not name.startswith("process.") and not str(value).startswith("unknown_service")
            }
            own = {"host.name": host or socket.gethostname()}
            python = self._trace.pythons.get(host)
            if python:
                own["process.runtime.version"] = python
            self._resources[host] = Resource({**told, **named, **own})
        return self._resources[host]


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as OpenTelemetry takes them, their texts clean."""
    made: dict[str, Any] = {}
    for name, value in attributes.items():
        if isinstance(value, (list, tuple)):
            made[name] = [clean(one)[:2000] for one in value[:100]]
        else:
            made[name] = clean(value) if isinstance(value, str) else value
    return made


def _nanoseconds(at: float) -> int:
    return max(round(at * 1e9), 0)
