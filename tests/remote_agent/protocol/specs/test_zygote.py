"""The spec for a zygote is checked completely, and keeps the values of variables secret."""

from __future__ import annotations

import json

import pytest

from remote_agent.protocol.fields import FieldError
from remote_agent.protocol.specs.zygote import ZygoteSpec
from tests.remote_agent.protocol.samples import (
    ZYGOTE,
    through_json,
)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"environ": {"TOKEN": 5}}, "environ is of type dict"),
        ({"environ": "text"}, "environ"),
        ({"setup": None}, "setup"),
        ({"sys_path": [5]}, "sys_path"),
        ({"shared": "../x"}, "shared"),
        ({"code_blob": "../x"}, "code_blob"),
        ({"controller": {}}, "controller: python is missing"),
        ({"controller": None}, "controller is None"),
        ({"umask": True}, "umask"),
    ],
)
def test_an_invalid_spec_is_refused(change, named):
    """Before it is kept. The message has no value of a variable."""
    with pytest.raises(FieldError, match=named) as caught:
        ZygoteSpec.from_json({**through_json(ZYGOTE), **change})
    assert "secret" not in str(caught.value)


def test_no_value_of_a_variable_is_in_a_journal():
    """Only their names. Whoever resumes the run has the values."""
    data = json.loads(json.dumps(ZYGOTE.to_journal()))
    assert "secret" not in json.dumps(data)
    assert data["environ"] == ["TOKEN"]
    assert ZygoteSpec.from_journal(data) == ZYGOTE._replace(environ={})
