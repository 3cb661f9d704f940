"""A user's value in a message: its `repr`, never longer than a few lines.

Rule: making that text never takes long either. A few hundred bytes of YAML, with aliases, can stand for gigabytes of text.
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
        # Python refuses to write a number of more than a few thousand digits.
        return super().repr_int(x, level) if x.bit_length() < 10_000 else f"<a number of {x.bit_length()} bits>"


_REPR = _Repr()


def shown(value: object) -> str:
    """The value's `repr`, with `...` in place of what makes it too long."""
    text = _REPR.repr(value)
    return text if len(text) <= _MAX else text[: _MAX - 3] + "..."


def shown_path(path: str) -> str:
    """A file's path. If it is too long, `...` replaces its middle, so that its beginning and the file's name can be read."""
    return path if len(path) <= _MAX else f"{path[: _MAX // 2]}...{path[-_MAX // 2 :]}"
