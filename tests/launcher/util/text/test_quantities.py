"""Numbers of bytes, for people."""

from __future__ import annotations

import pytest

from launcher.util.text.quantities import size


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB")])
def test_sizes(value: int, text: str) -> None:
    """As people say them."""
    assert size(value) == text
