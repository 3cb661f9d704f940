"""Frozen dataclasses without generated code: what `dataclasses` says of a frozen dataclass holds for them."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

import launcher
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


def test_does_not_write_what_must_not_be_shown() -> None:
    """A field with `repr=False`, which may be a secret."""

    @frozen
    class Secret:
        name: str
        value: str = field(repr=False)

    assert repr(Secret("a", "hidden")).endswith("Secret(name='a')")
    assert dataclasses.replace(Secret("a", "hidden"), name="b").value == "hidden"


def test_no_field_is_of_a_kind_that_is_not_for_it() -> None:
    """Every class of ours that is made so has plain fields alone, and no `__post_init__`, which would not be called."""
    root = Path(launcher.__file__).parent
    files = [one for one in root.rglob("*.py") if "from launcher.util.frozen import frozen" in one.read_text("utf-8")]
    modules = [importlib.import_module(".".join(one.relative_to(root.parent).with_suffix("").parts)) for one in files]
    made = {
        one
        for module in modules
        for one in vars(module).values()
        if isinstance(one, type) and vars(one).get("__init__") is vars(Ours)["__init__"]
    }
    assert len(made) > 70
    for one in made:
        assert not hasattr(one, "__post_init__")
        assert not any(isinstance(value, functools.cached_property) for value in vars(one).values())
        assert all(each.init and each.compare and not each.kw_only for each in dataclasses.fields(one))


def test_what_it_refuses_does_not_tell_what_it_was_given() -> None:
    """Which may be a secret."""
    with pytest.raises(TypeError) as refused:
        OursMore(1.0, (), {}, "secret")  # type: ignore[call-arg]
    assert "secret" not in str(refused.value)
