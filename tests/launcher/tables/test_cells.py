"""Cells: what overrides set, and the numbers and texts in values."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from launcher.serialization.plain_values import read_shown
from launcher.tables.cells import cell_text, settings_of, values_of
from remote_agent.shared.plain_value import encode


def cells(value: Any) -> dict[str, Any]:
    """The cells of a value that a host has sent."""
    return values_of(read_shown(encode(value)))


@dataclass
class Result:
    loss: float
    name: str


@pytest.mark.parametrize(
    ("overrides", "settings"),
    [
        (("lr=0.1", "n=3", "on=true", "off=False", "none=null"), {"lr": 0.1, "n": 3, "on": True, "off": False, "none": None}),
        (("lr=1e-4", "a=.5", "b=-2", "c=+3"), {"lr": 1e-4, "a": 0.5, "b": -2, "c": 3}),
        (("+new=1", "++forced=2", "~gone", "~old=x"), {"new": 1, "forced": 2, "gone": None, "old": "x"}),
        (("name='a b'", 'other="c=d"', "list=[1,2]", "empty="), {"name": "a b", "other": "c=d", "list": "[1,2]", "empty": ""}),
        (("model=vit", "db@src=x", "1_000=1_000"), {"model": "vit", "db@src": "x", "1_000": "1_000"}),
        (("x=1", "x=2"), {"x": 2}),
        (("\x1b[2Jx=a\nb",), {"x": "a\\nb"}),
        (("strange",), {"strange": ""}),
    ],
)  # fmt: skip
def test_an_override_sets_a_number_or_a_text(overrides: tuple[str, ...], settings: dict[str, Any]) -> None:
    """In each form of Hydra's grammar; what is no plain number or word stays text. The last one of the same name counts."""
    assert settings_of(overrides) == settings


def test_infinities_and_nan_of_overrides_are_numbers() -> None:
    """As Hydra reads them. A number with thousands of digits is text."""
    found = settings_of(["a=inf", "b=-inf", "c=nan", "d=" + "9" * 5000])
    assert (found["a"], found["b"]) == (math.inf, -math.inf)
    assert math.isnan(found["c"])  # type: ignore[arg-type]
    assert isinstance(found["d"], str)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, {"value": 0.5}),
        (True, {"value": True}),
        ("done", {"value": "done"}),
        (None, {}),
        ({"loss": 0.5, "epoch": 3, "note": None}, {"loss": 0.5, "epoch": 3, "note": None}),
        ({"val": {"loss": 1, "acc": {"top1": 0.9}}}, {"val.loss": 1, "val.acc.top1": 0.9}),
        ({0: 1.5, "b": 2}, {"0": 1.5, "b": 2}),
        (Result(0.25, "x"), {"loss": 0.25, "name": "x"}),
        (np.float32(0.5), {"value": 0.5}),
        ({"loss": np.array(3.0), "all": np.zeros(5)}, {"loss": 3.0}),
        ({"d": Decimal("1.5"), "t": dt.timedelta(minutes=1), "on": dt.date(2024, 1, 2)}, {"d": 1.5, "t": 60.0, "on": "2024-01-02"}),
        ([1, 2, 3], {}),
        ({"raw": b"x", "list": [1], "object": object(), "n": 1}, {"n": 1}),
    ],
)  # fmt: skip
def test_numbers_and_texts_of_a_value_are_cells(value: Any, expected: dict[str, Any]) -> None:
    """Also in nested dicts and in records. What is neither has no cell."""
    assert cells(value) == expected


def test_a_hostile_value_is_bounded_and_clean() -> None:
    """It may have any number of names, any depth, any length, and characters that a terminal obeys."""
    found = cells({f"k{index}": index for index in range(10_000)})
    assert len(found) == 200
    deep: Any = 1
    for _ in range(50):
        deep = {"x": deep}
    assert cells({"deep": deep, "huge": 1 << 100_000, "n": 1}) == {"n": 1}
    (name, text), *_ = cells({"\x1b]0;owned\x07a\nb\u202e\u2028": "y" * 100_000 + "\x9b"}).items()
    assert name == "a\\nb\\x202e\\x2028"
    assert text == "y" * 500 + "..."


@pytest.mark.parametrize(
    ("cell", "text"), [(None, ""), (True, "true"), (0.123456789, "0.123457"), (1e-12, "1e-12"), (math.nan, "nan"), (10**20, str(10**20))]
)  # fmt: skip
def test_a_cell_has_a_short_text(cell: Any, text: str) -> None:
    """A number has six digits, and a whole number all of them."""
    assert cell_text(cell) == text
