"""Whom a command asks for a fork of itself: a process of the same user and session, in a folder of that user alone."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from launcher.cli.waiting import client
from remote_agent.agent.zygotes.warm import NO_WARM

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes that wait need Linux")


@pytest.fixture(autouse=True)
def _no_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getsid", lambda _pid: 4242)


@pytest.fixture
def warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of sockets, as it is made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "hydra-remote-launcher/warm/boot"
    folder.mkdir(parents=True)
    for one in (folder, folder.parent):
        one.chmod(0o700)
    return folder


def _bind(server: socket.socket, path: Path) -> None:
    # By the folder's descriptor: the folders of tests have long paths.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


@contextmanager
def _listening(path: Path, answer: Callable[[socket.socket], object]) -> Iterator[list[bytes]]:
    """A process that listens at `path`, and answers once. Yields all that it was sent."""
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as server:
        _bind(server, path)
        server.listen()

        def serve() -> None:
            sock, _ = server.accept()
            # The command ends the talk while something of it is unread.
            with sock, suppress(ConnectionResetError):
                answer(sock)
                while part := sock.recv(1 << 16):
                    heard.append(part)

        thread = threading.Thread(target=serve)
        thread.start()
        yield heard
        thread.join()


class TestMayWait:
    @pytest.fixture(autouse=True)
    def session(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its first process is in sight."""
        monkeypatch.setattr(os, "getsid", lambda _pid: 1)

    def test_an_ordinary_command_may(self) -> None:
        """So what is refused below is refused for its own reason."""
        assert client.may_wait({})

    @pytest.mark.parametrize("name", [NO_WARM, "_LAUNCHER_COMPLETE"])
    def test_none_does_by_a_variable(self, name: str) -> None:
        """Who wants nothing to wait, and the completion of a shell, start by themselves."""
        assert not client.may_wait({name: "1"})

    def test_the_first_process_of_a_session_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It cannot leave its process group."""
        monkeypatch.setattr(os, "getsid", lambda _pid: os.getpid())
        assert not client.may_wait({})

    @pytest.mark.parametrize("session", [0, 1 << 30])
    def test_one_whose_session_has_no_first_process_here_does_not(
        self, monkeypatch: pytest.MonkeyPatch, session: int
    ) -> None:
        """It is outside of this container, or has ended: nobody would see the end of the session."""
        monkeypatch.setattr(os, "getsid", lambda _pid: session)
        assert not client.may_wait({})

    def test_a_setuid_process_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is of two users."""
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert not client.may_wait({})


class TestSockets:
    def test_only_those_of_this_session_are_asked(self, warm: Path) -> None:
        """Another terminal has its own."""
        for name in ("command-4242-a.sock", "command-42-b.sock", "command-4242-a.log", "agent-4242.sock"):
            (warm / name).touch()
        assert client._sockets(client._folder()) == [str(warm / "command-4242-a.sock")]

    @pytest.mark.parametrize("which", ["inner", "outer"])
    def test_none_is_asked_in_a_folder_that_others_can_read(self, warm: Path, which: str) -> None:
        """Somebody else may have made what lies there."""
        (warm / "command-4242-a.sock").touch()
        (warm if which == "inner" else warm.parent).chmod(0o755)
        assert client._sockets(client._folder()) == []

    def test_none_is_asked_in_a_folder_of_another_user(self, warm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its owner can replace what lies there."""
        (warm / "command-4242-a.sock").touch()
        other = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: other)
        assert client._sockets(client._folder()) == []

    def test_none_is_asked_through_a_link(self, warm: Path) -> None:
        """A link leads where somebody else wants it."""
        elsewhere = warm.parent.parent / "elsewhere"
        warm.rename(elsewhere)
        warm.symlink_to(elsewhere)
        (elsewhere / "command-4242-a.sock").touch()
        assert client._sockets(client._folder()) == []


class TestAsk:
    def test_a_process_of_another_user_gets_nothing(self, warm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not even the arguments: variables are secrets."""
        other = os.geteuid() + 1
        with _listening(warm / "s.sock", lambda _sock: None) as heard:
            monkeypatch.setattr(os, "geteuid", lambda: other)
            client._ask(str(warm / "s.sock"))
        assert heard == []

    @pytest.mark.parametrize(
        "answer", [b"", b"no;", b"y1;", b"y1,2,3;", b"y" + b"1" * 100, b"\xff;"], ids=lambda one: repr(one)[:12]
    )
    def test_the_command_starts_by_itself_after_another_answer(
        self, warm: Path, answer: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing was done, and all descriptors are closed again."""

        def followed(*_: object) -> None:
            raise AssertionError("it followed")

        def reply(sock: socket.socket) -> None:
            length = int(sock.recv(8), 16)
            while length:
                length -= len(sock.recv(min(length, 1 << 16)))
            sock.sendall(answer)
            sock.shutdown(socket.SHUT_WR)

        monkeypatch.setattr(client, "_follow", followed)
        before = set(os.listdir("/proc/self/fd"))
        with _listening(warm / "s.sock", reply):
            client._ask(str(warm / "s.sock"))
        assert set(os.listdir("/proc/self/fd")) <= before

    def test_nobody_listens(self, warm: Path) -> None:
        """What a process left that was killed is no error."""
        with socket.socket(socket.AF_UNIX) as server:
            _bind(server, warm / "s.sock")
        client._ask(str(warm / "s.sock"))
