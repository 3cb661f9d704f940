"""The outbox: what waits to be sent to the controller. Short frames go first; long contents go in pieces when there is room.

Rule: a slow or dead controller costs the memory of a few chunks and nothing else, and no job waits for it. The kernel copies the
bytes of long files by itself (`sendfile`).
"""

import os
from collections import deque
from typing import Deque, Iterator, List, Tuple, Union

__all__ = ["OpenFile", "Outbox", "Piece", "Slice"]

_LOW = 1 << 19
#: How many sources are read in turn. The others have not opened anything yet.
_AT_ONCE = 4


class OpenFile:
    """A file that stays open while a part of it waits to be sent.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def size(self) -> int:
        """The current size in bytes."""
        return os.fstat(self.fd).st_size

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class Slice:
    """Some bytes of a file whose digest is sent, too. Bytes that can no longer be read are sent as zeros."""

    def __init__(self, file: OpenFile, offset: int, size: int) -> None:
        self._file = file
        self._offset = offset
        self._size = size

    def __len__(self) -> int:
        return self._size

    def send(self, fd: int) -> int:
        """Write as much as the descriptor takes. Returns how much that was.

        Raises:
            OSError: the connection is gone, or takes nothing now.
        """
        try:
            count = os.sendfile(fd, self._file.fd, self._offset, self._size)
        except BlockingIOError:
            raise
        except OSError:
            count = 0  # the connection, the file, or no support by the file system: the code below shows which
        return count or os.write(fd, self._read())

    def _read(self) -> bytes:
        size = min(self._size, _LOW)
        try:
            return os.pread(self._file.fd, size, self._offset) or bytes(size)
        except OSError:
            # Its length was announced, so something must be sent. The digest will show that it is wrong.
            return bytes(size)

    def behind(self, count: int) -> "Slice":
        """Return the rest of it."""
        return Slice(self._file, self._offset + count, self._size - count)


#: A frame; or its head and its payload, if the payload is long and should not be copied. An empty one is a pause: the source has worked for
#: a moment without making a frame, and goes on at the next turn of the agent.
Piece = Union[bytes, Tuple[bytes, Union[bytes, Slice]]]


class Outbox:
    """Bytes that wait to be written, and sources that provide more when few are left."""

    def __init__(self) -> None:
        self._ready: Deque[Union[memoryview, Slice]] = deque()
        self._size = 0
        self._reading: Deque[Iterator[Piece]] = deque()
        self._waiting: Deque[Iterator[Piece]] = deque()

    def put(self, data: bytes) -> None:
        """Add a small frame. It is sent before anything that the sources still have."""
        self._ready.append(memoryview(data))
        self._size += len(data)

    def add_source(self, source: Iterator[Piece]) -> None:
        """Add a source of long content. Its frames take turns with those of the other sources."""
        self._waiting.append(source)

    @property
    def size(self) -> int:
        """How many bytes wait, not counting those of the sources."""
        return self._size

    def __bool__(self) -> bool:
        return bool(self._ready or self._reading or self._waiting)

    def fill(self) -> None:
        """Take frames from the sources until there is enough to write."""
        while self._size < _LOW and (self._reading or self._waiting):
            while self._waiting and len(self._reading) < _AT_ONCE:
                self._reading.append(self._waiting.popleft())
            source = self._reading.popleft()
            frame = next(source, None)
            if frame is None:
                continue
            if not frame:
                self._reading.append(source)
                return
            for piece in frame if isinstance(frame, tuple) else (frame,):
                self._ready.append(memoryview(piece) if isinstance(piece, bytes) else piece)
                self._size += len(piece)
            # One frame per turn is fair to all sources.
            self._reading.append(source)

    def write_to(self, fd: int) -> None:
        """Write as much as the descriptor takes.

        Raises:
            OSError: the connection is gone (BlockingIOError is not an error here).
        """
        while True:
            self.fill()
            if not self._ready:
                return
            first = self._ready[0]
            try:
                count = first.send(fd) if isinstance(first, Slice) else os.writev(fd, self._batch())
            except BlockingIOError:
                return
            self._size -= count
            while count:
                first = self._ready[0]
                if len(first) <= count:
                    count -= len(first)
                    self._ready.popleft()
                else:
                    self._ready[0] = first.behind(count) if isinstance(first, Slice) else first[count:]
                    count = 0

    def _batch(self) -> List[memoryview]:
        batch: List[memoryview] = []
        size = 0
        for piece in self._ready:
            if isinstance(piece, Slice):
                break
            batch.append(piece)
            size += len(piece)
            if size > (1 << 18) or len(batch) == 256:
                break
        return batch
