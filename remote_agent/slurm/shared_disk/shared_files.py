"""Files by which processes on different machines agree: whole or not there, and the first one wins.

Rule: nothing here needs a lock or a socket. A shared disk may show a change to another machine up to a minute late, and may report a failure
of what has succeeded, because a request was sent twice. So a name is given by `link`, which only one can do, and after an error the content
under the name decides. A name that is awaited is found by listing its folder: asking for it would make this machine remember that it is not
there. Whoever reads a file sees from its checksum whether it is whole.

A file here: `!4sIQ` mark b"RLSF", crc32 of the content, its length; then the content.
"""

import itertools
import os
import struct
import zlib
from typing import Iterator, List, Optional

from remote_agent.shared.disk import sync_fd, sync_folder
from remote_agent.system.private_files import make_private_folder, open_private

__all__ = ["FileOperations", "SharedFiles", "seal", "unseal"]

_MARK = b"RLSF"
_HEAD = struct.Struct("!4sIQ")


class FileOperations:
    """What is done with the disk. All raise OSError. `path` is absolute."""

    def make_folder(self, path: str) -> None:
        """Make a private folder, or use the one that is there."""
        make_private_folder(path)

    def names(self, path: str) -> List[str]:
        """The names in a folder."""
        return os.listdir(path)

    def read(self, path: str) -> bytes:
        """All bytes of a file, as this machine sees them. The file is opened anew, so that they are checked against the server."""
        with os.fdopen(open_private(path, os.O_RDONLY), "rb") as file:
            return file.read()

    def create(self, path: str, data: bytes) -> None:
        """Write a new file, and bring it to the disk."""
        with os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(data)
            file.flush()
            sync_fd(file.fileno())

    def link(self, path: str, other: str) -> None:
        """Give a file another name, which must be free, and bring that to the disk."""
        os.link(path, other)
        sync_folder(other)

    def rename(self, path: str, other: str) -> None:
        """Give a file another name, also one that is taken, and bring that to the disk."""
        os.rename(path, other)
        sync_folder(other)

    def remove(self, path: str) -> None:
        """Remove a file."""
        os.unlink(path)


class SharedFiles:
    """Files in one folder of a shared disk. Paths are relative to it.

    Args:
        writer: names this process among all that write here.
    """

    def __init__(self, root: str, writer: str, operations: Optional[FileOperations] = None) -> None:
        self.root = root
        self.writer = writer
        self._do = operations or FileOperations()
        self._numbers: Iterator[int] = itertools.count()

    def path(self, *parts: str) -> str:
        """The absolute path of a file."""
        return os.path.join(self.root, *parts)

    def make_folder(self, *parts: str) -> str:
        """Make a folder, or use the one that is there. Returns its absolute path."""
        folder = self.path(*parts)
        self._do.make_folder(folder)
        return folder

    def names(self, *parts: str) -> List[str]:
        """The names in a folder, as this machine sees it; none if there is no such folder yet. Files that are being written do not count."""
        try:
            return [name for name in self._do.names(self.path(*parts)) if not name.startswith(".")]
        except FileNotFoundError:
            return []

    def read(self, *parts: str) -> Optional[bytes]:
        """The content of a file; None if it is not there, or not whole, as far as this machine sees."""
        try:
            return unseal(self._do.read(self.path(*parts)))
        except FileNotFoundError:
            return None

    def offer(self, data: bytes, *parts: str) -> bool:
        """Make a file, unless somebody has made it. Returns whether its content is ours.

        Raises:
            OSError: it is not known whether it was made. The same call may be made again.
        """
        fresh = self._fresh(data, *parts[:-1])
        try:
            return self.claim(fresh, data, *parts)
        finally:
            self._discard(fresh)

    def claim(self, source: str, data: bytes, *parts: str) -> bool:
        """Give a name to the file `source`, whose content is `data`, unless the name is taken. Returns whether its content is ours.

        Raises:
            OSError: it is not known. The same call may be made again, and must be before the claim is thought of as failed.
        """
        try:
            self._do.link(source, self.path(*parts))
        except OSError:
            found = self.read(*parts)
            if found is None:
                raise
            return found == data
        return True

    def write(self, data: bytes, *parts: str) -> None:
        """Make a file, or replace the one that this process has made.

        Raises:
            OSError: it is not known whether it was made.
        """
        fresh = self._fresh(data, *parts[:-1])
        try:
            self._do.rename(fresh, self.path(*parts))
        except OSError:
            if self.read(*parts) != data:
                self._discard(fresh)
                raise

    def keep(self, data: bytes, *parts: str) -> str:
        """Make a file for `claim`. Returns its absolute path."""
        path = self.path(*parts)
        self._do.create(path, seal(data))
        return path

    def remove(self, *parts: str) -> None:
        """Remove a file, if it is there."""
        self._discard(self.path(*parts))

    def _fresh(self, data: bytes, *folder: str) -> str:
        path = self.path(*folder, ".{}.{}".format(self.writer, next(self._numbers)))
        self._do.create(path, seal(data))
        return path

    def _discard(self, path: str) -> None:
        try:
            self._do.remove(path)
        except OSError:
            pass  # it is hidden, and goes with the folder


def seal(data: bytes) -> bytes:
    """Return the content of a file with what shows that it is whole."""
    return _HEAD.pack(_MARK, zlib.crc32(data), len(data)) + data


def unseal(data: bytes) -> Optional[bytes]:
    """Return what `seal` got; None if some of it is missing."""
    if len(data) < _HEAD.size:
        return None
    mark, crc, length = _HEAD.unpack(data[: _HEAD.size])
    content = data[_HEAD.size :]
    return content if mark == _MARK and len(content) == length and zlib.crc32(content) == crc else None
