"""YAML is read as a person means it, or refused in one line."""

from __future__ import annotations

import re
from typing import Any

import pytest

from launcher.util.text import strict_yaml
from launcher.util.text.strict_yaml import read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# nothing\n", None),
        ("a: 1\nb: [x, 1.5, true, null]", {"a": 1, "b": ["x", 1.5, True, None]}),
        ("a: '022'\nb: \"1:30\"", {"a": "022", "b": "1:30"}),
        ("a: &x [1]\nb: *x\nc: *x", {"a": [1], "b": [1], "c": [1]}),
        ("- -3\n- 0", [-3, 0]),
        ("2: a\ntrue: b", {2: "a", True: "b"}),
    ],
)
def test_what_is_meant(text: str, value: Any) -> None:
    """Plain data. What is quoted is text."""
    assert read(text) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "expected"),
        ("a: 1\na: 2", "line 2: 'a' is given twice"),
        ("a: {b: 1, b: 1}", "line 1: 'b' is given twice"),
        ("? [a]\n: 1", "line 1: a key is not a name"),
        ("a: 022", "line 1: YAML reads 022 as the number 18"),
        ("\na: 1:30", "line 2: YAML reads 1:30 as the number 90; put it in quotes"),
        ("a: 1.10", "YAML reads 1.10 as the number 1.1"),
        ("a: 1_000", "YAML reads 1_000 as the number 1000"),
        ("a: " + "9" * 5000, "is not a number that can be used"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: \x00", "special characters"),
        ("[\n" * 5000, "nested too deeply"),
        ("a: &a [*a]", "more than 10000 items"),
        (
            "\n".join([f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10) if n else 'x'}]" for n in range(9)]),
            "expanded with its aliases",
        ),
        ("a: 1\n---\nb: 2", "expected a single document"),
    ],
)
def test_anything_else_is_refused_in_a_line(text: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the line, where it is one of ours, and is short."""
    monkeypatch.setattr(strict_yaml, "_MAX_ITEMS", 10_000)
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        read(text)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) <= 500
