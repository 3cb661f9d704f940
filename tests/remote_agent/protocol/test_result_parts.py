"""The places of a result's parts: what is read, what is refused, what another machine gets."""

from __future__ import annotations

import pytest

from remote_agent.protocol.fields import FieldError
from remote_agent.protocol.result_parts import NO_PARTS, PLAIN, SAME, Part, ResultParts


def test_parts_can_be_read_back():
    """The object has only the parts that exist."""
    parts = NO_PARTS._replace(value=Part(0, 3, "ab"), cfg=Part(3, 2, "cd"), codec=PLAIN, file="/spool/x")
    said = parts.to_json()
    assert said == {
        "value": {"offset": 0, "size": 3, "sha256": "ab"},
        "cfg": {"offset": 3, "size": 2, "sha256": "cd"},
        "codec": "plain",
        "file": "/spool/x",
    }
    assert ResultParts.from_json(said) == parts
    assert parts.size == 5


def test_an_end_without_a_result_is_an_empty_object():
    """A result with the same bytes as the outcome says only that."""
    assert (NO_PARTS.to_json(), NO_PARTS.size) == ({}, 0)
    assert SAME.to_json() == {"same": True}
    assert ResultParts.from_json({"same": True}) == SAME


def test_no_path_goes_to_or_comes_from_another_machine():
    """Neither the controller of a host, nor the host of a controller."""
    parts = NO_PARTS._replace(value=Part(0, 3, ""), file="/spool/x", same=True)
    assert parts.without_file() == NO_PARTS._replace(value=Part(0, 3, ""))


def test_names_of_a_later_version_are_ignored():
    """And null is a missing part."""
    said = {"value": None, "later": [1], "plain": {"offset": 0, "size": 1, "more": 2}}
    assert ResultParts.from_json(said) == NO_PARTS._replace(plain=Part(0, 1, ""))


@pytest.mark.parametrize(
    "said",
    [
        [],
        {"value": 5},
        {"value": {"offset": 0}},
        {"value": {"offset": "0", "size": 1}},
        {"value": {"offset": True, "size": 1}},
        {"value": {"offset": -1, "size": 1}},
        {"cfg": {"offset": 0, "size": -1}},
        {"value": {"offset": 0, "size": 1, "sha256": 5}},
        {"codec": 5},
        {"file": ["x"]},
        {"same": 1},
    ],
)
def test_invalid_parts_are_refused(said):
    """Before they are used."""
    with pytest.raises(FieldError):
        ResultParts.from_json(said)
