"""Frozen dataclasses without generated code: what `dataclasses` says of a frozen dataclass holds for them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from launcher import events
from launcher.agents import facts
from launcher.engine import requests
from launcher.util.frozen import frozen


@frozen
class Ours:
    """The root."""

    kind: ClassVar[str] = "ours"
    at: float


@frozen
class OursMore(Ours):
    """With defaults."""

    names: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Theirs:
    """The same, as the standard library makes it."""

    kind: ClassVar[str] = "ours"
    at: float


@dataclass(frozen=True)
class TheirsMore(Theirs):
    """With defaults."""

    names: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)


@pytest.mark.parametrize(
    "make",
    [
        lambda cls: cls(1.0),
        lambda cls: cls(1.0, ("a",)),
        lambda cls: cls(counts={"a": 1}, at=2.0),
        lambda cls: cls(1.0, names=("b",)),
        lambda cls: dataclasses.replace(cls(1.0), names=("c",)),
        lambda cls: copy.deepcopy(cls(1.0, ("d",), {"e": 1})),
        lambda cls: cls(),
        lambda cls: cls(1.0, (), {}, 4),
        lambda cls: cls(1.0, at=2.0),
        lambda cls: cls(1.0, nobody=2.0),
        lambda cls: cls(1.0, kind="x"),
        lambda cls: setattr(cls(1.0), "at", 2.0),
        lambda cls: setattr(cls(1.0), "new", 2.0),
        lambda cls: delattr(cls(1.0), "at"),
        lambda cls: hash(cls(1.0)),
        lambda cls: cls(1.0) == cls(1.0, ()),
        lambda cls: cls(1.0) == cls(2.0),
        lambda cls: cls(1.0) == cls.__mro__[1](1.0),
        lambda cls: [one.name for one in dataclasses.fields(cls)],
        lambda cls: cls.__match_args__,
        lambda cls: cls(1.0).counts is cls(1.0).counts,
    ],
)
def test_is_as_the_standard_library_makes_it(make: Callable[[Any], Any]) -> None:
    """The same value, or the same kind of refusal."""
    outcomes = []
    for cls in (OursMore, TheirsMore):
        try:
            made = make(cls)
            outcomes.append(list(vars(made).items()) if isinstance(made, cls) else made)
        except Exception as error:
            outcomes.append(type(error))
    assert outcomes[0] == outcomes[1]


def test_is_written_with_its_names() -> None:
    """In the order of the fields, as messages show it."""
    assert repr(OursMore(1.0, counts={"a": 1})) == repr(TheirsMore(1.0, counts={"a": 1})).replace("Theirs", "Ours")


def test_can_be_pickled_and_be_a_key() -> None:
    """As events are, in a journal and in sets."""
    made = Ours(1.0)
    assert pickle.loads(pickle.dumps(made)) == made
    assert len({made, Ours(1.0), Ours(2.0)}) == 2


def test_no_field_is_of_a_kind_that_is_not_for_it() -> None:
    """Every class that is made so has plain fields alone."""
    made = [
        one
        for module in (events, facts, requests)
        for one in vars(module).values()
        if isinstance(one, type) and dataclasses.is_dataclass(one) and one.__module__ == module.__name__
    ]
    assert len(made) > 40
    assert all(
        one.init and one.compare and one.repr and not one.kw_only for cls in made for one in dataclasses.fields(cls)
    )


def test_what_it_refuses_does_not_tell_what_it_was_given() -> None:
    """Which may be a secret."""
    with pytest.raises(TypeError) as refused:
        OursMore(1.0, (), {}, "secret")  # type: ignore[call-arg]
    assert "secret" not in str(refused.value)
