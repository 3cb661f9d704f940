"""Numbers of bytes, for people."""

from __future__ import annotations

__all__ = ["size"]


def size(value: float) -> str:
    """A number of bytes."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
