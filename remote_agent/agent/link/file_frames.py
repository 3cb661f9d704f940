"""Turns files into frames: many small files into one frame, a large file into several.

Rule: the copy of a file shows it as it was at one moment. A file that changes while it is read is read again. If it changes every
time, that is reported. Of a file whose first bytes the controller holds already, only the rest is sent. These bytes are
compared here, by their hash, in the same reading. Holes of a large file are not sent (`holes`), if the controller can leave them out.
"""

import hashlib
import json
import os
import stat
from typing import Any, Dict, Generator, Iterator, List

from remote_agent.agent.link.holes import has_hole, ranges
from remote_agent.agent.link.outbox import Piece
from remote_agent.agent.link.output_tree import MAX_NAMES, Refusals
from remote_agent.protocol import wire
from remote_agent.protocol.messages import Chunk, Rest
from remote_agent.protocol.specs.held import HeldFile

__all__ = ["FileFrames"]

#: Files up to this size share a frame with others.
_SMALL = 1 << 16
#: How many bytes of a file are compared at a time.
_COMPARED = 1 << 20
#: How often a file is read if it changes each time.
_TRIES = 3


class _Small:
    """Small files that share a frame."""

    def __init__(self, attempt_id: str) -> None:
        self._attempt_id = attempt_id
        self._clear()

    def _clear(self) -> None:
        self.items: List[List[Any]] = []
        self._data: List[bytes] = []
        self._size = self._names = 0

    def fits(self, relative: str, data: bytes) -> bool:
        """Whether the frame has room for this file."""
        names = self._names + len(json.dumps(relative)) + 60
        return not self.items or (self._size + len(data) <= wire.CHUNK and names < MAX_NAMES and len(self.items) < 500)

    def add(self, relative: str, watched: "_WatchedFile", data: bytes) -> None:
        """Add a file."""
        self.items.append([relative, watched.mode, len(data), watched.mtime])
        self._data.append(data)
        self._size += len(data)
        self._names += len(json.dumps(relative)) + 60

    def frame(self) -> bytes:
        """Return the frame with all files so far, and begin a new one."""
        frame = wire.encode({"t": "files", "attempt": self._attempt_id, "items": self.items}, b"".join(self._data))
        self._clear()
        return frame


class _WatchedFile:
    """An open file that is watched for changes.

    Its modification time is set back by a nanosecond while it is read, so that any write changes it. Some file systems count time in
    ticks of several milliseconds, and two writes within one tick get the same time. Most files are younger than a tick when their
    job ends.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._first = os.fstat(fd)
        self._is_marked = self._set(self._first.st_mtime_ns - 1)
        now = os.fstat(fd)
        self.mode = stat.S_IMODE(now.st_mode)
        self.size = now.st_size
        self.mtime = self._first.st_mtime_ns
        self._mark = (now.st_size, now.st_mtime_ns)

    def _set(self, mtime: int) -> bool:
        try:
            os.utime(self._fd, ns=(self._first.st_atime_ns, mtime))
        except OSError:
            return False  # another user's file, or a read-only disk: its present time must do
        return True

    @property
    def is_same(self) -> bool:
        """Whether nobody has written to the file since."""
        now = os.fstat(self._fd)
        return (now.st_size, now.st_mtime_ns) == self._mark

    def restore_time(self) -> None:
        """Set the file's original modification time again, if nobody has written to it."""
        if self._is_marked and self.is_same:
            self._set(self.mtime)


class FileFrames:
    """Makes frames of files, and keeps track of what was sent and which copies may be inconsistent."""

    def __init__(
        self, attempt_id: str, refused: Refusals, held: Dict[str, HeldFile], skips_holes: bool = False
    ) -> None:
        self._held = dict(held)
        self._skips_holes = skips_holes
        self._attempt_id = attempt_id
        self._small = _Small(attempt_id)
        self._refused = refused
        self.noted = Refusals(MAX_NAMES // 2)
        self.count = 0
        self.total = 0

    def frames(self, relative: str, path: str) -> Iterator[Piece]:
        """Yield the frames that one more file makes complete. A small file may wait for others."""
        self.count += 1
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self._refused.add(relative, error)
            return
        with os.fdopen(fd, "rb", buffering=0):
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    self._refused.add(relative, "not a regular file")
                    return
                for left in range(_TRIES - 1, -1, -1):
                    watched = _WatchedFile(fd)
                    frames = self._small_file if watched.size <= _SMALL else self._large_file
                    # Once. A file that changes after that is sent as a whole.
                    held = self._held.pop(relative, None)
                    if self._skips_holes and watched.size > _SMALL and has_hole(fd, watched.size):
                        held = None  # the whole file without its holes is less than its rest with them
                    is_rest = held is not None and (yield from _is_held(fd, watched, held))
                    if held is not None and is_rest:
                        yield from self._rest_of_file(relative, fd, watched, held.size)
                    else:
                        yield from frames(relative, fd, watched, is_last=not left)
                    if watched.is_same:
                        break
                else:
                    self.noted.add(relative, "it changed each time it was read, so the copy may be inconsistent")
                self.total += watched.size
                watched.restore_time()
            except OSError as error:
                self._refused.add(relative, error)

    def _small_file(self, relative: str, fd: int, watched: _WatchedFile, is_last: bool) -> Iterator[Piece]:
        data = _read(fd, watched.size, 0)
        if not is_last and not watched.is_same:
            return
        if not self._small.fits(relative, data):
            yield self._small.frame()
        self._small.add(relative, watched, data)

    def _large_file(self, relative: str, fd: int, watched: _WatchedFile, is_last: bool) -> Iterator[Piece]:
        """Yield a large file in pieces. They are read here, and not by the kernel, so that a change is noticed: there is no digest.

        If the file has changed, its last piece is not sent, so the receiver does not store it.
        """
        header: Chunk = {
            "t": "chunk",
            "attempt": self._attempt_id,
            "kind": "file",
            "path": relative,
            "mode": watched.mode,
            "size": watched.size,
            "mtime": watched.mtime,
            "offset": 0,
            "hole": 0,
            "parts": None,
        }
        for hole, offset, size in ranges(fd, watched.size, self._skips_holes):
            data = _read(fd, size, offset) if size else b""
            if not is_last and not watched.is_same:
                return
            if len(data) < size:
                raise OSError(0, "it became shorter each time it was sent")
            header["offset"], header["hole"] = offset, hole
            yield wire.encode_head(header, len(data)), data

    def _rest_of_file(self, relative: str, fd: int, watched: _WatchedFile, base: int) -> Iterator[Piece]:
        """Yield what a file has beyond the bytes that the controller holds; one empty part if that is nothing.

        If the file has changed, its last piece is not sent.
        """
        header: Rest = {
            "t": "rest",
            "attempt": self._attempt_id,
            "path": relative,
            "mtime": watched.mtime,
            "size": watched.size,
            "base": base,
            "offset": base,
        }
        offset = base
        while True:
            data = _read(fd, min(wire.CHUNK, watched.size - offset), offset)
            if not watched.is_same:
                return
            header["offset"] = offset
            yield wire.encode_head(header, len(data)), data
            offset += len(data)
            if offset == watched.size:
                return

    def rest(self) -> Iterator[Piece]:
        """Yield the small files that still wait."""
        if self._small.items:
            yield self._small.frame()


def _is_held(fd: int, watched: _WatchedFile, held: HeldFile) -> Generator[Piece, None, bool]:
    """Return whether a file begins with the bytes that the controller holds. Yields pauses, because it may be long."""
    if held.size > watched.size or held.is_executable != bool(watched.mode & stat.S_IXUSR):
        return False
    digest, offset = hashlib.sha256(), 0
    while offset < held.size:
        data = _read(fd, min(_COMPARED, held.size - offset), offset)
        if not data:
            return False
        digest.update(data)
        offset += len(data)
        if offset < held.size:
            yield b""
    return digest.hexdigest() == held.sha256


def _read(fd: int, size: int, offset: int) -> bytes:
    """Read this many bytes, or fewer if the file is shorter."""
    data = os.pread(fd, size, offset)
    while data and len(data) < size:
        more = os.pread(fd, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
