"""The names of a trace and of its spans, which controller and host must agree on.

Rule: the name of a span follows from its trace and from what the span is of. So the controller, which makes all spans, needs not be told
which name a job has had for its own spans' parent. The form is that of W3C Trace Context.
"""

import hashlib
import re

__all__ = ["TRACEPARENT", "attempt_span", "is_trace", "span_name", "traceparent"]

#: The variable by which a program is told the span that its own spans belong to.
TRACEPARENT = "TRACEPARENT"
_TRACE = re.compile("(?!0{32})[0-9a-f]{32}")


def is_trace(text: str) -> bool:
    """Whether it names a trace."""
    return _TRACE.fullmatch(text) is not None


def span_name(trace: str, of: str) -> str:
    """Return the name of a span, 16 hex digits. `of` says what it is of, and is said of no other span of the trace."""
    return hashlib.sha256("{}/{}".format(trace, of).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def attempt_span(trace: str, attempt_id: str) -> str:
    """Return the name of an attempt's span."""
    return span_name(trace, "attempt/" + attempt_id)


def traceparent(trace: str, attempt_id: str) -> str:
    """Return what the process of an attempt has in `TRACEPARENT`: spans that it makes are children of the attempt's."""
    return "00-{}-{}-01".format(trace, attempt_span(trace, attempt_id))
