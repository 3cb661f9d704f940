"""Reading a file that a host or somebody else wrote: what it is and how long it is are not taken on trust.

Rule: only a regular file is read, without waiting for it, and only up to a limit.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["read_regular"]


def read_regular(path: Path, limit: int, offset: int = 0) -> bytes:
    """At most `limit` bytes of a regular file, from `offset` on.

    Raises:
        FileNotFoundError: there is none.
        OSError: it is no regular file (a pipe would keep us waiting, a device would never end), or cannot be read.
    """
    # A pipe that nobody writes into would hold the open itself.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(None, "it is no regular file", str(path))
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
