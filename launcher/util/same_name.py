"""Names that a disk may treat as the same: on a Mac's disk, `Model` and `model`, and an é of one character and of two.

Rule: this only says which names may be the same. The disk decides whether they are.
"""

from __future__ import annotations

import unicodedata

__all__ = ["folded"]


def folded(path: str) -> str:
    """Return a text that is equal for all paths that may be the same, whatever the case and form of their letters."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
