"""Files that jobs write beside the code of their run. They do not come back, so they are named and kept.

Rule: nobody loses one in silence, of the first entries of the tree that a look takes. A file is found by its time of change, which is later than that of the mark that is made when the code is
complete, whatever program or library has written it. A look takes a small part of the agent's time, however large the code is.
"""

import errno
import os
import stat
import time
from collections import deque
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set

from remote_agent.system.private_files import make_private_folder, open_private

__all__ = ["LeftFiles"]

#: Names in a look, and entries of the tree that it takes. The folders nearest to the top come first.
_MAX_NAMED = 3
_MAX_FOUND = 1000
_MAX_LOOKED_AT = 20_000
#: Entries between two pauses.
_PAUSE = 200
#: While jobs run, one part in so many of the time goes into looks.
_RARELY = 50
#: What tools write for themselves: folders, and the ends of files' names.
_CACHES = frozenset({"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".ipynb_checkpoints"})
_OWN_USE = (".pyc", ".lock")


class LeftFiles:
    """What jobs have written into the tree of a run's code.

    Args:
        tree: the tree.
        spool: the run's folder.

    Attributes:
        folder: where they are when the run is over, and nothing else of its spool is there.
    """

    def __init__(self, tree: str, spool: str) -> None:
        self.folder = os.path.join(spool, "left")
        self._tree = tree
        self._spool = spool
        self._aside = spool + ".left"
        self._mark = tree + ".complete"
        self._next_at = 0.0
        self._seen: Set[str] = set()
        self._names: List[str] = []
        self._count = 0

    def begin(self) -> None:
        """The tree is complete. What changes from now on was written by jobs.

        Raises:
            OSError: the disk.
        """
        os.close(open_private(self._mark, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))

    def look(self, *, is_idle: bool, running_since: float = 0.0) -> Iterator[bytes]:
        """Look at the tree, if it is time. Yields pauses.

        A file that a running job may have written may be one that it removes again. So that counts when it is seen twice.

        Args:
            is_idle: no job runs or waits.
            running_since: when the first of the running jobs began, in seconds since the epoch. What changed before is none of theirs.
        """
        if not is_idle and time.monotonic() < self._next_at:
            return
        since = self._since()
        if since is None:
            return
        begun_at = time.monotonic()
        found: List[_Changed] = []
        for one in _changed(self._tree, since):
            if one is None:
                yield b""
            else:
                found.append(one)
                if len(found) >= _MAX_FOUND:
                    break
        settled = [one.name for one in found if is_idle or one.at < running_since * 1e9 or one.name in self._seen]
        self._seen = {one.name for one in found}
        self._names, self._count = settled[:_MAX_NAMED], len(settled)
        now = time.monotonic()
        self._next_at = now + _RARELY * (now - begun_at)

    def told(self) -> Optional[Dict[str, Any]]:
        """What the last look has found, for the controller: how many files in which folder, and the names of some. None for nothing."""
        if not self._count:
            return None
        return {"folder": _as_utf8(self.folder), "count": self._count, "names": [_as_utf8(one) for one in self._names]}

    def set_aside(self) -> None:
        """Move the files out of the spool, which is removed next. No job runs any more.

        Raises:
            OSError: the disk. The spool must stay.
        """
        since = self._since()
        found = [] if since is None else [one.name for one in _changed(self._tree, since) if one is not None]
        if os.path.isdir(self.folder):
            # The run was over before, and was taken up again.
            os.rename(self.folder, self._aside)
        for name in found:
            _move(os.path.join(self._tree, name), os.path.join(self._aside, name))

    def put_back(self) -> None:
        """Make them all that is left of the spool.

        Raises:
            OSError: the disk.
            SpoolError: somebody else has made a folder there meanwhile.
        """
        if os.path.isdir(self._aside):
            make_private_folder(self._spool)
            os.rename(self._aside, self.folder)

    def _since(self) -> Optional[int]:
        """When the tree was complete, by the disk's clock; None if it is not there."""
        try:
            return os.lstat(self._mark).st_ctime_ns
        except FileNotFoundError:
            return None


class _Changed(NamedTuple):
    """A file that has changed: its path below the tree, and when, in nanoseconds by the disk's clock."""

    name: str
    at: int


def _changed(tree: str, since: int) -> Iterator[Optional[_Changed]]:
    """Yield the files that have changed since then; and None for each pause."""
    waiting = deque([""])
    looked_at = 0
    while waiting:
        below = waiting.popleft()
        try:
            with os.scandir(os.path.join(tree, below)) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError:
            continue  # a job has removed it, or has taken the permission to read it away
        for entry in entries:
            looked_at += 1
            if looked_at > _MAX_LOOKED_AT:
                return
            if not looked_at % _PAUSE:
                yield None
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _CACHES:
                    waiting.append(below + entry.name + "/")
            elif not entry.name.endswith(_OWN_USE):
                at = _changed_at(entry)
                if at > since:
                    yield _Changed(below + entry.name, at)


def _changed_at(entry: "os.DirEntry[str]") -> int:
    """When a file or a link has changed. 0 for a socket, a pipe or a device, which nobody wants to keep."""
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return 0  # it was removed just now
    is_kept = stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)
    return status.st_ctime_ns if is_kept else 0


def _move(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise
        # A job has taken the permission to write away from the folder.
        os.chmod(os.path.dirname(source), 0o700)
        os.rename(source, target)


def _as_utf8(path: str) -> str:
    """Return the path as text that can be sent."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
