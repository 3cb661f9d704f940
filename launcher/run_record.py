"""A former place, kept for pickles that earlier versions wrote (docs/stored.md); nothing here imports it."""

from launcher.pickled import read_unpicklable as _read_unpicklable

__all__ = ["_read_unpicklable"]
