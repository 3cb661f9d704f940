"""Names that a disk may take for one: on a Mac's, `Model` and `model` are, and so are an é of one character and of two.

Rule: it says what may be one name. Whether it is one is asked of the disk.
"""

from __future__ import annotations

import unicodedata

__all__ = ["folded"]


def folded(path: str) -> str:
    """The same for all paths that may be one, whatever case and form their letters have."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
