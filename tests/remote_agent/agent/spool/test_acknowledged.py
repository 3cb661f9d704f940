"""The set of acknowledged attempts, in little memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remote_agent.agent.spool.acknowledged import Acknowledged


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3)), max_size=120))
def test_holds_what_was_added_and_nothing_else(added):
    """In whatever order and however often they are added."""
    held = Acknowledged()
    for num, attempt in added:
        held.add(f"{num}.{attempt}")
    for num in range(42):
        for attempt in range(1, 5):
            assert (f"{num}.{attempt}" in held) == ((num, attempt) in added)


@given(st.permutations(range(60)))
def test_consecutive_attempts_are_one_entry(order):
    """In whatever order they came."""
    held = Acknowledged()
    for num in order:
        held.add(f"{num}.1")
    assert held.entries == 1
