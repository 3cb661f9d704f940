"""The channel from a job to its agent: frames on a socket. If the agent is gone, they go to an orphan file that the next agent reads.

Rule: a job keeps its frames until the agent says that they are in the spool's log. So nothing is lost with an agent that dies before
it has read or written them: the orphan file gets all frames of the job, from the first one on.
"""

import array
import errno
import fcntl
import os
import select
import socket
from typing import List, Optional, Protocol, Tuple

from remote_agent.protocol import wire
from remote_agent.protocol.messages import FromJob, Start
from remote_agent.shared.descriptors import MOST, receive_with_fds
from remote_agent.shared.disk import sync_fd, sync_file

__all__ = ["INLINE", "FrameSink", "JobChannel", "move_high", "private_opener"]

#: A result of up to this many bytes is sent in its frame.
INLINE = 1 << 20
#: Room for the descriptors that come with a worker's next job: as many as one message can bring.
_IDLE = wire.encode({"t": "idle"})


def move_high(fd: int) -> int:
    """Move a descriptor to a high number, closed on exec, so that user code that closes or opens low numbers does not
    hit it.
    """
    for lowest in (900, 200, 60, 20):
        try:
            high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
        except (OSError, ValueError):
            continue  # above the limit of open files; try a lower number
        os.close(fd)
        return high
    return fd


def private_opener(path: str, flags: int) -> int:
    """Open a file of ours with mode 0600, whatever the umask is now, without following a link."""
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.fchmod(fd, 0o600)
    return fd


class FrameSink(Protocol):
    """Where a job sends its frames: to its agent, or to a stand-in."""

    def send(self, header: FromJob, payload: bytes = b"", *, sync: bool = False) -> None:
        """See `JobChannel.send`."""

    def send_all(self, frames: List[bytes], *, sync: bool = False, file: str = "") -> None:
        """See `JobChannel.send_all`."""

    def hold(self, frame: bytes, *, file: str = "") -> None:
        """See `JobChannel.hold`."""

    def end_reason(self) -> str:
        """See `JobChannel.end_reason`."""


class JobChannel:
    """Sends the frames of one job or epilogue.

    Args:
        fd: the job's socket, blocking. The channel owns it from now on.
        spool: the run's spool folder, where the orphan file is made.
        attempt: the attempt's id.
    """

    def __init__(self, fd: int, spool: str, attempt: str) -> None:
        self._fd = fd
        self._inode = os.fstat(fd).st_ino
        self._spool = spool
        self._is_orphan = False
        self._decoder = wire.Decoder()
        self._begin(attempt)

    def _begin(self, attempt: str) -> None:
        self._orphan_path = os.path.join(self._spool, "orphan-{}".format(attempt))
        self._end_reason = ""
        self._is_kept = False
        self._sent: List[bytes] = []
        self._files: List[str] = []
        self._held: List[bytes] = []

    @property
    def is_whole(self) -> bool:
        """Whether it still leads to the agent: the application has not closed it, and the agent is there."""
        try:
            return not self._is_orphan and os.fstat(self._fd).st_ino == self._inode
        except OSError:
            return False

    def close_in_child(self) -> None:
        """Close the socket in a process that the job forked, so that such a process does not use it or hold it open."""
        if self.is_whole:
            os.close(self._fd)

    def next_job(self) -> Optional[Tuple[Start, bytes, List[int]]]:
        """Wait for the next job of this process. Returns its header, its payload, and the descriptors of its stdout, its stderr and its GPUs;
        None if there is none.

        What the agent has said of the job before counts no more.
        """
        fds = array.array("i")
        sock = socket.socket(fileno=self._fd)
        try:
            sock.sendall(_IDLE)
            job = None
            while job is None:
                data, _ = receive_with_fds(sock, 1 << 18, MOST, fds)
                if not data:
                    return None
                for frame in self._decoder.feed(data):
                    header = frame.header
                    if header["t"] == "fork":
                        job = (header, frame.payload)
                        self._begin(header["attempt"])
                    else:
                        self._handle(frame)
        except OSError:
            return None  # the agent is gone
        finally:
            sock.detach()
        return (*job, list(fds))

    def send(self, header: FromJob, payload: bytes = b"", *, sync: bool = False) -> None:
        """Send one frame. With `sync`, it is synced to the disk if it goes to the orphan file.

        Raises:
            OSError: the agent is gone and the orphan file cannot be written.
        """
        self.send_all([wire.encode(header, payload)], sync=sync)

    def end_reason(self) -> str:
        """Return why the agent ended this job (`cancelled`, `timeout`, ...); empty if it did not."""
        if self._is_orphan:
            return ""
        try:
            while select.select([self._fd], [], [], 0)[0] and self._receive_frames():
                pass  # until no more comes
        except OSError:
            return self._end_reason  # the application closed it, or the agent is gone: nothing more will come
        return self._end_reason

    def _receive_frames(self) -> bool:
        """Wait for messages of the agent and handle them. Returns False if the agent is gone.

        Raises:
            OSError: the agent is gone (ECONNRESET), or the descriptor does not belong to the job any more.
        """
        data = _receive(self._fd)
        for frame in self._decoder.feed(data):
            self._handle(frame)
        return bool(data)

    def _handle(self, frame: wire.Frame) -> None:
        header = frame.header
        if header["t"] == "cancel":
            self._end_reason = header["kind"]
        elif header["t"] == "kept":
            self._is_kept = True

    def send_all(self, frames: List[bytes], *, sync: bool = False, file: str = "") -> None:
        """Send several frames at once. `file`: the file with their content, which is synced if they are."""
        sync = sync or bool(self._held)
        frames, self._held = self._held + frames, []
        self._sent += frames
        if file:
            self._files.append(file)
        data = b"".join(frames)
        if not self._is_orphan:
            try:
                _write(self._fd, data)
                return
            except OSError:
                # The agent is gone and may not have read everything, so everything is written again.
                self._become_orphan()
                data = b"".join(self._sent)
        _write(self._fd, data)
        if sync:
            self._bring_to_disk()

    def hold(self, frame: bytes, *, file: str = "") -> None:
        """Send one frame together with the next one, which follows before any user code runs."""
        self._held.append(frame)
        if file:
            self._files.append(file)

    def wait_kept(self) -> None:
        """Wait until the agent has the result in its log. If it dies before that, everything is written to the orphan
        file.

        Raises:
            OSError: the agent is gone and the orphan file cannot be written.
        """
        while not self._is_orphan and not self._is_kept:
            try:
                is_there = self._receive_frames()
            except OSError as error:
                if error.errno in (errno.EBADF, errno.ENOTSOCK):
                    return  # the application closed it after the last frame: no answer will come
                is_there = False
            if not is_there:
                self._become_orphan()
                _write(self._fd, b"".join(self._sent))
                self._bring_to_disk()

    def _bring_to_disk(self) -> None:
        for path in self._files:
            sync_file(path)
        self._files = []
        sync_fd(self._fd)

    def _become_orphan(self) -> None:
        self._fd = move_high(private_opener(self._orphan_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        self._is_orphan = True


def _receive(fd: int) -> bytes:
    """Receive what is on a socket that is known by its number."""
    sock = socket.socket(fileno=fd)
    try:
        return sock.recv(1 << 16)
    finally:
        sock.detach()


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
