"""Pickling for one run. It remembers what was pickled by value and which modules the bytes need, for `prepared`.

Rule: any thread may pickle. The memory only grows.
"""

from __future__ import annotations

from typing import Any

from launcher.serialization import pickler

__all__ = ["RunPickler"]


class RunPickler:
    """Pickles for the hosts and the other controllers of one run.

    Attributes:
        by_value: something was pickled by value, so hosts need this Python's minor version.
        values: the names of what was pickled by value.
        modules: the modules that hosts import when they load the bytes.
    """

    def __init__(self, main_module: str | None) -> None:
        self._main_module = main_module
        self.by_value = False
        self.values: tuple[str, ...] = ()
        self.modules: frozenset[str] = frozenset()

    def dumps(self, value: Any) -> bytes:
        """Pickle something for the hosts."""
        dumped = pickler.dumps(value, main_module=self._main_module)
        self.by_value = self.by_value or dumped.by_value
        if dumped.values:
            self.values = tuple(dict.fromkeys([*self.values, *dumped.values]))
        self.modules |= dumped.modules
        return dumped.data

    def dumps_here(self, value: Any) -> bytes:
        """Pickle something that only controllers of the run load."""
        return pickler.dumps(value, main_module=self._main_module).data

    def loads(self, data: bytes) -> Any:
        """Load a pickle that this pickler made, or another one of the same run."""
        return pickler.loads(data, main_module=self._main_module)
