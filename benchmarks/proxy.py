"""A TCP proxy in front of a host. It counts bytes, and delays each by half a round trip without limiting the bandwidth.

Rule: a byte leaves `delay` seconds after it came, however many are under way. Nothing sleeps between chunks.
"""

import asyncio
import contextlib
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_CHUNK = 256 * 1024
_UNDER_WAY = 64 * 1024 * 1024


class Proxy:
    """Listens on `port` of 127.0.0.1. `sent` and `received` are the bytes to and from the host since the start."""

    def __init__(self, target_port: int, delay: float) -> None:
        self.target_port = target_port
        self.delay = delay
        self.port = 0
        self.sent = 0
        self.received = 0

    def count_sent(self, size: int) -> None:
        self.sent += size

    def count_received(self, size: int) -> None:
        self.received += size

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection in both directions, until both have ended."""
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port, limit=_CHUNK)
        for each in (writer, far_writer):
            each.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # It is cancelled if a connection is still open when the proxy stops.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(
                self._carry(reader, far_writer, self.count_sent),
                self._carry(far_reader, writer, self.count_received),
            )

    async def _carry(self, reader, writer, count) -> None:
        loop = asyncio.get_running_loop()
        line: deque[tuple[float, bytes]] = deque()
        changed = asyncio.Event()
        room = asyncio.Event()
        room.set()
        under_way = 0

        async def take() -> None:
            nonlocal under_way
            while True:
                await room.wait()
                try:
                    data = await reader.read(_CHUNK)
                except ConnectionError:
                    data = b""
                count(len(data))
                line.append((loop.time() + self.delay, data))
                under_way += len(data)
                if under_way > _UNDER_WAY:
                    room.clear()
                changed.set()
                if not data:
                    return

        async def give() -> None:
            nonlocal under_way
            while True:
                while not line:
                    changed.clear()
                    await changed.wait()
                due, data = line.popleft()
                wait = due - loop.time()
                if wait > 0:
                    await asyncio.sleep(wait)
                if not data:
                    break
                writer.write(data)
                await writer.drain()
                under_way -= len(data)
                if under_way <= _UNDER_WAY:
                    room.set()
            writer.close()

        taking = asyncio.ensure_future(take())
        try:
            await give()
        except ConnectionError:
            writer.close()
        finally:
            taking.cancel()


@contextmanager
def running_proxy(target_port: int, delay: float = 0.0) -> Iterator[Proxy]:
    """Run a proxy in its own thread. `delay` is in seconds each way, half of the round trip that it adds."""
    proxy = Proxy(target_port, delay)
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(proxy.connected, "127.0.0.1", 0, limit=_CHUNK)
        proxy.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        server.close()
        open_ones = asyncio.all_tasks() - {asyncio.current_task()}
        for task in open_ones:
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="proxy", daemon=True)
    thread.start()
    ready.wait()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
