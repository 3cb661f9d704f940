"""Where the parts of a result lie: what is read, what is refused, what another machine is told."""

from __future__ import annotations

import pytest

from remote_agent.protocol.fields import FieldError
from remote_agent.protocol.result_parts import NO_PARTS, PLAIN, SAME, Part, ResultParts


def test_what_was_made_is_read_back():
    """The object says only what there is."""
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


def test_an_end_without_a_result_says_nothing():
    """As does one whose bytes are those of the outcome, but for that."""
    assert (NO_PARTS.to_json(), NO_PARTS.size) == ({}, 0)
    assert SAME.to_json() == {"same": True}
    assert ResultParts.from_json({"same": True}) == SAME


def test_another_machine_learns_no_path_and_is_believed_none():
    """Neither the controller of a host nor the host of a controller."""
    parts = NO_PARTS._replace(value=Part(0, 3, ""), file="/spool/x", same=True)
    assert parts.without_file() == NO_PARTS._replace(value=Part(0, 3, ""))


def test_names_of_a_later_version_are_ignored():
    """And null is a part that there is not."""
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
def test_what_is_not_what_it_must_be_is_refused(said):
    """Before anything is done with it."""
    with pytest.raises(FieldError):
        ResultParts.from_json(said)
