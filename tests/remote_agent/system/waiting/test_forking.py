"""What is asked of a process that waits is read as a literal, and every descriptor is given back that is not used."""

from __future__ import annotations

import array
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from remote_agent.system.waiting import forking
from remote_agent.system.waiting.forking import Forking, Refused, receive
from remote_agent.system.waiting.warm_store import WarmStore


def sent(request: object) -> bytes:
    """A request as it is sent."""
    told = repr(request).encode()
    return b"%08x" % len(told) + told


def only_seven(told: Any) -> int:
    """The one request that there is."""
    if told != 7:
        raise ValueError(told)
    return 7


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "gone"),
        (b"00000009" + b"7", "gone"),
        (b"zzzzzzzz", "something else"),
        (b"00000000", "something else"),
        (b"-0000001", "too much"),
        (b"ffffffff", "too much"),
        (b"00000008" + b"open('x'", "something else"),
        (b"00000003" + b"[1,", "something else"),
        (sent(8), "something else"),
        (sent([]) + b"more", "something else"),
        (b"000f4240" + b"(" * 1_000_000, "something else"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else repr(value[:30]),
)
def test_what_is_no_request_is_refused(data: bytes, why: str) -> None:
    """Nothing of it is run."""
    theirs, ours = socket.socketpair()

    def send() -> None:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)

    with theirs, ours:
        sender = threading.Thread(target=send)
        sender.start()
        with pytest.raises(Refused, match=why):
            receive(ours, array.array("i"), 1, only_seven)
        sender.join()


def ask(short_folder: Path, fds: int) -> tuple[Forking, socket.socket, socket.socket]:
    """Ask a process for seven, with descriptors."""
    theirs, ours = socket.socketpair()
    theirs.sendmsg([sent(7)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * fds))])
    return Forking(WarmStore(str(short_folder)), "agent-x", 60.0), theirs, ours


def test_descriptors_are_kept_for_what_is_granted(short_folder: Path) -> None:
    """With the process that has asked, as the kernel says it."""
    waits, theirs, ours = ask(short_folder, 2)
    with theirs, ours:
        with waits.asked(ours, 2, only_seven) as asked:
            assert (asked.request, asked.pid, len(asked.fds)) == (7, os.getpid(), 2)
        for fd in asked.fds:
            os.close(fd)


@pytest.mark.parametrize(
    ("fds", "error", "why"), [(1, None, "descriptors"), (2, Refused("no"), "no"), (2, OSError("gone"), "gone")]
)
def test_none_is_kept_of_what_is_not(short_folder: Path, fds: int, error: Exception | None, why: str) -> None:
    """Whether it is wrong, or whoever would grant it refuses or fails."""
    waits, theirs, ours = ask(short_folder, fds)
    with theirs, ours:
        before = os.listdir("/proc/self/fd")
        with pytest.raises((Refused, OSError), match=why), waits.asked(ours, 2, only_seven):
            assert error is not None
            raise error
        assert os.listdir("/proc/self/fd") == before


def test_another_user_is_refused(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nobody else can enter the folder."""
    waits, theirs, ours = ask(short_folder, 2)
    monkeypatch.setattr(forking, "peer_of", lambda sock: (os.getpid(), os.geteuid() + 1))
    with theirs, ours, pytest.raises(Refused, match="another user"), waits.asked(ours, 2, only_seven):
        pass


def test_it_may_wait_while_its_socket_is_there(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And while there is memory, and nothing has changed that it is made of."""
    store = WarmStore(str(short_folder))
    store.make()
    waits = Forking(store, "agent-x", 60.0)
    monkeypatch.setattr(forking, "free_memory", lambda: 1.0)
    listener, inode = waits.listen()
    with listener:
        assert waits.why_end(inode) == ""
        waits.check_unchanged()
        changed = short_folder / "module.py"
        changed.write_text("x = 1\n")
        waits.stamps[str(changed)] = None
        assert "module.py has changed" in waits.why_end(inode)
        with pytest.raises(Refused, match=r"module\.py has changed"):
            waits.check_unchanged()
        monkeypatch.setattr(forking, "free_memory", lambda: 0.1)
        assert waits.why_end(inode) == "the host has too little free memory"
        store.remove("agent-x")
        assert "socket was removed" in waits.why_end(inode)
