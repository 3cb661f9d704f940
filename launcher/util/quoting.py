"""What somebody wrote, as a message shows it: its `repr`, never longer than a few lines.

Rule: the cost is bounded, too. What a few hundred bytes of YAML stand for can be gigabytes when it is written out.
"""

from __future__ import annotations

import reprlib

__all__ = ["shown", "shown_path"]

_MAX = 300


class _Repr(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = 6
        self.maxstring = self.maxother = 160
        self.maxlong = 60

    def repr_int(self, x: int, level: int) -> str:
        # Python itself refuses to write out what has more digits than a few thousand.
        return super().repr_int(x, level) if x.bit_length() < 10_000 else f"<a number of {x.bit_length()} bits>"


_REPR = _Repr()


def shown(value: object) -> str:
    """The value's `repr`, with `...` for what is too long, too deep or too much."""
    text = _REPR.repr(value)
    return text if len(text) <= _MAX else text[: _MAX - 3] + "..."


def shown_path(path: str) -> str:
    """A file's path, with `...` in the middle of one that is too long: what it begins with, and its name, tell which it is."""
    return path if len(path) <= _MAX else f"{path[: _MAX // 2]}...{path[-_MAX // 2 :]}"
