"""A process that waits on a socket and forks for whoever asks: what fork servers of agents and of commands have in common.

Rule: it forks only for a process of this user. A request is a literal, of which nothing is run; it brings descriptors, which are closed if it is
not granted. If anything that the process has loaded changes on the disk, it ends.

A request is `<8 hex digits: length><literal>`, and its first byte carries the descriptors.
"""

import array
import ast
import contextlib
import gc
import os
import socket
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple, TypeVar

from remote_agent.shared.descriptors import receive_with_fds
from remote_agent.system.waiting.inherited import FREE_MEMORY, free_memory
from remote_agent.system.waiting.loaded_files import Stamp, changed_of, loaded_files, stamps_of
from remote_agent.system.waiting.warm_store import WarmStore, peer_of

__all__ = ["LOOK_EVERY", "Asked", "Forking", "Refused", "receive"]

#: Seconds between two looks whether it may wait on.
LOOK_EVERY = 5.0
#: Seconds to say what is wanted. Whoever asks says it at once.
_PATIENCE = 1.0
#: Bytes of a request, nearly all of which are variables.
_LONGEST = 4 << 20

T = TypeVar("T")


class Refused(Exception):
    """No process is forked for who has asked."""


class Asked(NamedTuple):
    """What was asked for: the literal as it was read, the descriptors, and the process that has asked."""

    request: Any
    fds: List[int]
    pid: int


class Forking:
    """The process.

    Args:
        name: the name of its record and socket.
        idle: for how many seconds it waits for the next request.

    Attributes:
        here: what its log calls the machine.
        stamps: of the files that it was made of.
    """

    here = "host"

    def __init__(self, store: WarmStore, name: str, idle: float) -> None:
        self.store = store
        self.name = name
        self.idle = idle
        self.stamps: Dict[str, Stamp] = {}

    def listen(self) -> Tuple[socket.socket, int]:
        """Begin to wait. Returns its socket, and the `inode` of that.

        Raises:
            OSError: it cannot be made.
        """
        self.stamps = stamps_of(loaded_files())
        gc.collect()
        gc.freeze()
        return self.store.listen(self.name)

    def why_end(self, inode: int) -> str:
        """Return why it must not wait on; empty if it may. `inode`: that of its socket. Takes note of forks that have ended."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if self.store.inode(self.name) != inode:
            return "its socket was removed"
        if free_memory() < FREE_MEMORY:
            return "the {} has too little free memory".format(self.here)
        changed = changed_of(self.stamps)
        return "{} has changed".format(changed[0]) if changed else ""

    @staticmethod
    def accept(listener: socket.socket) -> socket.socket:
        """Return the connection of whoever asks, who has a second to say what is wanted."""
        sock, _ = listener.accept()
        sock.settimeout(_PATIENCE)
        return sock

    @contextlib.contextmanager
    def asked(self, sock: socket.socket, count: int, read: Callable[[Any], Any]) -> Iterator[Asked]:
        """What the process at the other end asks for. If the body raises, the descriptors are closed.

        Args:
            count: how many descriptors it must send.
            read: makes the request of a literal, or raises ValueError or TypeError.

        Raises:
            OSError, Refused: it asks for nothing that may be granted.
        """
        pid, uid = peer_of(sock)
        if uid != os.geteuid():
            raise Refused("another user has connected")
        fds = array.array("i")
        try:
            request = receive(sock, fds, count, read)
            if len(fds) != count:
                raise Refused("it did not send its descriptors")
            yield Asked(request, list(fds), pid)
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise

    def check_unchanged(self) -> None:
        """Check that it is made of what is on the disk.

        Raises:
            Refused: it is not.
        """
        changed = changed_of(self.stamps)
        if changed:
            raise Refused("{} has changed".format(changed[0]))


def receive(sock: socket.socket, fds: "array.array[int]", count: int, read: Callable[[Any], T]) -> T:
    """Receive a request and its descriptors.

    Raises:
        OSError: it does not arrive in time.
        Refused: it is none.
    """
    data = b""
    length = 8
    while len(data) < length:
        part, _ = receive_with_fds(sock, 1 << 18, count, fds)
        if not part:
            raise Refused("it has gone")
        data += part
        if length == 8 and len(data) >= 8:
            length += _length(data[:8])
    try:
        return read(ast.literal_eval(data[8:length].decode("utf-8", "surrogatepass")))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise Refused("it asks for something else") from None


def _length(text: bytes) -> int:
    try:
        length = int(text, 16)
    except ValueError:
        raise Refused("it asks for something else") from None
    if not 0 < length <= _LONGEST:
        raise Refused("it asks for too much" if length else "it asks for something else")
    return length
