"""Values of users, compared."""

from typing import Any

import numpy as np

from launcher.util.equality import is_equal


class Raises:
    """Its comparison raises."""

    def __eq__(self, other: object) -> Any:
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]


def test_equal() -> None:
    """Plain values and arrays, whose comparison is an array itself."""
    assert is_equal({"a": [1]}, {"a": [1]})
    assert is_equal(1, 2) is False
    assert is_equal(np.array([1, 2]), np.array([1, 2]))
    assert is_equal(np.array([1, 2]), np.array([1, 3])) is False


def test_what_cannot_be_told() -> None:
    """It is None, and no error."""
    assert is_equal(Raises(), Raises()) is None
