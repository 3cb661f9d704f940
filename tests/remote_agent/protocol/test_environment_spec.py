"""What an environment is made of is checked field by field: it becomes names of files, and arguments."""

from __future__ import annotations

from typing import Any

import pytest

from remote_agent.protocol.environment_spec import EnvironmentSpec, HostFacts, PythonFacts, Wheel
from remote_agent.protocol.fields import FieldError

HASH = "a" * 64
WHEEL = Wheel("one", "1.0", "one-1.0-py3-none-any.whl", HASH, 5)
SPEC = EnvironmentSpec(HASH, "/usr/bin/python3", [WHEEL.to_json()], HASH, 3, HASH, 60.0)
PYTHON = PythonFacts("/usr/bin/python3", "3.11.2", "cpython", "cp311", 64)
FACTS = HostFacts("Linux", "x86_64", "6.1", "glibc 2.36", "", 5, [PYTHON.to_json()])


def test_what_is_written_is_read() -> None:
    """And what a later version says besides is left out."""
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
def test_a_wheel_that_is_none_is_refused(odd: dict[str, Any]) -> None:
    """Nothing in it leads out of a folder, or is read as an option."""
    with pytest.raises(FieldError):
        EnvironmentSpec.from_json({**SPEC.to_json(), "wheels": [{**WHEEL.to_json(), **odd}]})


@pytest.mark.parametrize("odd", [{"key": "../x"}, {"uv": ""}, {"lock": "x"}, {"wheels": "x"}, {"python": 1}])
def test_a_spec_that_is_none_is_refused(odd: dict[str, Any]) -> None:
    """Before anything is done with it."""
    with pytest.raises(FieldError):
        EnvironmentSpec.from_json({**SPEC.to_json(), **odd})


@pytest.mark.parametrize("odd", [{"free": "x"}, {"pythons": [1]}, {"pythons": [{"path": "x"}]}, {"libc": None}])
def test_facts_that_are_none_are_refused(odd: dict[str, Any]) -> None:
    """A host may say anything."""
    with pytest.raises(FieldError):
        HostFacts.from_json({**FACTS.to_json(), **odd})
