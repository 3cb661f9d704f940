"""Configs of jobs are compared by what a task gets."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from omegaconf import MISSING, OmegaConf

from launcher.config.comparable import comparable


class Colour(enum.Enum):
    """An Enum in a config."""

    RED = 1
    BLUE = 2


@dataclass
class Model:
    """A structured config."""

    depth: int = 2
    name: str = MISSING
    colour: Colour = Colour.RED
    sizes: list[int] = field(default_factory=lambda: [1, 2])


class Thing:
    """An object without an `__eq__`."""

    def __init__(self, value: int) -> None:
        self.value = value


class Equal:
    """One that cannot be pickled, and says itself whether it is equal."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal) and self.value == other.value

    def __hash__(self) -> int:
        return self.value

    def __reduce__(self) -> Any:
        raise TypeError("never")


class Raises(Equal):
    """One whose comparison raises."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = Equal.__hash__


def of(config: Any, **job: Any) -> Any:
    """What can be compared of a config, with keys of its `hydra.job`."""
    return comparable(config, OmegaConf.create({"hydra": {"job": job}}))


def with_objects(**values: Any) -> Any:
    """A config that may hold any object."""
    return OmegaConf.create(values, flags={"allow_objects": True})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": [1, {"c": None}]}, {"b": [1, {"c": None}], "a": 1}),
        (OmegaConf.create({"a": 1}), {"a": 1}),
        ({"nan": float("nan")}, {"nan": float("nan")}),
        (OmegaConf.structured(Model), OmegaConf.structured(Model(sizes=[1, 2]))),
        ({"p": Path("/a"), "c": Colour.RED, "b": b"x"}, {"p": Path("/a"), "c": Colour.RED, "b": b"x"}),
        ({"num": "${hydra:job.num}", "at": "${now:%H}"}, {"num": "${hydra:job.num}", "at": "${now:%H}"}),
        ({"x": "${nothing}"}, {"x": "${nothing}"}),
        (with_objects(o=Thing(1)), with_objects(o=Thing(1))),
        (with_objects(o=Equal(1)), with_objects(o=Equal(1))),
    ],
)
def test_the_same(one: Any, other: Any) -> None:
    """The order of keys, the kind of mapping and what differs by itself make no difference."""
    assert of(one).is_same(of(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": "1"}),
        ({1: "a"}, {"1": "a"}),
        ({"a": None}, {}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": {"b": 1}}, {"a": ["b", 1]}),
        ({"a": "${b}", "b": 1}, {"a": "${b}", "b": 2}),
        ({"a": "${b}", "b": 1}, {"a": 1, "b": 1}),
        (OmegaConf.structured(Model), OmegaConf.structured(Model(colour=Colour.BLUE))),
        (with_objects(o=Thing(1)), with_objects(o=Thing(2))),
        (with_objects(o=Thing(1)), with_objects(o=Equal(1))),
        (with_objects(o=Raises(1)), with_objects(o=Raises(1))),
    ],
)
def test_not_the_same(one: Any, other: Any) -> None:
    """In doubt, configs differ."""
    assert not of(one).is_same(of(other))


def test_what_a_task_finds_in_its_process() -> None:
    """`hydra.job` counts as far as it says that. A number, an id and folders do not count."""
    assert of({}, num=1, id="a", env_set={"A": "1"}).is_same(of({}, num=2, id="b", env_set={"A": "1"}))
    assert not of({}, env_set={"A": "1"}).is_same(of({}, env_set={"A": "2"}))
    assert not of({}, chdir=True).is_same(of({}, chdir=False))
