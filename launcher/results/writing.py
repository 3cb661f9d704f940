"""Writing what a host sent: what keeps one file from being written, and what keeps all of them.

Rule: a file that cannot be written is refused, and costs nothing else; what the disk or this process lacks may pass, and is raised.
"""

from __future__ import annotations

import contextlib
import errno
import os

__all__ = ["OURS", "RefusedFile", "UnusableFolder", "refusal_of", "set_time", "write_all"]

#: Errors of the disk or of this process, which are not the file's fault and may pass.
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
    """A file was not written; the text says why."""


class UnusableFolder(Exception):
    """The output directory itself cannot be made, now or later: its name is too long, a file is in its place."""


def set_time(fd: int, mtime: int | None) -> None:
    """When it was modified on its host, as far as a disk can keep that; of no consequence where it cannot."""
    if mtime is not None:
        with contextlib.suppress(OSError, OverflowError):
            os.utime(fd, ns=(mtime, mtime))


def refusal_of(error: OSError) -> RefusedFile:
    """What keeps one file from being written, as its refusal; what may pass is raised as it is."""
    if error.errno in OURS:
        raise error
    return RefusedFile(error.strerror or "cannot be written")


def write_all(fd: int, data: bytes | memoryview, offset: int | None = None) -> None:
    """Write it all, at its place or where the file stands.

    Raises:
        RefusedFile: never to be written: the file would be larger than files may be here.
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
