"""What a controller says that it holds of an output file."""

from __future__ import annotations

from typing import Any

import pytest

from remote_agent.protocol.fields import FieldError
from remote_agent.protocol.specs.held import HeldFile

HELD = HeldFile("a/b", 3, "0" * 64, is_executable=False)


def test_it_is_read_as_it_was_written() -> None:
    """Unknown fields are for later versions."""
    assert HeldFile.from_json({**HELD.to_json(), "later": 1}) == HELD


@pytest.mark.parametrize(
    "wrong",
    [{"size": 0}, {"size": -1}, {"size": True}, {"sha256": "0" * 63}, {"sha256": "G" * 64}, {"path": 1}, {"is_executable": 1}],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_is_refused(wrong: dict[str, Any]) -> None:
    """Nothing is held of a file without bytes, or without a hash."""
    with pytest.raises(FieldError):
        HeldFile.from_json({**HELD.to_json(), **wrong})
