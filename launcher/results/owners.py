"""Knows which job a file in an output directory belongs to, if jobs of a run share the directory.

Rule: a file that another job of the run has written is kept. A file from before the run is overwritten, as by a program
that opens it for writing.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from pathlib import Path

__all__ = ["OWN", "Owners", "Ownership", "job_name", "own_folder"]

#: The folder below an output directory that is ours: streams, and in a run's folder the journal.
OWN = ".launcher"


class Owners:
    """Which job wrote what in one folder, as far as is known. It lives as long as one of the jobs is under way."""

    def __init__(self, started: float, *, is_shared: bool, is_fresh: bool) -> None:
        self.guard = threading.Lock()
        self.started = started
        self.is_shared = is_shared
        self._is_fresh = is_fresh
        self._jobs: dict[str, int] = {}
        self._nums: set[int] = set()

    def join(self, num: int) -> None:
        """Add a job that has this folder."""
        self._nums.add(num)
        self.is_shared = self.is_shared or len(self._nums) > 1

    def claim(self, path: str, num: int) -> None:
        """Record that this job writes the file."""
        self._jobs[path] = num

    def is_anothers(self, path: str, num: int, changed: float) -> bool:
        """Whether an existing file with this time of change was written during the run, and not by that job.

        A file from before the run is overwritten, as by a program that opens it for writing. If another controller may
        have written the job's own files, only files in a shared folder are kept.
        """
        owner = self._jobs.get(path)
        if owner is not None:
            return owner != num
        return (self.is_shared or self._is_fresh) and changed >= self.started


class Ownership:
    """Who wrote what in the folders of one run.

    Args:
        started: when the run began, seconds since the epoch.
        has_others: (job, folder) -> whether other jobs of the run write there, too.
    """

    def __init__(self, started: float, has_others: Callable[[int, Path], bool]) -> None:
        self._started = started
        self._has_others = has_others
        self._is_fresh = True
        self._live: weakref.WeakValueDictionary[Path, Owners] = weakref.WeakValueDictionary()
        self._guard = threading.Lock()

    def resume(self, started: float) -> None:
        """Record that another controller began the run at that time.

        It may have written files that are not known here.
        """
        self._is_fresh = False
        self._started = min(started, self._started)

    def of(self, num: int, folder: Path) -> Owners:
        """Return the owners of a job's folder."""
        is_shared = self._has_others(num, folder)
        with self._guard:
            owners = self._live.get(folder)
            if owners is None:
                owners = self._live[folder] = Owners(self._started, is_shared=is_shared, is_fresh=self._is_fresh)
            owners.join(num)
            return owners


def own_folder(output_dir: Path, num: int) -> Path:
    """Return where a job's printed output is: in `.launcher`, or in its own folder there if jobs share the output
    directory.
    """
    shared = output_dir / OWN / job_name(num)
    return shared if shared.is_dir() else output_dir / OWN


def job_name(num: int) -> str:
    """Return the name that a job's files get from its number."""
    return f"job-{num}"
