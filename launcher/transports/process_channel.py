"""A subprocess as a channel: its stdin, stdout and stderr are the command's.

Rule: no thread waits for a descriptor that another thread closes. `close` wakes whoever waits, and the last one closes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import subprocess
import threading
from collections.abc import Iterator

from launcher.errors import ConnectionLost
from launcher.hosts.limits import limit

__all__ = ["ProcessChannel"]

_STDERR_KEPT = limit("stderr")
_PIPE_SIZE = 1 << 20
#: Bytes of one read. Python makes room for all that it asks for: with 16 MiB, each read takes fresh memory of the system, and 256 MiB
#: took 0.20 s of CPU instead of 0.10.
_MAX_READ = 256 << 10
#: The option of Linux. Other systems choose the size of a pipe themselves.
_SET_PIPE_SIZE = getattr(fcntl, "F_SETPIPE_SZ", None)
#: Seconds for a command to end after its stdin has ended. Then its process group is killed.
_GRACE = 5.0


class ProcessChannel:
    """A subprocess as a `launcher.transports.base.Channel`.

    Args:
        process: with pipes, and in a session of its own.

    Attributes:
        has_ended: set when the process has ended.
        has_said_all: set when its stderr was read to the end.
    """

    def __init__(self, host: str, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("a channel needs all three pipes")
        self.host = host
        self.process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._stderr = process.stderr
        self._kept = bytearray()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        #: Becomes readable when the channel is closed, and so ends a blocked send or recv.
        self._wake_read, self._wake_write = os.pipe()
        self._users = 0
        for pipe in (self._stdin, self._stdout):
            os.set_blocking(pipe.fileno(), False)
            if _SET_PIPE_SIZE is not None:
                with contextlib.suppress(OSError):  # the user's limit of pipe memory is reached: slower, but not wrong
                    fcntl.fcntl(pipe.fileno(), _SET_PIPE_SIZE, _PIPE_SIZE)
        self.has_ended = threading.Event()
        self.has_said_all = threading.Event()
        for work in (self._wait_process, self._read_stderr):
            threading.Thread(target=work, name=f"process {process.pid}", daemon=True).start()

    def send(self, data: bytes) -> None:
        """See `Channel.send`."""
        rest = memoryview(data)
        with self._use():
            while rest:
                try:
                    rest = rest[os.write(self._stdin.fileno(), rest) :]
                except BlockingIOError:
                    if not self._wait(self._stdin.fileno(), selectors.EVENT_WRITE):
                        raise ConnectionLost(self.host, "session", "the channel was closed") from None
                except OSError as error:
                    raise self.lost(error.strerror or str(error)) from None

    def recv(self, size: int) -> bytes:
        """See `Channel.recv`."""
        with self._use():
            while True:
                try:
                    return os.read(self._stdout.fileno(), min(size, _MAX_READ))
                except BlockingIOError:
                    if not self._wait(self._stdout.fileno(), selectors.EVENT_READ):
                        raise ConnectionLost(self.host, "session", "the channel was closed") from None

    def stderr(self) -> str:
        """See `Channel.stderr`."""
        with self._lock:
            return self._kept.decode("utf-8", "replace")

    def lost(self, why: str) -> ConnectionLost:
        """Return the error of a send to a process that is gone."""
        return ConnectionLost(self.host, "session", f"the agent's process is gone ({why})")

    def exit_status(self, timeout: float) -> int | None:
        """See `Channel.exit_status`. A signal is 128 plus its number, as in a shell."""
        if not self.has_ended.wait(timeout):
            return None
        # This nearly always returns at once. It does not if the command left a process behind that holds its stderr.
        self.has_said_all.wait(min(timeout, 1.0))
        status = self.process.returncode
        return status if status >= 0 else 128 - status

    def close(self) -> None:
        """See `Channel.close`."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            os.close(self._wake_write)
            self._release()
        if not self.has_ended.is_set():
            timer = threading.Timer(_GRACE, self._kill)
            timer.daemon = True
            timer.start()

    @contextlib.contextmanager
    def _use(self) -> Iterator[None]:
        """Keep the descriptors open while a thread is in send or recv: a number that is closed early may soon belong to
        another file.
        """
        with self._lock:
            if self._closed.is_set():
                raise ConnectionLost(self.host, "session", "the channel was closed")
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._release()

    def _release(self) -> None:
        """Close the descriptors if the channel is closed and no thread uses them. The caller holds the lock."""
        if self._closed.is_set() and self._users == 0 and self._wake_read >= 0:
            os.close(self._wake_read)
            self._wake_read = -1
            for pipe in (self._stdin, self._stdout):
                with contextlib.suppress(OSError):
                    pipe.close()

    def _wait(self, fd: int, event: int) -> bool:
        """Wait for room or for bytes. Returns False when the channel is closed."""
        with selectors.PollSelector() as selector:
            selector.register(fd, event)
            selector.register(self._wake_read, selectors.EVENT_READ)
            selector.select()
        return not self._closed.is_set()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    def _wait_process(self) -> None:
        self.process.wait()
        self.on_end()
        self.has_ended.set()

    def on_end(self) -> None:
        """Called in a thread when the process has ended, and before anybody is told so."""

    def _read_stderr(self) -> None:
        """Read stderr to its end, and keep the last part of it."""
        with self._stderr:
            while data := os.read(self._stderr.fileno(), 1 << 16):
                with self._lock:
                    self._kept += data
                    del self._kept[:-_STDERR_KEPT]
        self.has_said_all.set()

    def _kill(self) -> None:
        """Kill what did not end by itself. What has its own session (the agent) goes on."""
        if not self.has_ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
