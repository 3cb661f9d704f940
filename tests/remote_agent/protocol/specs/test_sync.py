"""How output files come while their job runs, as a controller says it."""

from __future__ import annotations

from typing import Any

import pytest

from remote_agent.protocol.fields import FieldError
from remote_agent.protocol.specs.sync import SyncSpec


def test_it_is_read_as_it_was_written() -> None:
    """Unknown fields are for later versions."""
    spec = SyncSpec(30.0, ["events.*"], says_held=True)
    assert SyncSpec.from_json({**spec.to_json(), "later": 1}) == spec


@pytest.mark.parametrize(
    "data",
    [None, [], {}, {"every": 1.0}, {"every": 0, "only": []}, {"every": -1.0, "only": []}, {"every": float("nan"), "only": []},
     {"every": "1", "only": []}, {"every": 1.0, "only": [1]}, {"every": 1.0, "only": "x"}],
)  # fmt: skip
def test_what_is_wrong_is_refused(data: Any) -> None:
    """A look needs time, and a pattern is a text."""
    with pytest.raises(FieldError):
        SyncSpec.from_json(data)
