"""A disk that several machines share: it shows changes up to a minute late, and requests to it are lost or doubled.

Rule: the server has one truth. A machine sees its own changes at once, and those of others when it happens to ask the server, which it does
after `LATE` seconds at the latest. A request may fail undone, fail though it was done, or be sent twice, so that the second one fails.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from typing import Any

from remote_agent.agent.spool.log import Reference
from remote_agent.slurm.shared_disk.shared_files import FileOperations

__all__ = ["LATE", "LateDisk", "Machine"]

LATE = 60.0


class LateDisk:
    """What the server has: folder -> name -> (since when, by which machine, content; None for a folder), and logs as lists of records."""

    def __init__(self, rng: random.Random, faults: float) -> None:
        self.now = 0.0
        self.rng = rng
        self.faults = faults
        self.folders: dict[str, dict[str, tuple[float, Machine, bytes | None]]] = {}
        self.logs: dict[str, list[tuple[float, dict[str, Any]]]] = {}

    def has(self, path: str) -> bool:
        """Whether a file or folder is there in truth."""
        folder, _, name = path.rpartition("/")
        return name in self.folders.get(folder, ())

    def put(self, path: str, by: Machine, content: bytes | None) -> None:
        """Make a name, or replace it."""
        folder, _, name = path.rpartition("/")
        self.folders.setdefault(folder, {})[name] = (self.now, by, content)

    def take(self, path: str) -> bytes | None:
        """Remove a name. Returns its content."""
        folder, _, name = path.rpartition("/")
        return self.folders[folder].pop(name)[2]

    def outcome(self) -> str:
        """What becomes of a request."""
        if self.rng.random() >= self.faults:
            return "done"
        return self.rng.choice(["lost", "done, reported as failed", "done twice"])


class Machine(FileOperations):
    """The disk as one machine sees it."""

    def __init__(self, disk: LateDisk) -> None:
        self.disk = disk
        #: folder -> as of when it is seen.
        self._as_of: dict[str, float] = {}

    def _ask(self, folder: str) -> None:
        seen = self._as_of.get(folder, -LATE)
        if self.disk.now - seen >= LATE or self.disk.rng.random() < 0.2:
            self._as_of[folder] = self.disk.now

    def make_folder(self, path: str) -> None:
        if not self.disk.has(path):
            self.disk.put(path, self, None)

    def names(self, path: str) -> list[str]:
        self._ask(path)
        as_of = self._as_of.get(path, -1.0)
        entries = self.disk.folders.get(path, {})
        return [name for name, (since, by, _) in entries.items() if since <= as_of or by is self]

    def read(self, path: str) -> bytes:
        folder, _, name = path.rpartition("/")
        self._ask(folder)
        since, by, content = self.disk.folders.get(folder, {}).get(name, (0.0, self, None))
        if content is None or not (by is self or since <= self._as_of.get(folder, -1.0)):
            raise FileNotFoundError(errno.ENOENT, "not seen", path)
        return content

    def _request(self, can: bool, refusal: OSError, do: Any) -> None:
        outcome = self.disk.outcome()
        if outcome == "lost":
            raise OSError(errno.EIO, "lost")
        if not can:
            raise refusal
        do()
        if outcome == "done, reported as failed":
            raise OSError(errno.EIO, "done, reported as failed")
        if outcome == "done twice":
            raise refusal

    def create(self, path: str, data: bytes) -> None:
        self._request(
            not self.disk.has(path), FileExistsError(errno.EEXIST, path), lambda: self.disk.put(path, self, data)
        )

    def link(self, path: str, other: str) -> None:
        def do() -> None:
            folder, _, name = path.rpartition("/")
            self.disk.put(other, self, self.disk.folders[folder][name][2])

        self._request(not self.disk.has(other), FileExistsError(errno.EEXIST, other), do)

    def rename(self, path: str, other: str) -> None:
        def do() -> None:
            self.disk.put(other, self, self.disk.take(path))

        self._request(self.disk.has(path), FileNotFoundError(errno.ENOENT, path), do)

    def remove(self, path: str) -> None:
        self._request(self.disk.has(path), FileNotFoundError(errno.ENOENT, path), lambda: self.disk.take(path))

    def reader(self, path: str) -> LateReader:
        """What reads a log, as this machine sees it."""
        return LateReader(self, path)

    def seen_of(self, path: str) -> list[dict[str, Any]]:
        """The records of a log that this machine sees."""
        self._ask(path)
        as_of = self._as_of.get(path, -1.0)
        return [header for since, header in self.disk.logs.get(path, []) if since <= as_of]


class LateReader:
    """Reads a log like `LogReader`."""

    def __init__(self, machine: Machine, path: str) -> None:
        self._machine = machine
        self._path = path
        self._count = 0

    def advance(self) -> Iterator[tuple[dict[str, Any], Reference]]:
        """Yield what was added."""
        for header in self._machine.seen_of(self._path)[self._count :]:
            self._count += 1
            yield header, Reference(self._count, 1, 0)
