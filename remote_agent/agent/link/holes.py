"""Finds the holes of a file: ranges that were never written, that read as zeros, and for which the disk has no blocks.

Rule: where the system or the file system knows no holes, a file has none, and all its bytes are sent.
"""

import errno
import os
from typing import Iterator, NamedTuple, Optional

from remote_agent.protocol import wire

__all__ = ["LEAST", "Range", "has_hole", "ranges"]

#: Bytes. A shorter hole is sent as zeros, because a frame of its own would cost more.
LEAST = 1 << 16
_DATA: Optional[int] = getattr(os, "SEEK_DATA", None)
_HOLE: Optional[int] = getattr(os, "SEEK_HOLE", None)


class Range(NamedTuple):
    """A part of a file that is sent in one frame.

    Attributes:
        hole: bytes before it that are a hole, and are not sent.
        offset: where it begins.
        size: how many bytes it has; 0 for the one that begins a file with a hole, and for the one that ends such a file.
    """

    hole: int
    offset: int
    size: int


def has_hole(fd: int, size: int) -> bool:
    """Whether there is a hole within the first `size` bytes."""
    return _next_hole(fd, 0, size) < size


def ranges(fd: int, size: int, skips_holes: bool) -> Iterator[Range]:
    """Yield the ranges of a file in their order. The first one is at byte 0; the last one ends at `size`."""
    done, skips_holes = 0, skips_holes and has_hole(fd, size)
    while done < size:
        start, end = done, min(done + wire.CHUNK, size)
        if skips_holes:
            start = _next_data(fd, done, size)
            if start - done < LEAST:
                start = done
            if start and not done:
                yield Range(0, 0, 0)
            end = _end(fd, start, size)
        yield Range(start - done, start, end - start)
        done = end


def _end(fd: int, start: int, size: int) -> int:
    """Return where the range that begins at `start` ends: at a hole, or because it is long enough."""
    most = min(start + wire.CHUNK, size)
    hole = _next_hole(fd, start, size)
    while hole < most:
        data = _next_data(fd, hole, size)
        if data - hole >= LEAST:
            # A hole is at `start` only if the file has changed since it was looked at.
            return hole if hole > start else most
        hole = _next_hole(fd, data, size)
    return most


def _next_data(fd: int, offset: int, size: int) -> int:
    """Return where the next byte is that is not in a hole; `size` if there is none."""
    if _DATA is None or offset >= size:
        return offset
    try:
        return min(os.lseek(fd, offset, _DATA), size)
    except OSError as error:
        return size if error.errno == errno.ENXIO else offset


def _next_hole(fd: int, offset: int, size: int) -> int:
    """Return where the next hole begins; `size` if there is none."""
    if _HOLE is None or offset >= size:
        return size
    try:
        return min(os.lseek(fd, offset, _HOLE), size)
    except OSError:
        return size
