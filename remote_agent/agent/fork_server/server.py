"""A fork server: it has imported the agent, and forks a process for stage-0, which goes on there as it would have itself.

Rule: nobody can tell whether a process was forked here, except by the time. It forks only for a process of this user that has what it has itself:
Python, variables, limits, namespaces, and all else that a process inherits. It has run nothing, and has no thread. If anything that it has loaded
changes on the disk, it ends.

Stage-0 sends `<8 hex digits: length><request>` with its stdin, stdout and stderr, and the request is a literal: (role, umask, variables). The answer is
`y`, or the end. Then stage-0 says `g`, unless it has waited too long and goes on by itself. At its end, the forked process says its exit code in one byte.
"""

import os
import select
import socket
import sys
import threading
import time
import traceback
from typing import Any, Callable, Dict, List, NamedTuple

from remote_agent.agent.zygotes.warm import why_none
from remote_agent.system.waiting.forking import LOOK_EVERY, Asked, Forking, Refused
from remote_agent.system.waiting.inherited import inherited, split_variables
from remote_agent.system.waiting.warm_store import WarmStore

__all__ = ["ForkServer", "Main", "Request"]

#: Runs a role with the connection to who has asked for it, and returns the exit code.
Main = Callable[[List[str], socket.socket], int]


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


class ForkServer(Forking):
    """The process.

    Args:
        idle: for how many seconds it waits for the next run.

    Attributes:
        variables: its own, without those that each login sets anew.
        stamps: of the files that it was made of.
    """

    def __init__(self, store: WarmStore, name: str, idle: float, main: Main) -> None:
        super().__init__(store, name, idle)
        self._main = main
        self.variables = split_variables(dict(os.environ))[0]

    def serve(self) -> None:
        """Wait, and fork, until nobody has needed it for long, or it must not be used."""
        listener, inode = self.listen()
        deadline = time.monotonic() + self.idle
        try:
            while time.monotonic() < deadline:
                why = self.why_end(inode)
                if why:
                    print("the fork server ends: {}".format(why), file=sys.stderr, flush=True)
                    return
                left = max(0.0, min(deadline - time.monotonic(), LOOK_EVERY))
                if select.select([listener], [], [], left)[0] and self._accept(listener):
                    deadline = time.monotonic() + self.idle
        finally:
            listener.close()
            self.store.remove(self.name)

    def _accept(self, listener: socket.socket) -> bool:
        """Serve one that has connected. Returns whether a process was forked for it."""
        sock = self.accept(listener)
        asked = None
        try:
            asked = self.granted(sock)
            if os.fork():
                return True
            listener.close()
            become(asked, sock, self._main)
        except (OSError, Refused) as error:
            print("no process was forked: {}".format(error), file=sys.stderr, flush=True)
        finally:
            sock.close()
            for fd in asked.fds if asked is not None else ():
                os.close(fd)
        return False

    def granted(self, sock: socket.socket) -> Asked:
        """Return what the other end asks for, if a process may be forked for it.

        Raises:
            OSError, Refused: it may not.
        """
        with self.asked(sock, 3, _read) as asked:
            self._check(asked.request, asked.pid)
            sock.sendall(b"y")
            if sock.recv(1) != b"g":
                raise Refused("it has gone on by itself")
        return asked

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
        self.check_unchanged()
        if threading.active_count() != 1:
            raise Refused("there are threads")


def _read(told: Any) -> Request:
    """Return the request that this is.

    Raises:
        ValueError, TypeError: it is none.
    """
    role, umask, variables = told
    is_role = isinstance(role, list) and all(isinstance(word, str) for word in role)
    is_plain = isinstance(variables, dict) and all(
        isinstance(text, bytes) for pair in variables.items() for text in pair
    )
    if not (is_role and is_plain and isinstance(umask, int)):
        raise ValueError("this is no request")
    return Request(role, umask, variables)


def become(asked: Asked, sock: socket.socket, main: Main) -> None:
    """Become what the process that has asked would have become. Runs in the forked process, and never returns."""
    code = 70
    try:
        os.setsid()
        os.chdir("/proc/{}/cwd".format(asked.pid))
        for target, fd in enumerate(asked.fds):
            os.dup2(fd, target)
            os.close(fd)
        os.umask(asked.request.umask)
        os.environ.clear()
        os.environb.update(asked.request.variables)
        sock.settimeout(None)
        code = main(asked.request.role, sock)
    except BaseException:  # noqa: BLE001 - it goes to stderr, as it would without a fork server
        traceback.print_exc()
        code = 1
    finally:
        try:
            sock.send(bytes([code & 0xFF]))
        finally:
            os._exit(code)
