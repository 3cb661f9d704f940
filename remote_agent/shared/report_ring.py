"""The files by which a job tells its agent what it reports, and by which the agent asks it to stop.

Rule: the job writes and the agent reads, and neither waits for the other. What was written is there for the agent even if the job is killed
in the next moment, and for a later agent, too. Each process of a job writes a file of its own, a ring: the last records are always there,
and what nobody has read in time is overwritten. A record that is not whole counts as not there.

    folder    <spool>/reports/<attempt>/
    <name>    a ring: !4sI mark b"RLRR", version, padding up to a record's size; then records
    record    !QHI number (from 1 on), length, crc32 of both and the content; then the content
    stop      an empty file: the job was asked to stop
    stopped   an empty file: it has been told so, in one of its processes
"""

import os
import struct
import zlib
from typing import List, Tuple

__all__ = ["MAX_RECORD", "STOP", "STOPPED", "VERSION", "RingReader", "RingWriter", "has_mark", "is_ring", "mark"]

VERSION = 1
_MARK = b"RLRR"
_FILE_HEAD = struct.Struct("!4sI")
_HEAD = struct.Struct("!QHI")
#: Bytes of a record with its head, and how many a ring has.
_SIZE = 2048
_COUNT = 128
#: Bytes of a record's content.
MAX_RECORD = _SIZE - _HEAD.size
STOP, STOPPED = "stop", "stopped"


def mark(folder: str, name: str) -> None:
    """Make one of the empty files, and its folder, unless they are there.

    Raises:
        OSError: it cannot be made.
    """
    os.makedirs(folder, 0o700, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    os.close(os.open(os.path.join(folder, name), flags, 0o600))


def has_mark(folder: str, name: str) -> bool:
    """Whether it is there."""
    return os.access(os.path.join(folder, name), os.F_OK)


def is_ring(name: str) -> bool:
    """Whether a file of the folder is a ring."""
    return name not in (STOP, STOPPED)


def _checksum(number: int, data: bytes) -> int:
    return zlib.crc32(data, number & 0xFFFFFFFF)


class RingWriter:
    """Writes the ring of this process. Not thread-safe.

    Attributes:
        fd: the caller may replace it by another one for the same file.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, 0o700, exist_ok=True)
        name = "{}-{}".format(os.getpid(), os.urandom(4).hex())
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self.fd = os.open(os.path.join(folder, name), flags, 0o600)
        self._inode = _inode(self.fd)
        self._number = 0
        os.pwrite(self.fd, _FILE_HEAD.pack(_MARK, VERSION), 0)

    @property
    def is_whole(self) -> bool:
        """Whether the descriptor still is that of the ring. The application may have closed it."""
        try:
            return _inode(self.fd) == self._inode
        except OSError:
            return False

    def write(self, data: bytes) -> None:
        """Write a record of at most MAX_RECORD bytes.

        Raises:
            OSError: the disk.
        """
        number = self._number + 1
        record = _HEAD.pack(number, len(data), _checksum(number, data)) + data
        os.pwrite(self.fd, record, _offset(number))
        self._number = number

    def close(self) -> None:
        """Close it, if the application has not."""
        if self.is_whole:
            os.close(self.fd)


def _inode(fd: int) -> Tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _offset(number: int) -> int:
    return _SIZE * (1 + (number - 1) % _COUNT)


class RingReader:
    """Reads one ring.

    Attributes:
        number: that of the last record that was read.
    """

    def __init__(self, path: str, number: int = 0) -> None:
        self.path = path
        self.number = number

    def read(self) -> List[Tuple[int, bytes]]:
        """Return the records that are new, each with its number, in order.

        Raises:
            OSError: it cannot be read.
        """
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            head = os.pread(fd, _HEAD.size, _offset(self.number + 1))
            if len(head) < _HEAD.size or _HEAD.unpack(head)[0] <= self.number:
                return []
            content = os.pread(fd, _SIZE * (1 + _COUNT), 0)
        finally:
            os.close(fd)
        if content[: _FILE_HEAD.size] != _FILE_HEAD.pack(_MARK, VERSION):
            return []
        found = sorted(self._records(content))
        if found:
            self.number = found[-1][0]
        return found

    def _records(self, content: bytes) -> List[Tuple[int, bytes]]:
        found = []
        for start in range(_SIZE, len(content), _SIZE):
            head = content[start : start + _HEAD.size]
            if len(head) < _HEAD.size:
                break
            number, length, checksum = _HEAD.unpack(head)
            data = content[start + _HEAD.size : start + _HEAD.size + min(length, MAX_RECORD)]
            is_whole = len(data) == length and _checksum(number, data) == checksum and _offset(number) == start
            if number > self.number and is_whole:
                found.append((number, data))
        return found
