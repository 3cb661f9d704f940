"""Objects that hold what cannot be pickled."""

from __future__ import annotations


class Holder:
    """A user's object. It is at module level, so that it is pickled by reference."""

    def __init__(self, **fields):
        self.__dict__.update(fields)


class Raises:
    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


class Tidy(Holder):
    def __getstate__(self):
        return {}
