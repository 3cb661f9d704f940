"""A fork server: it has imported the agent, and forks a process for stage-0, which goes on there as it would have itself.

Rule: nobody can tell whether a process was forked here, except by the time. It forks only for a process of this user that has what it has itself:
Python, variables, limits, namespaces, and all else that a process inherits. It has run nothing, and has no thread. If anything that it has loaded
changes on the disk, it ends.

Stage-0 sends `<8 hex digits: length><request>` with its stdin, stdout and stderr, and the request is a literal: (role, umask, variables). The answer is
`y`, or the end. Then stage-0 says `g`, unless it has waited too long and goes on by itself. At its end, the forked process says its exit code in one byte.
"""

import array
import ast
import gc
import os
import select
import socket
import sys
import threading
import time
import traceback
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from remote_agent.agent.zygotes.warm import why_none
from remote_agent.system.inherited import FREE_MEMORY, free_memory, inherited, split_variables
from remote_agent.system.loaded_files import Stamp, changed_of, loaded_files, stamps_of
from remote_agent.system.warm_store import WarmStore, peer_of

__all__ = ["ForkServer", "Main", "Refused", "Request", "Served"]

#: Runs a role with the connection to who has asked for it, and returns the exit code.
Main = Callable[[List[str], socket.socket], int]
#: Seconds for stage-0 to say what it wants. It says it at once.
_PATIENCE = 1.0
#: Seconds between two looks whether it may wait on.
_LOOK_EVERY = 5.0
#: Bytes of a request, nearly all of which are variables.
_LONGEST = 4 << 20
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Refused(Exception):
    """No process is forked for who has asked."""


class Request(NamedTuple):
    """What stage-0 wants.

    Attributes:
        role: the arguments of `remote_agent.__main__.main`.
        umask: its own.
        variables: its own, as bytes.
    """

    role: List[str]
    umask: int
    variables: Dict[bytes, bytes]


class Served(NamedTuple):
    """A request that is granted, with its connection, descriptors, and the process that has asked."""

    request: Request
    sock: socket.socket
    fds: List[int]
    pid: int


class ForkServer:
    """The process.

    Args:
        idle: for how many seconds it waits for the next run.

    Attributes:
        variables: its own, without those that each login sets anew.
        stamps: of the files that it was made of.
    """

    def __init__(self, store: WarmStore, name: str, idle: float, main: Main) -> None:
        self._store = store
        self._name = name
        self._idle = idle
        self._main = main
        self.variables = split_variables(dict(os.environ))[0]
        self.stamps: Dict[str, Stamp] = {}

    def serve(self) -> None:
        """Wait, and fork, until nobody has needed it for long, or it must not be used."""
        self.stamps = stamps_of(loaded_files())
        gc.collect()
        gc.freeze()
        listener = self._store.listen(self._name)
        inode = self._store.inode(self._name)
        deadline = time.monotonic() + self._idle
        try:
            while time.monotonic() < deadline:
                why = self.why_end(inode)
                if why:
                    print("the fork server ends: {}".format(why), file=sys.stderr, flush=True)
                    return
                _reap()
                left = max(0.0, min(deadline - time.monotonic(), _LOOK_EVERY))
                if select.select([listener], [], [], left)[0] and self._accept(listener):
                    deadline = time.monotonic() + self._idle
        finally:
            listener.close()
            self._store.remove(self._name)

    def why_end(self, inode: int) -> str:
        """Return why it must not wait on; empty if it may. `inode`: that of its socket."""
        if self._store.inode(self._name) != inode:
            return "its socket was removed"
        if free_memory() < FREE_MEMORY:
            return "the host has too little free memory"
        changed = changed_of(self.stamps)
        return "{} has changed".format(changed[0]) if changed else ""

    def _accept(self, listener: socket.socket) -> bool:
        """Serve one that has connected. Returns whether a process was forked for it."""
        sock, _ = listener.accept()
        served = None
        try:
            sock.settimeout(_PATIENCE)
            served = self.granted(sock)
            if os.fork():
                return True
            listener.close()
            become(served, self._main)
        except (OSError, Refused) as error:
            print("no process was forked: {}".format(error), file=sys.stderr, flush=True)
        finally:
            sock.close()
            for fd in served.fds if served is not None else ():
                os.close(fd)
        return False

    def granted(self, sock: socket.socket) -> Served:
        """Return what the other end asks for, if a process may be forked for it.

        Raises:
            OSError, Refused: it may not.
        """
        pid, uid = peer_of(sock)
        if uid != os.geteuid():
            raise Refused("another user has connected")
        fds = array.array("i")
        try:
            request = receive(sock, fds)
            if len(fds) != 3:
                raise Refused("it did not send its three descriptors")
            self._check(request, pid)
            sock.sendall(b"y")
            if sock.recv(1) != b"g":
                raise Refused("it has gone on by itself")
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return Served(request, sock, list(fds), pid)

    def _check(self, request: Request, pid: int) -> None:
        """Check that the process that asks would become what is forked here.

        Raises:
            Refused: it would not.
        """
        theirs = {os.fsdecode(name): os.fsdecode(value) for name, value in request.variables.items()}
        why = why_none(theirs)
        if why:
            raise Refused(why)
        common = split_variables(theirs)[0]
        differ = [name for name in {**common, **self.variables} if common.get(name) != self.variables.get(name)]
        if differ:
            raise Refused("it has another value of the variable {}".format(min(differ)))
        proc = "/proc/{}".format(pid)
        if not os.path.samefile(os.path.join(proc, "exe"), "/proc/self/exe"):
            raise Refused("it runs another Python")
        if inherited(proc, pid=pid) != inherited():
            raise Refused("it has other limits")
        changed = changed_of(self.stamps)
        if changed:
            raise Refused("{} has changed".format(changed[0]))
        if threading.active_count() != 1:
            raise Refused("there are threads")


def receive(sock: socket.socket, fds: "array.array[int]") -> Request:
    """Receive a request and its descriptors.

    Raises:
        OSError: it does not arrive in time.
        Refused: it is none.
    """
    data = b""
    length: Optional[int] = None
    while length is None or len(data) < 8 + length:
        part, ancillary, _, _ = sock.recvmsg(1 << 18, socket.CMSG_SPACE(3 * fds.itemsize), _CLOEXEC)
        for _, _, content in ancillary:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        if not part:
            raise Refused("it has gone")
        data += part
        if length is None and len(data) >= 8:
            try:
                length = int(data[:8], 16)
            except ValueError:
                raise Refused("it asks for something else") from None
            if not 0 <= length <= _LONGEST:
                raise Refused("it asks for too much")
    try:
        return _read(ast.literal_eval(data[8 : 8 + length].decode("utf-8")))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise Refused("it asks for something else") from None


def _read(told: Any) -> Request:
    """Return the request that this is.

    Raises:
        ValueError: it is none.
    """
    role, umask, variables = told
    is_role = isinstance(role, list) and all(isinstance(word, str) for word in role)
    is_plain = isinstance(variables, dict) and all(
        isinstance(text, bytes) for pair in variables.items() for text in pair
    )
    if not (is_role and is_plain and isinstance(umask, int)):
        raise ValueError("this is no request")
    return Request(role, umask, variables)


def become(served: Served, main: Main) -> None:
    """Become what the process that has asked would have become. Runs in the forked process, and never returns."""
    code = 70
    try:
        os.setsid()
        os.chdir("/proc/{}/cwd".format(served.pid))
        for target, fd in enumerate(served.fds):
            os.dup2(fd, target)
            os.close(fd)
        os.umask(served.request.umask)
        os.environ.clear()
        os.environb.update(served.request.variables)
        served.sock.settimeout(None)
        code = main(served.request.role, served.sock)
    except BaseException:  # noqa: BLE001 - it goes to stderr, as it would without a fork server
        traceback.print_exc()
        code = 1
    finally:
        try:
            served.sock.send(bytes([code & 0xFF]))
        finally:
            os._exit(code)


def _reap() -> None:
    """Take note of forked processes that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass  # there is none
