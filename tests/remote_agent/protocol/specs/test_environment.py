"""The description of an environment is checked field by field, because it becomes file names and arguments."""

from __future__ import annotations

from typing import Any

import pytest

from remote_agent.protocol.fields import FieldError
from remote_agent.protocol.specs.environment import EnvironmentSpec, HostFacts, PythonFacts, Wheel

HASH = "a" * 64
WHEEL = Wheel("one", "1.0", "one-1.0-py3-none-any.whl", HASH, 5)
SPEC = EnvironmentSpec(HASH, "/usr/bin/python3", [WHEEL.to_json()], HASH, 3, HASH, 60.0)
PYTHON = PythonFacts("/usr/bin/python3", "3.11.2", "cpython", "cp311", 64)
FACTS = HostFacts("Linux", "x86_64", "6.1", "glibc 2.36", "", 5, [PYTHON.to_json()])


def test_a_description_can_be_read_back() -> None:
    """Unknown fields from a later version are ignored."""
    assert EnvironmentSpec.from_json({**SPEC.to_json(), "more": 1}) == SPEC
    assert EnvironmentSpec.from_json({**SPEC.to_json(), "wheels": [{**WHEEL.to_json(), "more": 1}]}).files == [WHEEL]
    assert HostFacts.from_json(FACTS.to_json()) == FACTS


@pytest.mark.parametrize(
    "odd",
    [
        {"file": "../one.whl"}, {"file": "one.tar.gz"}, {"file": ".whl"}, {"file": "a\n.whl"}, {"name": "-r x"}, {"name": "a b"},
        {"version": "1 --hash"}, {"sha256": "x"}, {"size": -1}, {"size": "1"}, {"version": None},
    ],
)  # fmt: skip
def test_an_invalid_wheel_is_refused(odd: dict[str, Any]) -> None:
    """None of its fields leads out of a folder or acts as an option."""
    with pytest.raises(FieldError):
        EnvironmentSpec.from_json({**SPEC.to_json(), "wheels": [{**WHEEL.to_json(), **odd}]})


@pytest.mark.parametrize("odd", [{"key": "../x"}, {"uv": ""}, {"lock": "x"}, {"wheels": "x"}, {"python": 1}])
def test_an_invalid_spec_is_refused(odd: dict[str, Any]) -> None:
    """Before it is used."""
    with pytest.raises(FieldError):
        EnvironmentSpec.from_json({**SPEC.to_json(), **odd})


@pytest.mark.parametrize("odd", [{"free": "x"}, {"pythons": [1]}, {"pythons": [{"path": "x"}]}, {"libc": None}])
def test_invalid_facts_are_refused(odd: dict[str, Any]) -> None:
    """A host may send anything."""
    with pytest.raises(FieldError):
        HostFacts.from_json({**FACTS.to_json(), **odd})
