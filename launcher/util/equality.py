"""Whether two values of a user's are equal.

Rule: a user's `__eq__` may return and raise anything. What it does not say clearly is not known.
"""

from __future__ import annotations

from typing import Any

__all__ = ["is_equal"]


def is_equal(one: Any, other: Any) -> bool | None:
    """Return whether two values are equal; None if that cannot be told."""
    try:
        same = one == other
        # Arrays compare element by element.
        return bool(same.all()) if hasattr(same, "all") else bool(same)
    except Exception:  # noqa: BLE001 - a user's __eq__ may raise anything: it cannot be told then
        return None
