"""The last case of a `match`, which no value reaches."""

import pytest

from launcher.util.exhaustive import assert_never


def test_a_value_that_gets_there_is_an_error():
    """It names the type that nobody handles."""
    with pytest.raises(AssertionError, match="not handled: int"):
        assert_never(3)  # type: ignore[arg-type]
