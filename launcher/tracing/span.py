"""One span, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from launcher.util.frozen import frozen

__all__ = ["Moment", "Span", "failed"]

#: Characters of a text in a span. A traceback may be as long as its host likes.
_LONGEST = 8000


@frozen
class Moment:
    """Something that happened during a span; OpenTelemetry calls it an event."""

    at: float
    name: str
    attributes: Mapping[str, Any]


@frozen
class Span:
    """One span. Times are seconds since the epoch, by the clock of this machine.

    Attributes:
        id, parent: 16 hex digits; the root of a trace has no parent.
        host: where it was; empty for the controller.
        problem: why it failed; empty if it did not.
        peer: the host that the controller talks to in it; empty if it is none.
    """

    id: str
    parent: str
    name: str
    begin: float
    end: float
    attributes: Mapping[str, Any]
    host: str = ""
    problem: str = ""
    peer: str = ""
    moments: Sequence[Moment] = ()

    def with_problem(self, why: str) -> Span:
        """Return the same span, failed."""
        return dataclasses.replace(self, problem=why[:_LONGEST] or "failed")


def failed(span: Span, error: Mapping[str, Any] | None, at: float) -> Span:
    """Return the span with the error of a job, if there is one, by the names that OpenTelemetry has for errors."""
    if error is None:
        return span
    kind, type_, message = (str(error.get(name) or "")[:_LONGEST] for name in ("kind", "type", "message"))
    what = {"exception.type": type_ or kind, "exception.message": message}
    traceback = str(error.get("traceback") or "")
    if traceback:
        what["exception.stacktrace"] = traceback[-_LONGEST:]
    attributes = {**span.attributes, "error.type": type_ or kind, "remote_launcher.error.kind": kind}
    moments = [*span.moments, Moment(at, "exception", what)]
    problem = f"{type_ or kind}: {message}" if message else type_ or kind
    return dataclasses.replace(span, attributes=attributes, problem=problem, moments=moments)
