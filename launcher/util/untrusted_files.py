"""Reading a file that a host or somebody else wrote: neither its kind nor its length is trusted.

Rule: only a regular file is read, only up to a limit, and opening it never blocks.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["read_regular"]


def read_regular(path: Path, limit: int, offset: int = 0) -> bytes:
    """At most `limit` bytes of a regular file, from `offset` on.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is not a regular file (a pipe would block, a device might never end), or cannot be read.
    """
    # Without O_NONBLOCK, opening a pipe would block until somebody writes into it.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(None, "it is not a regular file", str(path))
        os.lseek(fd, offset, os.SEEK_SET)
        pieces = []
        while limit > 0:
            piece = os.read(fd, min(limit, 1 << 20))
            if not piece:
                break
            pieces.append(piece)
            limit -= len(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)
