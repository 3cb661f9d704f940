"""The GPUs of a run on this host, and which of them are free.

Rule: no GPU is given to two jobs.
"""

from typing import List, Optional

__all__ = ["Gpus"]


class Gpus:
    """GPUs by UUID, given out in their order."""

    def __init__(self, gpus: List[str]) -> None:
        self._all = list(gpus)
        self._free = list(gpus)

    @property
    def count(self) -> int:
        """How many there are, free or not."""
        return len(self._all)

    def take(self, count: int) -> Optional[List[str]]:
        """Take as many GPUs for a job. Returns None if they are not free now."""
        if count > len(self._free):
            return None
        taken, self._free = self._free[:count], self._free[count:]
        return taken

    def release(self, gpus: List[str]) -> None:
        """Give back the GPUs of a job that has ended."""
        free = {*self._free, *gpus}
        self._free = [gpu for gpu in self._all if gpu in free]

    def hold(self, gpus: List[str]) -> None:
        """Count GPUs as taken that a job of an earlier agent has."""
        self._free = [gpu for gpu in self._free if gpu not in gpus]
