"""What a job may report, and what is accepted of another process."""

from __future__ import annotations

import fractions
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_agent.protocol.fields import FieldError
from remote_agent.protocol.report import (
    MAX_NAME,
    MAX_TEXT,
    MAX_VALUES,
    Report,
    check_names,
    checked_step,
    checked_value,
)

_VALUES = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text('aé\n\\"', max_size=8)


@given(st.none() | st.integers(-5, 5) | st.floats(0, 1), st.dictionaries(st.sampled_from("abc"), _VALUES))
def test_a_report_is_the_same_after_json(step: Any, values: dict[str, Any]) -> None:
    """Also infinite numbers, and texts that are no valid UTF-8 become valid."""
    report = Report(step, values, 1.5)
    written = json.dumps(report.to_json(), allow_nan=False)
    assert Report.from_json(json.loads(written)) == report


def test_a_number_that_is_none_is_the_same_after_json() -> None:
    """NaN is what a job that diverges reports."""
    (value,) = Report.from_json(Report(None, {"loss": math.nan}, 0.0).to_json()).values.values()
    assert math.isnan(value)


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (1, 1),
        (True, True),
        (0.5, 0.5),
        ("good", "good"),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.int16(3), 3),
        (fractions.Fraction(1, 4), 0.25),
    ],
)
def test_numbers_and_texts_are_values(given: Any, value: Any) -> None:
    """Those of numpy become Python's own."""
    checked = checked_value("loss", given)
    assert checked == value
    assert type(checked) in (bool, int, float, str)


@pytest.mark.parametrize("given", [None, [1], {"a": 1}, np.zeros(2), 1j, b"x", object()])
def test_any_other_value_is_refused_by_name(given: Any) -> None:
    """The message says what it is, and what to do."""
    with pytest.raises(TypeError, match=r"launcher\.report: loss is an? .*; give a number or a short text"):
        checked_value("loss", given)


def test_what_is_too_long_is_refused_by_name() -> None:
    """Texts, numbers, names, and the number of values."""
    with pytest.raises(ValueError, match=f"note has {MAX_TEXT + 1} characters"):
        checked_value("note", "x" * (MAX_TEXT + 1))
    with pytest.raises(ValueError, match="count has more than 64 bits"):
        checked_value("count", 2**63)
    with pytest.raises(ValueError, match="1 to 100 characters"):
        check_names({"n" * (MAX_NAME + 1): 1})
    with pytest.raises(ValueError, match=f"{MAX_VALUES + 1} values"):
        check_names({str(number): 1 for number in range(MAX_VALUES + 1)})


@pytest.mark.parametrize("step", ["3", True, math.nan, math.inf, [1]])
def test_a_step_is_a_finite_number(step: Any) -> None:
    """A text is none."""
    with pytest.raises((TypeError, ValueError), match="step"):
        checked_step(step)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {"at": 1.0, "values": {}},
        {"at": "1", "step": None, "values": {}},
        {"at": 1.0, "step": "3", "values": {}},
        {"at": 1.0, "step": None, "values": []},
        {"at": 1.0, "step": None, "values": {"a": None}},
        {"at": 1.0, "step": None, "values": {"a": [1]}},
        {"at": 1.0, "step": None, "values": {"a": ["nan", "nan"]}},
        {"at": 1.0, "step": None, "values": {"a": {"b": 1}}},
        {"at": 1.0, "step": None, "values": {"": 1}},
        {"at": 1.0, "step": None, "values": {"n" * (MAX_NAME + 1): 1}},
        {"at": 1.0, "step": None, "values": {"a": 2**63}},
        {"at": 1.0, "step": None, "values": {"a": "x" * (10 * MAX_TEXT + 1)}},
        {"at": 1.0, "step": None, "values": {str(number): 1 for number in range(MAX_VALUES + 1)}},
    ],
)
def test_what_is_no_report_is_refused(data: Any) -> None:
    """A host may send anything."""
    with pytest.raises(FieldError):
        Report.from_json(data)
