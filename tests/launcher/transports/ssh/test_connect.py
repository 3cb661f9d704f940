"""How a host is reached: servers that are silent, slow, strange or gone, and jump hosts."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.demo.server import DemoServer
from launcher.errors import (
    ConnectionLost,
    HostKeyError,
    HostUnreachable,
)
from launcher.transports.ssh import connect, sockets
from launcher.transports.ssh.config import SshTarget
from launcher.transports.ssh.transport import SshOptions, SshTransport
from tests.launcher.transports.links import (
    BOTH_WAYS,
    PATIENCE,
    in_thread,
    listening,
    options,
    read_all,
    refusal,
    relay,
)


class TestReaching:
    """How a name becomes a connection."""

    def unreachable(self, how: SshOptions) -> HostUnreachable:
        """Return the error of a host that is not reached."""
        error = refusal(how)
        assert isinstance(error, HostUnreachable)
        return error

    def bare(self, tmp_path: Path, port: int, **fields: object) -> SshOptions:
        """Options for a port of this machine, without a configuration."""
        (tmp_path / "config").write_text("")
        how = SshOptions("127.0.0.1", port=port, config_file=str(tmp_path / "config"))
        return replace(how, **fields)  # type: ignore[arg-type]

    @BOTH_WAYS
    def test_a_name_without_address(self, tmp_path: Path) -> None:
        """The phase is `resolve`."""
        error = self.unreachable(self.bare(tmp_path, 22, address="no-such-host.invalid"))
        assert error.phase == "resolve"
        assert "'no-such-host.invalid'" in error.message
        assert "spelling" in error.next_step

    @BOTH_WAYS
    def test_a_refused_connection(self, tmp_path: Path) -> None:
        """Nothing listens there."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        error = self.unreachable(self.bare(tmp_path, port))
        assert f"127.0.0.1 port {port} refused" in error.message
        assert "sshd" in error.next_step

    def test_no_route_is_reported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """This is the error of a machine without a network."""
        monkeypatch.setattr(sockets.EagerSocket, "connect_ex", lambda self, address: 101)
        error = self.unreachable(self.bare(tmp_path, 22))
        assert "no route" in error.message
        assert "VPN" in error.next_step

    def test_a_host_that_is_silent_at_tcp(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """This happens if a firewall drops the packets."""
        monkeypatch.setattr(sockets.EagerSocket, "connect_ex", lambda self, address: 115)
        monkeypatch.setattr(sockets, "_wait", lambda attempts, selector, timeout: None)
        error = self.unreachable(self.bare(tmp_path, 22, connect_timeout=0.2))
        assert "did not answer" in error.message
        assert "firewall" in error.next_step

    def test_close_ends_a_wait_at_tcp(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run that ends does not wait for a host behind a firewall."""
        begun = threading.Event()

        def connect_ex(sock: socket.socket, address: object) -> int:
            begun.set()
            return 115

        monkeypatch.setattr(sockets.EagerSocket, "connect_ex", connect_ex)
        monkeypatch.setattr(
            sockets, "_wait", lambda attempts, selector, timeout: transport._stop.wait(timeout) and None
        )
        transport = SshTransport("gpu1", self.bare(tmp_path, 22, connect_timeout=3600.0))
        result = in_thread(lambda: transport.open("true"))
        assert begun.wait(PATIENCE)
        transport.close()
        assert isinstance(result.get(timeout=PATIENCE), ConnectionLost)

    def test_every_address_of_a_name_is_tried(self, demo_server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the first address is dead, the host is still reached."""
        port = demo_server.port
        with socket.create_server(("127.0.0.2", 0)) as dead:
            refused = dead.getsockname()[1]
        found = [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", refused)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
        transport = SshTransport("gpu1", options(demo_server))
        assert read_all(transport.open("echo in")) == b"in\n"
        transport.close()

    @BOTH_WAYS
    def test_a_silent_server_is_left(self, tmp_path: Path) -> None:
        """It accepts connections but sends nothing. Every step has a limit."""

        def listen_only(peer: socket.socket, number: int) -> None:
            while peer.recv(1 << 16):
                pass

        with listening(listen_only) as port:
            error = self.unreachable(self.bare(tmp_path, port, connect_timeout=0.3))
        assert "the SSH handshake was not over" in error.message

    @BOTH_WAYS
    def test_a_server_that_sends_single_bytes_is_left(self, tmp_path: Path) -> None:
        """It sends one byte at a time, for ever. The limit is on the whole step."""

        def drip(peer: socket.socket, number: int) -> None:
            peer.settimeout(0.02)
            while True:
                peer.sendall(b"x")
                with contextlib.suppress(TimeoutError):
                    peer.recv(1)

        with listening(drip) as port:
            error = self.unreachable(self.bare(tmp_path, port, connect_timeout=0.4))
        assert "127.0.0.1" in error.message

    @BOTH_WAYS
    @pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 mail ESMTP\r\n", b"\x00\xff\x00\n"])
    def test_a_server_of_another_kind(self, tmp_path: Path, said: bytes) -> None:
        """What it sent is shown, and it is not tried again."""
        count = []

        def serve(peer: socket.socket, number: int) -> None:
            count.append(number)
            peer.sendall(said)

        with listening(serve) as port:
            error = self.unreachable(self.bare(tmp_path, port))
        assert "is not an SSH server" in error.message
        assert error.next_step == "check the port"
        assert count == [0]

    @BOTH_WAYS
    def test_a_host_that_drops_connections_is_tried_again(
        self, demo_server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """MaxStartups drops connections at random, before the banner, perhaps with a message."""
        monkeypatch.setattr(connect, "_FIRST_DELAY", 0.001)

        def serve(peer: socket.socket, number: int) -> None:
            if number == 1:
                peer.sendall(b"Exceeded MaxStartups\r\n")
            if number >= 2:
                relay(peer, demo_server.port)

        with listening(serve) as port:
            kind, key, *_ = demo_server.host_keys[0].split()
            known = tmp_path / "known_hosts"
            known.write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
            how = self.bare(tmp_path, port, identity=str(demo_server.identity), known_hosts=str(known), user="demo")
            transport = SshTransport("gpu1", how)
            assert read_all(transport.open("echo in")) == b"in\n"
            transport.close()

    @BOTH_WAYS
    def test_a_host_that_drops_all_connections_is_given_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The message has a possible reason."""
        monkeypatch.setattr(connect, "_FIRST_DELAY", 0.001)
        count = []
        with listening(lambda peer, number: count.append(number)) as port:
            error = self.unreachable(self.bare(tmp_path, port))
        assert len(count) == 7
        assert "drops connections" in error.message
        assert "MaxStartups" in error.next_step

    def test_pauses_grow_and_differ(self) -> None:
        """Controllers that were dropped at the same time do not come back at the same time."""
        target = SshTarget("a", "127.0.0.1", "u", 1)
        waits: list[float] = []

        class Stop(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                waits.append(timeout or 0.0)
                return False

        attempts = connect._Attempts(
            "a",
            target,
            None,
            SshOptions("a"),
            Stop(),
            jitter=iter([0, 1] * 3).__next__,  # type: ignore[arg-type]
        )

        class Dropping(connect._Attempts):
            def _open(self, gateway: object) -> object:
                raise connect._Dropped("eof")

        with pytest.raises(HostUnreachable):
            Dropping(**vars(attempts)).run(None)
        assert waits == pytest.approx([0.1, 0.6, 0.4, 2.4, 1.6, 9.6])

    def test_close_ends_the_pauses(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run that is cancelled does not wait for a host that sheds load."""
        monkeypatch.setattr(connect, "_FIRST_DELAY", 3600.0)
        dropped = threading.Event()
        with listening(lambda peer, number: dropped.set()) as port:
            transport = SshTransport("gpu1", self.bare(tmp_path, port))
            result = in_thread(lambda: transport.open("true"))
            assert dropped.wait(PATIENCE)
            transport.close()
            assert isinstance(result.get(timeout=PATIENCE), ConnectionLost)

    @BOTH_WAYS
    def test_a_configuration_that_cannot_be_read_is_the_hosts_error(self, tmp_path: Path) -> None:
        """It affects only that host, and the others go on."""
        config = tmp_path / "config"
        config.write_text("Host *\n  Nonsense 1\n")
        error = self.unreachable(SshOptions("gpu1", config_file=str(config)))
        assert error.phase == "resolve"
        assert "nonsense" in error.message.lower()


@BOTH_WAYS
class TestOnTheWay:
    """Connections through ProxyJump and ProxyCommand."""

    def config(self, folder: Path, first: DemoServer, last: DemoServer, more: str = "") -> SshOptions:
        """A configuration with two hosts. The second is reached through the first."""
        path = folder / "config"
        path.write_text(f"{more}{first.ssh_config.read_text()}{last.ssh_config.read_text()}")
        return SshOptions(last.alias, config_file=str(path))

    @pytest.fixture
    def two(self) -> Iterator[tuple[DemoServer, DemoServer]]:
        """Two servers."""
        with DemoServer("first") as first, DemoServer("last") as last:
            yield first, last

    def test_goes_through_a_jump_host(self, two: tuple[DemoServer, DemoServer], tmp_path: Path) -> None:
        """Both host keys are verified, both logins happen."""
        first, last = two
        transport = SshTransport("gpu1", self.config(tmp_path, first, last, "Host last\n ProxyJump first\n"))
        assert read_all(transport.open("echo $HOME")).decode().strip() == str(last.home)
        assert (first.logins, last.logins) == (1, 1)
        transport.close()

    def test_goes_through_a_chain(self, two: tuple[DemoServer, DemoServer], tmp_path: Path) -> None:
        """The chain may be given at once, or the jump host has its own ProxyJump."""
        first, last = two
        with DemoServer("middle") as middle:
            for more in (
                "Host last\n ProxyJump first,middle\n",
                "Host last\n ProxyJump middle\nHost middle\n ProxyJump first\n",
            ):
                how = self.config(tmp_path, first, last, more + middle.ssh_config.read_text())
                transport = SshTransport("gpu1", how)
                assert read_all(transport.open("echo $HOME")).decode().strip() == str(last.home)
                transport.close()
            assert (first.logins, middle.logins, last.logins) == (2, 2, 2)

    def test_the_jump_hosts_key_is_verified(self, two: tuple[DemoServer, DemoServer], tmp_path: Path) -> None:
        """It is verified before the login there. The error names both hosts."""
        first, last = two
        first.known_hosts.write_text("")
        error = refusal(self.config(tmp_path, first, last, "Host last\n ProxyJump first\n"))
        assert isinstance(error, HostKeyError)
        assert error.host == "gpu1 (through first)"
        assert error.message_of("gpu1").startswith("gpu1 (through first): the host is not known")
        assert (first.logins, last.logins) == (0, 0)

    def test_the_last_hosts_key_is_verified(self, two: tuple[DemoServer, DemoServer], tmp_path: Path) -> None:
        """A jump host does not vouch for it."""
        first, last = two
        last.known_hosts.write_text("")
        error = refusal(self.config(tmp_path, first, last, "Host last\n ProxyJump first\n"))
        assert isinstance(error, HostKeyError)
        assert error.host == "gpu1"
        assert last.logins == 0

    @pytest.mark.slow
    def test_a_host_that_the_jump_host_cannot_reach(self, two: tuple[DemoServer, DemoServer], tmp_path: Path) -> None:
        """The error differs from that of a jump host that we cannot reach."""
        first, last = two
        last.stop()
        text = f"Host last\n ProxyJump first\n HostName 127.0.0.1\n Port {last.port}\n"
        path = tmp_path / "config"
        path.write_text(text + first.ssh_config.read_text())
        error = refusal(SshOptions("last", config_file=str(path)))
        assert isinstance(error, HostUnreachable)
        assert "the jump host cannot reach 127.0.0.1" in error.message

    def test_a_loop_of_jump_hosts_is_refused(self, two: tuple[DemoServer, DemoServer], tmp_path: Path) -> None:
        """The message has its members."""
        first, last = two
        more = "Host last\n ProxyJump first\nHost first\n ProxyJump last\n"
        error = refusal(self.config(tmp_path, first, last, more))
        assert error.phase == "resolve"
        assert "last -> first -> last" in error.message

    def test_a_jump_host_for_every_host_does_not_jump_through_itself(
        self, two: tuple[DemoServer, DemoServer], tmp_path: Path
    ) -> None:
        """People write `Host *` with a ProxyJump."""
        first, last = two
        transport = SshTransport("gpu1", self.config(tmp_path, first, last, "Host *\n ProxyJump first\n"))
        assert read_all(transport.open("echo in")) == b"in\n"
        transport.close()

    @pytest.mark.parametrize("jump", ["user:secret@first", "first:port"])
    def test_an_invalid_jump_host_is_refused(
        self, two: tuple[DemoServer, DemoServer], tmp_path: Path, jump: str
    ) -> None:
        """`ssh` refuses it, or we do."""
        first, last = two
        error = refusal(self.config(tmp_path, first, last, f"Host last\n ProxyJump {jump}\n"))
        assert (error.phase, isinstance(error, HostUnreachable)) == ("resolve", True)

    def test_goes_through_a_proxy_command(self, demo_server: DemoServer, tmp_path: Path) -> None:
        """The command ends with the connection."""
        script = tmp_path / "relay.py"
        script.write_text(
            "import os, socket, sys, threading\n"
            "peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
            "def up():\n"
            "    while data := os.read(0, 65536): peer.sendall(data)\n"
            "    peer.shutdown(socket.SHUT_WR)\n"
            "threading.Thread(target=up, daemon=True).start()\n"
            "while data := peer.recv(65536): os.write(1, data)\n"
        )
        config = tmp_path / "config"
        text = demo_server.ssh_config.read_text()
        config.write_text(f"{text}  ProxyCommand {sys.executable} {script} %h %p\n")
        transport = SshTransport("gpu1", SshOptions("demo", config_file=str(config)))
        assert read_all(transport.open("echo in")) == b"in\n"
        transport.close()

    def test_a_proxy_command_that_fails(
        self, demo_server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It looks like a host that drops the connection. The message names the command."""
        monkeypatch.setattr(connect, "_FIRST_DELAY", 0.001)
        config = tmp_path / "config"
        config.write_text(f"{demo_server.ssh_config.read_text()}  ProxyCommand exit 3\n")
        error = refusal(SshOptions("demo", config_file=str(config)))
        assert isinstance(error, HostUnreachable)
        assert "ProxyCommand" in str(error)
