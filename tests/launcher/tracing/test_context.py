"""The trace that a run belongs to."""

from __future__ import annotations

import pytest

from launcher.tracing.context import context_of
from remote_agent.protocol.trace import is_trace


def test_each_run_has_a_trace_of_its_own_and_always_the_same() -> None:
    """Another controller of the run makes the same."""
    first, other = context_of("20260101-000000-abcdef"), context_of("20260101-000000-abcdee")
    assert first == context_of("20260101-000000-abcdef")
    assert first.trace != other.trace
    assert is_trace(first.trace)
    assert first.parent == ""


def test_a_run_joins_the_trace_of_what_started_it() -> None:
    """As W3C Trace Context has it, also in a version that is not known yet."""
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    for text in (f"00-{trace}-{parent}-01", f"00-{trace.upper()}-{parent}-00", f"01-{trace}-{parent}-01-more"):
        found = context_of("r", text)
        assert (found.trace, found.parent) == (trace, parent)


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
    ],
)
def test_a_wrong_parent_counts_as_none(text: str) -> None:
    """The run has a trace of its own then."""
    assert context_of("r", text) == context_of("r")
