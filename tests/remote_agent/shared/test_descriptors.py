"""Descriptors arrive with the data that carries them."""

from __future__ import annotations

import array
import os
import socket
import threading

from remote_agent.shared.descriptors import MOST, receive_with_fds, send_with_fds


def test_descriptors_arrive_as_files_that_no_program_inherits() -> None:
    """With the first bytes, however long the rest is. The end of the stream carries none."""
    theirs, ours = socket.socketpair()
    read, write = os.pipe()
    data = b"x" * (4 << 20)
    fds = array.array("i")
    received = 0
    with ours:
        sender = threading.Thread(target=send_with_fds, args=(theirs, data, [write]))
        sender.start()
        part, _ = receive_with_fds(ours, 1 << 18, MOST, fds)
        received += len(part)
        assert len(fds) == 1
        while received < len(data):
            received += len(receive_with_fds(ours, 1 << 18, MOST, fds)[0])
        sender.join()
        theirs.close()
        assert receive_with_fds(ours, 1, 1, fds) == (b"", False)
    assert len(fds) == 1
    assert not os.get_inheritable(fds[0])
    os.write(fds[0], b"y")
    assert os.read(read, 1) == b"y"
    for fd in (read, write, *fds):
        os.close(fd)


def test_what_there_is_no_room_for_is_said() -> None:
    """A descriptor that is lost on the way must not be looked for."""
    theirs, ours = socket.socketpair()
    fds = array.array("i")
    with theirs, ours:
        # The kernel rounds the room for them up, so some more are sent than would fit into it.
        send_with_fds(theirs, b"x", [0] * 9)
        assert receive_with_fds(ours, 1, 1, fds)[1]
    for fd in fds:
        os.close(fd)


def test_data_may_carry_none() -> None:
    """Then it is like any other."""
    theirs, ours = socket.socketpair()
    fds = array.array("i")
    with theirs, ours:
        send_with_fds(theirs, b"x", [])
        assert receive_with_fds(ours, 8, MOST, fds) == (b"x", False)
    assert not fds
