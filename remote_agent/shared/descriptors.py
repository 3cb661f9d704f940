"""Passing file descriptors between processes, over a socket of this machine."""

import array
import socket
from typing import Iterable, Tuple

__all__ = ["MOST", "receive_with_fds", "send_with_fds"]

#: As many as Linux takes in one message.
MOST = 253
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def send_with_fds(sock: socket.socket, data: bytes, fds: Iterable[int]) -> None:
    """Send data whose first byte carries the descriptors. The socket is blocking."""
    carried = array.array("i", fds)
    sent = sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, carried)] if carried else [])
    if sent < len(data):
        sock.sendall(memoryview(data)[sent:])


def receive_with_fds(sock: socket.socket, size: int, most: int, fds: "array.array[int]") -> Tuple[bytes, bool]:
    """Receive data, and add to `fds` the descriptors that came with it. Returns the data, and whether some were lost on the way.

    Args:
        size: bytes that are taken at once.
        most: descriptors that there is room for.
    """
    data, ancillary, flags, _ = sock.recvmsg(size, socket.CMSG_SPACE(most * fds.itemsize), _CLOEXEC)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, bool(flags & socket.MSG_CTRUNC)
