"""Writes what a host sent, and tells errors of one file from errors of the whole disk.

Rule: a file that cannot be written is refused, and costs nothing else. A lack of disk space or descriptors may pass, so
it is raised.
"""

from __future__ import annotations

import contextlib
import errno
import os

__all__ = ["OURS", "RefusedFile", "UnusableFolder", "lengthen", "refusal_of", "set_time", "write_all"]

#: Errors of the disk or of this process. They are not the file's fault, and may pass.
OURS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
)


class RefusedFile(Exception):
    """A file was not written. The text says why."""


class UnusableFolder(Exception):
    """The output directory itself can never be made, for example because its name is too long or a file is in its
    place.
    """


def set_time(fd: int, mtime: int | None) -> None:
    """Set a file's time of modification to that on its host. It does not matter if the disk cannot store it."""
    if mtime is not None:
        with contextlib.suppress(OSError, OverflowError):
            os.utime(fd, ns=(mtime, mtime))


def refusal_of(error: OSError) -> RefusedFile:
    """Return an error of one file as its refusal. Raise an error that may pass."""
    if error.errno in OURS:
        raise error
    return RefusedFile(error.strerror or "cannot be written")


def lengthen(fd: int, size: int) -> None:
    """Make a file as long as this, with a hole at its end.

    Raises:
        RefusedFile: the file would be larger than files may be here.
        OSError: the disk is full or gone.
    """
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        raise refusal_of(error) from None


def write_all(fd: int, data: bytes | memoryview, offset: int | None = None) -> None:
    """Write all bytes, at the given place or at the current position.

    Raises:
        RefusedFile: the file would be larger than files may be here.
        OSError: the disk is full or gone.
    """
    view = memoryview(data)
    while view:
        try:
            count = os.write(fd, view) if offset is None else os.pwrite(fd, view, offset)
        except OSError as error:
            raise refusal_of(error) from None
        offset = None if offset is None else offset + count
        view = view[count:]
