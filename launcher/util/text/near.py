"""The names that are like a word that nobody knows: for `did you mean`."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["names_like"]


def names_like(word: str, names: Iterable[str], most: int = 1) -> list[str]:
    """Return so many names that are most like the word, the best first; none if none is like it."""
    import difflib  # only a refusal needs it

    return difflib.get_close_matches(word, list(names), most)
