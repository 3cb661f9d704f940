"""The vocabulary of a run: what checkers take for all of it is all of it."""

from typing import get_args

import pytest

from launcher import events
from launcher.agents import facts
from launcher.events.base import KINDS


def test_the_union_names_every_event():
    """A `match` over the union that handles all of it handles every event that a journal can hold."""
    assert set(get_args(events.Event)) == set(KINDS.values()) - {events.EventBase}


def test_the_union_names_every_fact():
    """Likewise for what hosts tell."""
    assert set(get_args(facts.Fact)) == set(facts.HostFact.__subclasses__())


def test_a_field_that_a_newer_version_has_added_is_ignored():
    """Its journal has the same version, and what this version knows of the event still holds. It may come anywhere."""
    event = events.CodeSent(1.0, "h", 7, 3, 4096)
    newer = {"kind": "code_sent", "lanes": [{"x": 1}], **event.to_json(), "ratio": float("nan")}
    assert events.from_json(newer) == event


def test_an_event_of_an_unknown_kind_or_without_a_field_is_refused():
    """What it says cannot be known, so the run cannot be taken up from there."""
    known = events.CodeSent(1.0, "h", 7, 3, 4096).to_json()
    for wrong in (
        {**known, "kind": "code_eaten"},
        {**known, "files": "7"},
        {name: value for name, value in known.items() if name != "files"},
    ):
        with pytest.raises(ValueError, match=r"kind|files"):
            events.from_json(wrong)
