"""Numbers of jobs, for people."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["ranges"]

#: How many ranges are named.
_MAX_NAMED = 20


def ranges(nums: Iterable[int]) -> str:
    """Return `0-6, 8` for these numbers. If there are very many ranges, the last are only counted."""
    found: list[list[int]] = []
    for num in sorted(nums):
        if found and num == found[-1][1] + 1:
            found[-1][1] = num
        else:
            found.append([num, num])
    told = [str(first) if first == last else f"{first}-{last}" for first, last in found[:_MAX_NAMED]]
    left = sum(last - first + 1 for first, last in found[_MAX_NAMED:])
    return ", ".join(told) + (f" and {left:,} more" if left else "")
