"""A connection to a controller: two descriptors of an SSH channel, handed over by the `connect` process.

Rule: an error here ends the link and nothing else, and nothing here blocks. If the peer does not read its answers, the agent
stops reading from it until it does, so that few bytes wait for it. Only bytes that complete frames count as a sign of life.
"""

import array
import os
import selectors
import socket
import time
from collections import deque
from typing import Any, Callable, Deque, Optional

from remote_agent.agent.link.outbox import Outbox
from remote_agent.protocol import wire
from remote_agent.protocol.specs.sync import SyncSpec
from remote_agent.shared.descriptors import receive_with_fds

__all__ = ["Link"]

#: How many bytes may wait for the peer. Beyond that, the agent stops reading from it.
_MAX_OUTBOX = 4 << 20


class Link:
    """Reads frames, and sends from an outbox. `tick` pings a silent peer and ends the link of a dead one.

    Args:
        sock: the socket of the connect process. It sends one byte with the two descriptors, and ends when its session
        is killed.
    """

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        on_frame: Callable[["Link", wire.Frame], None],
        on_close: Callable[["Link"], None],
    ) -> None:
        self._sock = sock
        self._read_fd: Optional[int] = None
        self._write_fd: Optional[int] = None
        self._selector = selector
        self._on_frame = on_frame
        self._on_close = on_close
        self._decoder = wire.Decoder()
        #: Frames that were received but not yet handled, and the protocol error after them.
        self._pending_frames: Deque[wire.Frame] = deque()
        self._protocol_error: Optional[wire.ProtocolError] = None
        self._is_paused = False
        self.outbox = Outbox()
        self.live = False
        #: How output files of running jobs are sent; None if they are not.
        self.sync: Optional[SyncSpec] = None
        #: Whether the controller said that it understands chunks without the holes of a file.
        self.takes_holes = False
        self._is_closed = False
        self._is_writing = False
        self._last_heard = time.monotonic()
        self._pinged = 0.0
        self._pings = 0
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, self._on_connect_process)

    def _on_connect_process(self, sock: Any, mask: int) -> None:
        """Take the channel from the connect process, or close if that process has ended."""
        if self._is_closed:
            return
        if self._read_fd is not None:
            self.close()
            return
        fds = array.array("i")
        try:
            receive_with_fds(self._sock, 1, 2, fds)
        except BlockingIOError:
            return
        except OSError:
            pass  # it has ended
        if len(fds) != 2:
            for fd in fds:
                os.close(fd)
            self.close()
            return
        self._read_fd, self._write_fd = fds
        for fd in fds:
            os.set_inheritable(fd, False)
            os.set_blocking(fd, False)
        self._selector.register(self._read_fd, selectors.EVENT_READ, self._readable)
        self.pump()

    def _readable(self, fd: int, mask: int) -> None:
        if self._is_closed:
            # An event before this one in the same turn has closed it. Its number may already belong to another descriptor.
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
            self._pending_frames.extend(self._decoder.feed(data))
        except wire.ProtocolError as error:
            self._pending_frames.extend(error.frames)
            self._protocol_error = error
        if self._decoder.steps != steps:
            self._last_heard = time.monotonic()
        self._handle_frames()

    def _handle_frames(self) -> bool:
        """Handle received frames while the peer reads its answers. Returns False if the link has ended."""
        try:
            while self._pending_frames and not self._is_closed:
                if self.outbox.size > _MAX_OUTBOX:
                    self._set_paused(True)
                    return True
                self._on_frame(self, self._pending_frames.popleft())
            if self._protocol_error is not None and not self._is_closed:
                raise self._protocol_error
        except wire.ProtocolError as error:
            self._pending_frames.clear()
            self._protocol_error = None
            self.outbox.put(wire.encode({"t": "fatal", "code": error.code, "message": str(error)[:2000]}))
            self.pump()
            self.close()
        self._set_paused(False)
        return not self._is_closed

    def _set_paused(self, is_paused: bool) -> None:
        """Stop reading from the peer, or read again."""
        if self._is_closed or self._read_fd is None or is_paused == self._is_paused:
            return
        self._is_paused = is_paused
        if is_paused:
            self._selector.unregister(self._read_fd)
        else:
            self._selector.register(self._read_fd, selectors.EVENT_READ, self._readable)

    def pump(self) -> None:
        """Write what can be written now. The selector calls this again when there is room."""
        if self._is_closed or self._write_fd is None:
            return
        size = self.outbox.size
        try:
            self.outbox.write_to(self._write_fd)
        except OSError:
            self.close()
            return
        if self._is_paused and self.outbox.size < size:
            # We do not read from this peer now, so it cannot show that it is alive. The bytes that it takes count instead.
            self._last_heard = time.monotonic()
            if not self._handle_frames():
                return
        wants = bool(self.outbox)
        if wants != self._is_writing:
            self._is_writing = wants
            if wants:
                self._selector.register(self._write_fd, selectors.EVENT_WRITE, self._writable)
            else:
                self._selector.unregister(self._write_fd)

    def _writable(self, fd: int, mask: int) -> None:
        self.pump()

    def tick(self, now: float, heartbeat: float) -> None:
        """Ping a silent peer, and end the link if it was silent for too long."""
        silent = now - self._last_heard
        if silent > heartbeat:
            self.close()
        elif silent > heartbeat / 4 and now - self._pinged > heartbeat / 4:
            self._pinged = now
            self._pings += 1
            self.outbox.put(wire.encode({"t": "ping", "n": self._pings}))

    def close(self) -> None:
        """Close the descriptors and the connection to the connect process."""
        if self._is_closed:
            return
        self._is_closed = True
        self._selector.unregister(self._sock)
        if self._read_fd is not None and self._write_fd is not None:
            if self._is_writing:
                self._selector.unregister(self._write_fd)
            if not self._is_paused:
                self._selector.unregister(self._read_fd)
            for fd in {self._read_fd, self._write_fd}:
                os.close(fd)
        self._sock.close()
        self._on_close(self)
