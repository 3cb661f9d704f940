"""`.launcher/synced`: the list of the files of an output directory that came while its job ran.

Rule: a file is listed before it gets its name, so another controller can tell which they are. A line that is not whole counts as none.
"""

from __future__ import annotations

import contextlib
import json
import os

from launcher.results.names import check_path
from launcher.results.owners import OWN
from launcher.results.tree import FolderTree
from launcher.results.writing import RefusedFile, refusal_of, write_all

__all__ = ["SyncedList"]

_VERSION = 1
_NAME = "synced"
#: A list may have so many lines for each file before it is written anew.
_LINES = 4
#: How many bytes of a list are read.
_MAX_LIST = 256 << 20
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class SyncedList:
    """The list, and what it says. For one thread at a time.

    Attributes:
        folders: those that were made for the files.
    """

    def __init__(self, tree: FolderTree) -> None:
        self._tree = tree
        self.folders: set[str] = set()
        self._inodes: dict[str, set[int]] | None = None
        self._lines = 0
        self._fd: int | None = None

    @property
    def inodes(self) -> dict[str, set[int]]:
        """Inodes by path that each had. Only the last one counts, and one that was listed and never got the name."""
        if self._inodes is None:
            self._inodes = {}
            self._read()
        return self._inodes

    @property
    def is_there(self) -> bool:
        """Whether anything was listed."""
        return bool(self.inodes or self._lines)

    def __len__(self) -> int:
        """How many files and folders it has."""
        return len(self.inodes) + len(self.folders)

    def add_folder(self, path: str) -> None:
        """List a folder that is about to be made."""
        self.folders.add(path)
        self._write({"folder": path})

    def add(self, path: str, inode: int, now: int | None) -> None:
        """List a file that is about to get its name. `now`: the inode that has the name, if it is one of these."""
        self.inodes[path] = {inode} if now is None else {inode, now}
        if self._lines > _LINES * len(self) + 100:
            self._rewrite()
        else:
            self._write({"path": path, "inode": inode})

    def remove(self) -> None:
        """Remove the list, and forget what it said."""
        was_there = self.is_there
        self.close()
        if was_there:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_NAME, dir_fd=self._tree.folder(OWN))
        self._inodes, self.folders, self._lines = {}, set(), 0

    def close(self) -> None:
        """Close its descriptor. It is opened again when something is listed."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _read(self) -> None:
        """Read the list that an earlier attempt, link or controller left."""
        data = self._tree.read_own(_NAME, _MAX_LIST)
        for line in data.splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                self._take(json.loads(line))

    def _take(self, line: object) -> None:
        if not isinstance(line, dict):
            return
        self._lines += 1
        path, inode, folder = line.get("path"), line.get("inode"), line.get("folder")
        with contextlib.suppress(RefusedFile):
            if isinstance(folder, str):
                check_path(folder)
                self.folders.add(folder)
            if isinstance(path, str) and type(inode) is int:
                check_path(path)
                self.inodes.setdefault(path, set()).add(inode)

    def _rewrite(self) -> None:
        self.close()
        lines: list[dict[str, object]] = [{"folder": folder} for folder in sorted(self.folders)]
        lines += [{"path": path, "inode": inode} for path, inodes in self.inodes.items() for inode in sorted(inodes)]
        own, name = self._tree.folder(OWN), f"{_NAME}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=own)
        fd = os.open(name, _NEW, 0o666, dir_fd=own)
        try:
            write_all(fd, b"".join(_line(one) for one in [{"version": _VERSION}, *lines]))
        finally:
            os.close(fd)
        os.rename(name, _NAME, src_dir_fd=own, dst_dir_fd=own)
        self._lines = len(lines)

    def _write(self, line: dict[str, object]) -> None:
        if self._fd is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                self._fd = os.open(_NAME, flags, 0o666, dir_fd=self._tree.folder(OWN))
            except OSError as error:
                raise refusal_of(error) from None
            if os.fstat(self._fd).st_size == 0:
                write_all(self._fd, _line({"version": _VERSION}))
        self._lines += 1
        write_all(self._fd, _line(line))


def _line(entry: object) -> bytes:
    # It begins with a newline, so a line that was cut off spoils no other one.
    return b"\n" + json.dumps(entry).encode("ascii") + b"\n"
