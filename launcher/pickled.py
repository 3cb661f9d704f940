"""What a journal's pickles call when another controller of the run loads them; hosts never get these.

Rule: this module and these names stay for good, for journals that were written years ago ask for them (docs/stored.md lists all such
names). A function may be given further arguments with defaults, and never another meaning. `config_with_node` is
defined where it belongs, and has the name of this module.
"""

from __future__ import annotations

from typing import Any

from launcher.config.lazy import config_with_node

__all__ = ["Unpicklable", "config_with_node", "read_unpicklable"]


class Unpicklable:
    """Stands for a config that could not be pickled; read back, neither can this: its job fails as that would have."""

    def __init__(self, why: str, *, is_read: bool = False) -> None:
        self.why = why
        self.is_read = is_read

    def __reduce__(self) -> tuple[Any, ...]:
        if self.is_read:
            raise TypeError(self.why)
        return (read_unpicklable, (self.why,))


def read_unpicklable(why: str) -> Unpicklable:
    """What stands for a config that could not be pickled."""
    return Unpicklable(why, is_read=True)
