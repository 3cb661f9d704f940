"""The vocabulary of a run: what checkers take for all of it is all of it."""

from typing import get_args

from launcher import events
from launcher.agents import facts
from launcher.events.base import KINDS


def test_the_union_names_every_event():
    """A `match` over the union that handles all of it handles every event that a journal can hold."""
    assert set(get_args(events.Event)) == set(KINDS.values()) - {events.EventBase}


def test_the_union_names_every_fact():
    """Likewise for what hosts tell."""
    assert set(get_args(facts.Fact)) == set(facts.HostFact.__subclasses__())
