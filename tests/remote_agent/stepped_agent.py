"""An agent whose loop the test runs step by step. Everything of it is real, except the zygote and the jobs, which the
test plays.

Rule: nothing here waits for a clock. A turn does what there is to do; `settle` turns until nothing is left to do.
"""

from __future__ import annotations

import array
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

from remote_agent.agent import agent
from remote_agent.agent.jobs import reaper
from remote_agent.agent.jobs import running as jobs
from remote_agent.agent.zygotes import spare
from remote_agent.job import JobError
from remote_agent.protocol import wire
from remote_agent.system.host import Folders, folders
from remote_agent.system.processes import mark_begun
from tests.specs import zygote_spec

__all__ = ["FakeJob", "Peer", "SteppedAgent"]

#: Numbers that no process of this machine can have.
_FIRST_PID = 1 << 23
_TURNS = 2000


def _taken(sock: socket.socket, ancillary: list[Any]) -> list[int]:
    """The descriptors that came with the message."""
    fds = array.array("i")
    for _, _, data in ancillary:
        fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


class Peer:
    """The other side of the agent's socket: sends bytes, and receives frames."""

    def __init__(self, listener: str) -> None:
        self._connect = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connect.connect(listener)
        self.sock, theirs = socket.socketpair()
        self.sock.setblocking(False)
        fds = array.array("i", [theirs.fileno(), os.dup(theirs.fileno())])
        self._connect.sendmsg([b"c"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        os.close(fds[1])
        theirs.close()
        self._decoder = wire.Decoder()
        self.frames: list[wire.Frame] = []
        self.is_over = False
        #: It takes what is said to it.
        self.reads = True

    def say(self, header: dict[str, Any], payload: bytes = b"") -> None:
        """A message."""
        self.say_bytes(wire.encode(header, payload))

    def say_bytes(self, data: bytes) -> int:
        """Bytes, as many as are taken at once; how many that were."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.is_over = True
            return 0

    def hear(self) -> bool:
        """Receive what is there. Returns whether anything was."""
        if self.is_over or not self.reads:
            return False
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.is_over = True
            return True
        self.frames += self._decoder.feed(data)
        return True

    def all(self, name: str) -> list[dict[str, Any]]:
        """The headers of every message of that name."""
        return [frame.header for frame in self.frames if frame.header["t"] == name]

    def close(self) -> None:
        """The link is lost."""
        self.is_over = True
        self.sock.close()
        self._connect.close()


@dataclass
class FakeJob:
    """A process as the agent sees it: a socket, and streams."""

    attempt: str
    pid: int
    is_epilogue: bool
    sock: socket.socket
    leases: list[int]
    #: It has said what makes no sense.
    is_spoilt: bool = False

    def say(self, header: dict[str, Any], payload: bytes = b"") -> None:
        """Say something of itself."""
        with contextlib.suppress(OSError):
            self.sock.sendall(wire.encode(header, payload))

    def finish(self, result: bytes = b"", error: JobError | None = None) -> None:
        """Send its result, or how it failed."""
        status = "COMPLETED" if error is None else "FAILED"
        envelope = {
            "status": status,
            "error": None if error is None else error.to_json(),
            "hooks": [],
            "abort": None,
        }
        self.say({"t": "outcome", "envelope": envelope, "parts": {"value": {"offset": 0, "size": len(result)}}}, result)
        self.say({"t": "done", "envelope": envelope, "parts": {"same": True}})

    def close(self) -> None:
        """What it has open is closed when it ends."""
        self.sock.close()
        for fd in self.leases:
            os.close(fd)
        self.leases = []

    def spoil(self, data: bytes) -> None:
        """Send nonsense."""
        self.is_spoilt = True
        with contextlib.suppress(OSError):
            self.sock.sendall(data)


class _FakeZygote:
    """Replaces `subprocess.Popen`: receives what a zygote gets, and answers like one."""

    def __init__(self, host: SteppedAgent, command: list[str], env: dict[str, str], pass_fds: list[int], **_: Any):
        for text in [*command, *env, *env.values()]:
            if b"\0" in os.fsencode(text):
                raise ValueError("embedded null byte")
        self._sock = socket.socket(fileno=os.dup(pass_fds[0]))
        self._sock.setblocking(False)
        self._decoder = wire.Decoder()
        self._fds: list[int] = []
        self._host = host
        self.running: dict[str, FakeJob] = {}
        host.zygotes.append(self)

    def turn(self) -> bool:
        """Do what it is told; False: nothing was."""
        try:
            data, ancillary, _, _ = self._sock.recvmsg(1 << 20, socket.CMSG_SPACE(64 * 4))
        except OSError:
            return False
        if not data:
            return False
        self._fds += _taken(self._sock, ancillary)
        for header, _payload in self._decoder.feed(data):
            if header["t"] == "prepare":
                self._say({"t": "ready", "python": "3.11.2", "isolation": "fork"})
            else:
                self._fork(header)
        return True

    def _fork(self, header: dict[str, Any]) -> None:
        count = 3 + header["leases"]
        sock, *streams = self._fds[:3]
        #: The job has its GPUs as long as it lives.
        leases = self._fds[3:count]
        del self._fds[:count]
        mark_begun(streams[0])
        for fd in streams:
            os.close(fd)
        job = FakeJob(
            header["attempt"], next(self._host.pids), header["t"] == "epilogue", socket.socket(fileno=sock), leases
        )
        if not job.is_epilogue:
            self._host.forks.append(job.attempt)
        self.running[job.attempt] = job
        self._say({"t": "forked", "attempt": job.attempt, "pid": job.pid})

    def ended(self, job: FakeJob, status: int) -> None:
        """A job's process has ended."""
        self.running.pop(job.attempt)
        job.close()
        self._say({"t": "exited", "attempt": job.attempt, "status": status})

    def _say(self, header: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._sock.sendall(wire.encode(header))

    def kill(self) -> None:
        self._sock.close()
        for job in self.running.values():
            job.close()
        self.running = {}
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def poll(self) -> int | None:
        return None

    def wait(self, timeout: float | None = None) -> int:
        self.kill()
        return 0


@dataclass
class SteppedAgent:
    """The agent of a run, in this process."""

    folder: str = field(default_factory=lambda: tempfile.mkdtemp(prefix="stepped-"))
    zygotes: list[_FakeZygote] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    #: Every attempt that was forked, in order, as often as it was.
    forks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pids: Iterator[int] = iter(range(_FIRST_PID, 1 << 31))
        self._patches = contextlib.ExitStack()
        # The module's own name alone: whoever else starts a process meanwhile starts one.
        fake = SimpleNamespace(DEVNULL=-3, Popen=lambda command, **more: _FakeZygote(self, command, **more))
        self._patches.enter_context(mock.patch.object(spare, "subprocess", fake))
        # No number here is a process's: nothing is hunted, and no table of processes is read for it.
        for module, name in ((agent, "kill_whole"), (jobs, "kill_whole"), (reaper, "kill_whole")):
            self._patches.enter_context(mock.patch.object(module, name, return_value=0))
        self._patches.enter_context(mock.patch.object(reaper, "kill_group", return_value=0))
        self._patches.enter_context(mock.patch.object(reaper, "kill_tokens", return_value=[]))
        self.agent = self.make_agent(folders("r1", "h", self.folder))

    def make_agent(self, where: Folders) -> agent.Agent:
        """Make the agent of this run."""
        self._listener = os.path.join(where.runtime, "agent.sock")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self._listener)
        listener.listen(16)
        return agent.Agent("r1", "h", where, listener, "/bundle", 0o022)

    def connect(self) -> Peer:
        """Somebody comes."""
        peer = Peer(self._listener)
        self.peers.append(peer)
        return peer

    def controller(self, **hello: Any) -> Peer:
        """A controller connects, sends hello and go, and gets its welcome. `hello`: fields of it."""
        peer = self.connect()
        peer.say(
            {"t": "hello", "version": wire.VERSION, "run": "r1", "controller": "c", "host": "h", "slots": 2, **hello}
        )
        peer.say({"t": "prepare", "zygote": "z", "spec": zygote_spec().to_json()})
        peer.say({"t": "go"})
        self.settle()
        return peer

    def jobs(self) -> list[tuple[_FakeZygote, FakeJob]]:
        """Processes that run."""
        return [(zygote, job) for zygote in self.zygotes for job in zygote.running.values()]

    def print(self, attempt: str, data: bytes) -> None:
        """A job prints."""
        with open(os.path.join(self.agent.paths.spool, "streams", attempt + ".stdout"), "ab") as file:
            file.write(data)

    def settle(self) -> None:
        """Run turns until nothing is left to do."""
        calm = 0
        for _ in range(_TURNS):
            heard = [peer.hear() for peer in self.peers]
            told = [zygote.turn() for zygote in self.zygotes]
            attempts = self.agent.attempts
            waits = (attempts.has_unsynced and not attempts.error) or self.agent._sync.is_reading
            # A sync of the disk, or a look at output files, is under way in its thread, which wakes the loop; what is held back is said in a moment.
            self.agent._turn(0.05 if waits else self.agent._held_for)
            calm = 0 if any(heard) or any(told) or waits or self.agent._held_for else calm + 1
            if calm >= 4:
                return
        raise AssertionError("the agent does not come to rest")

    def close(self) -> None:
        """End it."""
        self.agent.end_mode = "remove"
        for peer in self.peers:
            peer.close()
        for zygote in self.zygotes:
            zygote.kill()
        active = self.agent.attempts.active()
        self.agent.serve()
        # What ends with the process of an agent.
        for attempt in active:
            if attempt.sock is not None:
                attempt.sock.close()
        for fd in (self.agent._wake_read, self.agent._wake_write):
            os.close(fd)
        self._patches.close()
        shutil.rmtree(self.folder)
