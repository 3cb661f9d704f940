"""A link to a host that is up: what is sent over it, and whether the host is still there.

Rule: the threads here only do I/O. The writer sends what is queued. The watch closes the link if nothing comes or goes for too long,
whatever the writer and the reader wait for.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

from launcher.agents.receiver import FrameReceiver
from launcher.errors import AgentError, HostError, LauncherError
from launcher.hosts.limits import limit
from launcher.transports.base import Channel
from remote_agent.protocol import wire
from remote_agent.protocol.constants import HEARTBEAT

__all__ = ["MAX_REPLIES", "Link"]

#: How many answers may wait until a host takes them. An agent asks little: a ping sometimes, code in long lists.
MAX_REPLIES = limit("replies")
#: A host must take this many bytes within a heartbeat.
_PIECE = 128 << 10


class Link:
    """One link, from its greeting to its end."""

    def __init__(self, host: str, channel: Channel) -> None:
        self.host = host
        self.channel = channel
        self._outgoing: queue.Queue[Iterator[bytes] | bytes | None] = queue.Queue()
        self._replies = threading.Semaphore(MAX_REPLIES)
        self._pings = 0
        #: When the host last gave a sign of life, and whether it waits for us.
        self._heard = time.monotonic()
        self._is_busy = False
        #: Since when a piece waits until the host takes it.
        self._sending_since: float | None = None
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._write_loop, name=f"writer-{host}", daemon=True),
            threading.Thread(target=self._watch, name=f"watch-{host}", daemon=True),
        ]

    def start(self) -> None:
        """Begin to send what was queued."""
        for thread in self._threads:
            thread.start()

    def put(self, item: Iterator[bytes] | bytes) -> None:
        """Queue what is to be sent."""
        self._outgoing.put(item)

    def end(self) -> None:
        """Send nothing more than what is queued now."""
        self._outgoing.put(None)

    def close(self) -> None:
        """Close the channel, and end the threads."""
        self._is_over.set()
        self.end()
        self.channel.close()
        for thread in self._threads:
            thread.join(timeout=10)

    def feed(self, receiver: FrameReceiver, data: bytes) -> None:
        """Act on what came, however long that takes, and record whether it was a sign of life."""
        steps, began = receiver.steps, time.monotonic()
        self._is_busy = True
        try:
            receiver.feed(data)
        finally:
            now = time.monotonic()
            if receiver.steps != steps:
                self._heard = now
            if now - began > HEARTBEAT / 4 and self._sending_since is not None:
                # The host may have waited for us while we waited for the inbox.
                self._sending_since = now
            self._is_busy = False

    def reply(self, item: Iterator[bytes] | bytes) -> None:
        """Queue what the host has asked for.

        Raises:
            AgentError: it asks without reading the answers.
        """
        if not self._replies.acquire(blocking=False):
            raise AgentError(self.host, "session", f"it keeps asking without reading the answers ({MAX_REPLIES} wait)")
        self._outgoing.put(self._counted(iter([item]) if isinstance(item, bytes) else item))

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the same parts. When they are sent, one reply fewer waits."""
        yield from pieces
        self._replies.release()

    # -- the writer ----------------------------------------------------------------------------------------------

    def _write_loop(self) -> None:
        try:
            while True:
                try:
                    item = self._outgoing.get(timeout=HEARTBEAT / 4)
                except queue.Empty:
                    item = self._ping()
                if item is None:
                    return
                if isinstance(item, bytes):
                    self._send(self._batch(item))
                else:
                    self._send_all(item)
        except HostError:
            # The reader will find the same broken link and report it.
            self.channel.close()

    def _send(self, data: bytes) -> None:
        """Send in parts, so that the watch sees whether they are accepted."""
        rest = memoryview(data)
        try:
            while rest:
                self._sending_since = time.monotonic()
                self.channel.send(bytes(rest[:_PIECE]))
                rest = rest[_PIECE:]
        finally:
            self._sending_since = None

    def _ping(self) -> bytes:
        self._pings += 1
        return wire.encode({"t": "ping", "n": self._pings})

    def _send_all(self, pieces: Iterator[bytes]) -> None:
        pinged = time.monotonic()
        try:
            for piece in pieces:
                self._send(piece)
                now = time.monotonic()
                # A piece that was sent is a sign of life, too, because the link may be slow.
                self._heard = max(self._heard, now)
                if now - pinged > HEARTBEAT / 4:
                    pinged = now
                    self._send(self._ping())
        except HostError:
            raise
        except LauncherError as error:
            # A file has changed since the run began, so the application cannot be prepared there.
            self._send(wire.encode({"t": "withheld", "message": str(error)[:100_000], "environment": False}))

    def _batch(self, first: bytes) -> bytes:
        """Return the small frames that wait, for one send."""
        batch = [first]
        size = len(first)
        while size < wire.CHUNK:
            with self._outgoing.mutex:
                head = self._outgoing.queue[0] if self._outgoing.queue else None
            if not isinstance(head, bytes):
                break
            batch.append(self._outgoing.get())  # type: ignore[arg-type]
            size += len(head)
        return b"".join(batch)

    # -- the watch -----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Close a link on which nothing comes or goes for too long, because a send or a recv would wait for ever."""
        while not self._is_over.wait(HEARTBEAT / 4):
            long_ago = time.monotonic() - HEARTBEAT
            since = self._sending_since
            if not self._is_busy and (self._heard < long_ago or (since is not None and since < long_ago)):
                self.channel.close()
                return
