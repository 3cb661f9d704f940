"""The names of spans, which controller and host make alike."""

import re

from remote_agent.protocol.trace import attempt_span, is_trace, span_name, traceparent


def test_a_job_is_told_the_span_of_its_attempt() -> None:
    """In the form that programs read."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    told = traceparent(trace, "3.1")
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", told)
    assert told.split("-")[1:3] == [trace, attempt_span(trace, "3.1")]


def test_opentelemetry_reads_it():
    """An app continues the trace with OpenTelemetry's own propagator."""
    from opentelemetry import trace as api
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    trace = "0af7651916cd43dd8448eb211c80319c"
    found = TraceContextTextMapPropagator().extract({"traceparent": traceparent(trace, "3.1")})
    context = api.get_current_span(found).get_span_context()
    assert context.trace_flags.sampled
    assert (context.trace_id, context.span_id) == (int(trace, 16), int(attempt_span(trace, "3.1"), 16))


def test_spans_of_different_things_have_different_names() -> None:
    """And those of another trace, too."""
    one, other = "a" * 32, "b" * 32
    names = {span_name(one, "run"), span_name(other, "run"), attempt_span(one, "3.1"), attempt_span(one, "31")}
    assert len(names) == 4


def test_what_names_a_trace() -> None:
    """A host checks it, because it goes into the environment of a program."""
    assert is_trace("a" * 32)
    for wrong in ("", "0" * 32, "a" * 31, "A" * 32, "a" * 32 + "\n", "x" * 32):
        assert not is_trace(wrong)
