"""Pickling for one run. It remembers what was pickled by value and which modules the bytes need, for `prepared`, and how the task was that all jobs share.

Rule: any thread may pickle. The memory only grows.
"""

from __future__ import annotations

import hashlib
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
        self._shared_task = b""

    def dumps(self, value: Any) -> bytes:
        """Pickle something for the hosts."""
        dumped = pickler.dumps(value, main_module=self._main_module)
        self.by_value = self.by_value or dumped.by_value
        if dumped.values:
            self.values = tuple(dict.fromkeys([*self.values, *dumped.values]))
        self.modules |= dumped.modules
        return dumped.data

    def share(self, task: Any) -> None:
        """Remember the task that all jobs share as it is now, when it is pickled for them."""
        self._shared_task = self._digest(task)

    def is_shared(self, task: Any) -> bool:
        """Whether what all jobs share has this task as it is now. What it uses may have changed since: a function of a notebook, an attribute."""
        try:
            return self._digest(task) == self._shared_task
        except Exception:  # noqa: BLE001 - it cannot be pickled any more; its job is pickled with it, and says so
            return False

    def _digest(self, task: Any) -> bytes:
        return hashlib.sha256(self.dumps(task)).digest()

    def dumps_here(self, value: Any) -> bytes:
        """Pickle something that only controllers of the run load."""
        return pickler.dumps(value, main_module=self._main_module).data

    def loads(self, data: bytes) -> Any:
        """Load a pickle that this pickler made, or another one of the same run."""
        return pickler.loads(data, main_module=self._main_module)
