"""`assert_never` for Python 3.10: the last case of a `match`, which a type checker refuses if a case is missing."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["assert_never"]


def assert_never(value: NoReturn) -> NoReturn:
    """Declare that no value gets here.

    Raises:
        AssertionError: one did, past the type checker.
    """
    raise AssertionError(f"not handled: {type(value).__name__}")
