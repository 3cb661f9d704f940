"""Files and the disk under them.

Rule: data that must survive a power cut is on the disk, and so is the name of its file. Data that is read back is checked against a hash.
"""

import fcntl
import hashlib
import os
import shutil
from typing import Any, BinaryIO, Callable, Dict, Iterator, NamedTuple, Tuple

__all__ = [
    "Usage",
    "digest_of",
    "files_below",
    "remove_tree",
    "sync_data",
    "sync_fd",
    "sync_file",
    "sync_folder",
    "usage_of",
]

_PIECE = 1 << 20
#: On macOS `fsync` stops at the disk's own cache, and this goes on to the disk.
_FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)
_DATA_SYNC = getattr(os, "fdatasync", os.fsync)


def sync_fd(fd: int) -> None:
    """Sync what was written to a descriptor to the disk.

    Raises:
        OSError: the disk.
    """
    if _FULL_SYNC is not None:
        try:
            fcntl.fcntl(fd, _FULL_SYNC)
            return
        except OSError:
            pass  # this file system does not support it, so `fsync` must do
    os.fsync(fd)


def sync_data(fd: int) -> None:
    """Like `sync_fd`, but without metadata, such as times, that is not needed to read the data.

    Raises:
        OSError: the disk.
    """
    if _FULL_SYNC is not None:
        sync_fd(fd)
    else:
        _DATA_SYNC(fd)


def sync_file(path: str) -> None:
    """Sync a file and its name to the disk.

    Raises:
        OSError: the disk failed. The text names the file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            sync_fd(fd)
        finally:
            os.close(fd)
        sync_folder(path)
    except OSError as error:
        raise OSError(error.errno, "{}: {}".format(path, error.strerror or error)) from error


def sync_folder(path: str) -> None:
    """Sync a folder, so that the name of a file in it is on the disk."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_fd(fd)
    finally:
        os.close(fd)


def digest_of(file: BinaryIO, offset: int, size: int, goes_on: Callable[[], bool] = lambda: True) -> Any:
    """Return the SHA-256 of a part of a file. If the file is shorter, it covers the bytes that exist."""
    digest = hashlib.sha256()
    file.seek(offset)
    while size and goes_on():
        piece = file.read(min(size, _PIECE))
        if not piece:
            break
        digest.update(piece)
        size -= len(piece)
    return digest


def remove_tree(path: str) -> None:
    """Remove a folder of ours with everything in it, even if a job has removed permissions from its folders.

    Raises:
        OSError: something in it cannot be removed. Everything else is gone.
    """
    try:
        shutil.rmtree(path)
        return
    except FileNotFoundError:
        raise
    except OSError:
        _open(path)
    # `os.walk` lists a folder only after this loop has seen its name.
    for folder, names, _ in os.walk(path):
        for name in names:
            _open(os.path.join(folder, name))
    shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):
        shutil.rmtree(path)


def _open(folder: str) -> None:
    """Give its owner permission to read and change it. Links are skipped."""
    if not os.path.islink(folder):
        try:
            os.chmod(folder, 0o700)
        except OSError:
            pass  # it belongs to another user, and removing it will raise an error


class Usage(NamedTuple):
    """What a folder takes on the disk.

    Attributes:
        bytes: of all files. A file that has several names in the folder counts once.
        shared: of those files that also have a name elsewhere.
        files: the number of files.
        changed: the latest change of a file; that of the folder where it has no file.
    """

    bytes: int
    shared: int
    files: int
    changed: float


def files_below(path: str) -> Iterator[os.stat_result]:
    """Look at each file below a folder. What goes away meanwhile is left out."""
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                yield os.lstat(os.path.join(folder, name))
            except OSError:
                continue  # it went away just now


def usage_of(path: str) -> Usage:
    """Look at a folder. What goes away meanwhile is left out.

    Raises:
        OSError: there is no such folder.
    """
    total = alone = files = 0
    changed = 0.0
    #: (device, inode) of a file with several names -> how many of these were seen, how many there are, and its bytes.
    linked: Dict[Tuple[int, int], Tuple[int, int, int]] = {}
    for status in files_below(path):
        files += 1
        changed = max(changed, status.st_mtime)
        size = status.st_blocks * 512
        if status.st_nlink == 1:
            alone += size
            total += size
            continue
        seen, _, _ = linked.get((status.st_dev, status.st_ino), (0, 0, 0))
        linked[status.st_dev, status.st_ino] = (seen + 1, status.st_nlink, size)
    for seen, names_in_all, size in linked.values():
        total += size
        if seen >= names_in_all:
            alone += size
    return Usage(total, total - alone, files, changed or os.lstat(path).st_mtime)
