"""A TCP relay that breaks on demand: it cuts its links, or alters a byte that it carries.

Rule: it breaks only when it is told to, never after a time. After that, data passes again.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CuttingRelay"]

_CHUNK = 1 << 16


class CuttingRelay:
    """Listens on `port` of 127.0.0.1, and passes everything on to another port there. A context manager.

    Attributes:
        connections: how many were accepted.
        refused: how many of the next ones end at once, as with an sshd that sheds load.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.refused = 0
        self._guard = threading.Lock()
        self._links: list[tuple[socket.socket, socket.socket]] = []
        self._cuts: list[int] = []
        self._budget: int | None = None
        self._alters = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="relay", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    # -- breaking ------------------------------------------------------------------------------------------------

    def cut(self, *, with_reset: bool = False) -> None:
        """End every open link, like a host that ends it or, with a reset, like a middlebox that forgot it."""
        with self._guard:
            links, self._links = self._links, []
        for pair in links:
            _end(pair, with_reset=with_reset)

    def cut_new_after(self, *sizes: int) -> None:
        """End each of the next links after this many bytes from the host."""
        self._cuts += sizes

    def cut_after_sending(self, size: int) -> None:
        """End the open link after this many more bytes to the host."""
        self._budget = size

    def alter(self) -> None:
        """Alter one bit of the next data from the host."""
        self._alters = True

    # -- carrying ------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.refused:
                self.refused -= 1
                near.sendall(b"Exceeded MaxStartups\r\n")
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            pair = (near, far)
            with self._guard:
                self._links.append(pair)
                limit = self._cuts.pop(0) if self._cuts else None
            for work, more in ((self._to_host, ()), (self._from_host, (limit,))):
                threading.Thread(target=work, args=(pair, *more), daemon=True).start()

    def _to_host(self, pair: tuple[socket.socket, socket.socket]) -> None:
        for data in _pieces(pair[0]):
            if self._budget is not None:
                data, self._budget = data[: self._budget], self._budget - len(data)
            with contextlib.suppress(OSError):
                pair[1].sendall(data)
            if self._budget is not None and self._budget <= 0:
                self._budget = None
                self.cut()
                return
        _end(pair)

    def _from_host(self, pair: tuple[socket.socket, socket.socket], limit: int | None) -> None:
        done = 0
        for data in _pieces(pair[1]):
            if self._alters:
                self._alters = False
                data = _altered(data)
            if limit is not None:
                data = data[: limit - done]
            done += len(data)
            with contextlib.suppress(OSError):
                pair[0].sendall(data)
            if limit is not None and done >= limit:
                break
        _end(pair)


def _pieces(sock: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while data := sock.recv(_CHUNK):
            yield data


def _altered(data: bytes) -> bytes:
    place = min(10, len(data) - 1)
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def _end(pair: tuple[socket.socket, socket.socket], *, with_reset: bool = False) -> None:
    for sock in pair:
        with contextlib.suppress(OSError):
            if with_reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # This wakes a thread that waits in a recv. A close does not.
            sock.shutdown(socket.SHUT_RD if with_reset else socket.SHUT_RDWR)
        sock.close()
