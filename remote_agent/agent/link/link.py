"""A connection to a controller: two descriptors of an SSH channel, handed over by the `connect` process.

Rule: whatever goes wrong here ends the link and nothing else; nothing here waits. A peer that does not take what it asked for
is not listened to until it does, so that little waits for it; and only what brings the stream on is a sign of its life.
"""

import array
import os
import selectors
import socket
import time
from collections import deque
from typing import Any, Callable, Deque, Optional

from remote_agent.agent.link.outbox import Outbox
from remote_agent.shared import wire

__all__ = ["Link"]

#: Bytes that may wait for the peer before it is not listened to.
_MOST_WAITING = 4 << 20


class Link:
    """Frames in, an outbox out; `tick` pings a silent peer and ends a dead one.

    Args:
        sock: the connect process, which sends one byte and the two descriptors, and ends when its session is killed.
    """

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        on_frame: Callable[["Link", wire.Frame], None],
        on_close: Callable[["Link"], None],
    ) -> None:
        self._sock = sock
        self._in: Optional[int] = None
        self._out: Optional[int] = None
        self._selector = selector
        self._on_frame = on_frame
        self._on_close = on_close
        self._decoder = wire.Decoder()
        #: What came and was not acted on yet, and the nonsense behind it.
        self._untaken: Deque[wire.Frame] = deque()
        self._nonsense: Optional[wire.ProtocolError] = None
        self._is_deaf = False
        self.outbox = Outbox()
        self.live = False
        self._closed = False
        self._writing = False
        self._heard = time.monotonic()
        self._pinged = 0.0
        self._pings = 0
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, self._from_connect)

    def _from_connect(self, sock: Any, mask: int) -> None:
        """The connect process hands the channel over, or it has ended."""
        if self._closed:
            return
        if self._in is not None:
            self.close()
            return
        fds = array.array("i")
        try:
            _, ancillary, _, _ = self._sock.recvmsg(1, socket.CMSG_SPACE(2 * fds.itemsize))
        except BlockingIOError:
            return
        except OSError:
            ancillary = []
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if len(fds) != 2:
            for fd in fds:
                os.close(fd)
            self.close()
            return
        self._in, self._out = fds
        for fd in fds:
            os.set_inheritable(fd, False)
            os.set_blocking(fd, False)
        self._selector.register(self._in, selectors.EVENT_READ, self._readable)
        self.pump()

    def _readable(self, fd: int, mask: int) -> None:
        if self._closed:
            # Closed by what was handled before in the same turn; the number may be somebody else's by now.
            return
        try:
            data = os.read(fd, 1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        steps = self._decoder.steps
        try:
            self._untaken.extend(self._decoder.feed(data))
        except wire.ProtocolError as error:
            self._untaken.extend(error.frames)
            self._nonsense = error
        if self._decoder.steps != steps:
            self._heard = time.monotonic()
        self._take()

    def _take(self) -> bool:
        """Act on what came, as long as the peer takes what is said to it; False: the link has ended."""
        try:
            while self._untaken and not self._closed:
                if self.outbox.size > _MOST_WAITING:
                    self._set_deaf(True)
                    return True
                self._on_frame(self, self._untaken.popleft())
            if self._nonsense is not None and not self._closed:
                raise self._nonsense
        except wire.ProtocolError as error:
            self._untaken.clear()
            self._nonsense = None
            self.outbox.put(wire.encode({"t": "fatal", "code": error.code, "message": str(error)[:2000]}))
            self.pump()
            self.close()
        self._set_deaf(False)
        return not self._closed

    def _set_deaf(self, is_deaf: bool) -> None:
        """Leave what the peer says in its pipe, or read it again."""
        if self._closed or self._in is None or is_deaf == self._is_deaf:
            return
        self._is_deaf = is_deaf
        if is_deaf:
            self._selector.unregister(self._in)
        else:
            self._selector.register(self._in, selectors.EVENT_READ, self._readable)

    def pump(self) -> None:
        """Write what can be written now; the selector calls again when there is room."""
        if self._closed or self._out is None:
            return
        size = self.outbox.size
        try:
            self.outbox.write_to(self._out)
        except OSError:
            self.close()
            return
        if self._is_deaf and self.outbox.size < size:
            # It is not dead whom we do not let speak: a slow link takes its time.
            self._heard = time.monotonic()
            if not self._take():
                return
        wants = bool(self.outbox)
        if wants != self._writing:
            self._writing = wants
            if wants:
                self._selector.register(self._out, selectors.EVENT_WRITE, self._writable)
            else:
                self._selector.unregister(self._out)

    def _writable(self, fd: int, mask: int) -> None:
        self.pump()

    def tick(self, now: float, heartbeat: float) -> None:
        """Ping a peer that is silent, end a link whose peer was silent for too long."""
        silent = now - self._heard
        if silent > heartbeat:
            self.close()
        elif silent > heartbeat / 4 and now - self._pinged > heartbeat / 4:
            self._pinged = now
            self._pings += 1
            self.outbox.put(wire.encode({"t": "ping", "n": self._pings}))

    def close(self) -> None:
        """Let go of the descriptors and of the connect process."""
        if self._closed:
            return
        self._closed = True
        self._selector.unregister(self._sock)
        if self._in is not None and self._out is not None:
            if self._writing:
                self._selector.unregister(self._out)
            if not self._is_deaf:
                self._selector.unregister(self._in)
            for fd in {self._in, self._out}:
                os.close(fd)
        self._sock.close()
        self._on_close(self)
