"""Transports: tests for all of them, and what becomes of their links."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.demo.server import DemoServer
from launcher.errors import (
    AgentError,
    AuthenticationFailed,
    ConnectionLost,
)
from launcher.hosts.host_spec import HostSpec
from launcher.transports.base import Transport
from launcher.transports.factory import make_transport
from launcher.transports.ssh.transport import SshTransport
from tests.hosts.openssh import OpenSshHost, running_openssh_host
from tests.launcher.transports.links import (
    BOTH_WAYS,
    PATIENCE,
    in_thread,
    links,
    links_left,
    options,
    read_all,
    refusal,
)
from tests.requirements import need_programs

_WAYS = ["local", "embedded", "embedded-ssh", "openssh", "openssh-ssh", "openssh-kept"]


@pytest.fixture(
    params=[
        "local",
        "embedded",
        # What is the program's alone is in `openssh/test_transport.py`.
        pytest.param("embedded-ssh", marks=pytest.mark.slow),
        *(pytest.param(way, marks=pytest.mark.openssh) for way in _WAYS if way.startswith("openssh")),
    ]
)
def any_host(request: pytest.FixtureRequest, host_of: Callable[[str], HostSpec]) -> HostSpec:
    """A host of each kind, and each way to it: what holds for one must hold for all."""
    return host_of(request.param)


#: What sends many megabytes does so quickly on this machine alone.
_LARGE = pytest.mark.parametrize(
    "any_host",
    [
        way
        if way == "local"
        else pytest.param(way, marks=pytest.mark.openssh if "openssh" in way else pytest.mark.slow)
        for way in _WAYS
    ],
    indirect=True,
)


def _pass_beside(transport: Transport, size: int) -> None:
    """Send as much through another channel, so that any other sender had the same time and link."""
    channel = transport.open(f"head -c {size} | wc -c")
    channel.send(bytes(size))
    assert int(read_all(channel)) == size
    channel.close()


class TestContract:
    """What holds for every transport."""

    def test_runs_a_command_line(self, transport: Transport) -> None:
        """It runs in a shell. stdout arrives, then its end, then the status."""
        channel = transport.open("printf '%s|' one \"two  three\"; exit 7")
        assert read_all(channel) == b"one|two  three|"
        assert channel.recv(10) == b""
        assert channel.exit_status(PATIENCE) == 7

    def test_carries_every_byte_both_ways(self, transport: Transport) -> None:
        """They arrive unaltered and in order, even more bytes than any buffer on the way holds."""
        channel = transport.open("cat")
        data = bytes(range(256)) * (40 << 10)
        sent = in_thread(lambda: channel.send(data))
        heard = bytearray()
        while len(heard) < len(data):
            heard += channel.recv(1 << 20)
        assert bytes(heard) == data
        assert sent.get(timeout=PATIENCE) is None
        channel.close()

    def test_reads_no_more_than_asked_for(self, transport: Transport) -> None:
        """A reader that wants three bytes gets at most three."""
        channel = transport.open("printf abcdefgh")
        assert 1 <= len(channel.recv(3)) <= 3

    @_LARGE
    def test_a_command_that_does_not_read_stops_the_sender(
        self, transport: Transport, host_folder: Callable[[], str]
    ) -> None:
        """Unread data is not stored without limit on either side. When the command reads, all of it arrives.

        Until then the command must read nothing at all: a shell's `read` takes byte by byte, and every byte may make
        room for more.
        """
        size = 48 << 20
        fifo = f"{host_folder()}/fifo"
        channel = transport.open(f"mkfifo {fifo}; echo ready; read line < {fifo}; head -c {size} | wc -c")
        assert channel.recv(6) == b"ready\n"
        sent = in_thread(lambda: channel.send(bytes(size)))
        _pass_beside(transport, size)
        assert sent.empty()
        assert read_all(transport.open(f"echo go > {fifo}")) == b""
        assert sent.get(timeout=PATIENCE) is None
        assert int(read_all(channel)) == size

    @_LARGE
    def test_close_ends_a_blocked_send(self, transport: Transport) -> None:
        """The other thread gets an error, so unsent data does not count as sent."""
        size = 48 << 20
        channel = transport.open("echo ready; exec sleep 300")
        assert channel.recv(6) == b"ready\n"
        sent = in_thread(lambda: channel.send(bytes(size)))
        _pass_beside(transport, size)
        channel.close()
        assert isinstance(sent.get(timeout=PATIENCE), ConnectionLost)

    def test_keeps_the_last_of_stderr(self, transport: Transport) -> None:
        """It keeps 64 KiB of any bytes. stdout does not wait for it."""
        channel = transport.open("head -c 3000000 /dev/zero | tr '\\000' e >&2; printf '\\377the end' >&2; printf out")
        assert read_all(channel) == b"out"
        assert channel.exit_status(PATIENCE) == 0
        assert channel.stderr().endswith("ee\ufffdthe end")
        assert len(channel.stderr()) <= 64 << 10

    def test_has_no_status_before_the_end(self, transport: Transport) -> None:
        """The status is None, and nothing waits without limit."""
        channel = transport.open("read line; exit 3")
        assert channel.exit_status(0.01) is None
        channel.send(b"\n")
        assert read_all(channel) == b""
        assert channel.exit_status(PATIENCE) == 3

    def test_close_ends_a_blocked_read(self, transport: Transport) -> None:
        """In another thread."""
        channel = transport.open("echo ready; read line")
        assert channel.recv(6) == b"ready\n"
        heard = in_thread(lambda: channel.recv(1))
        channel.close()
        assert isinstance(heard.get(timeout=PATIENCE), ConnectionLost)

    def test_close_may_be_called_twice(self, transport: Transport) -> None:
        """This holds for channels and transports. A closed channel counts as lost, and not as ended."""
        channel = transport.open("read line")
        channel.close()
        channel.close()
        with pytest.raises(ConnectionLost):
            channel.recv(1)
        with pytest.raises(ConnectionLost):
            channel.send(b"x" * (64 << 20))
        transport.close()
        transport.close()

    def test_the_command_sees_the_end_of_a_closed_channel(
        self, transport: Transport, host_folder: Callable[[], str]
    ) -> None:
        """Its stdin ends, and it has time to finish."""
        fifo = f"{host_folder()}/fifo"
        channel = transport.open(f"mkfifo {fifo}; echo ready; cat; echo gone > {fifo}")
        assert channel.recv(6) == b"ready\n"
        channel.close()
        assert read_all(transport.open(f"cat {fifo}")) == b"gone\n"

    def test_several_at_once(self, transport: Transport) -> None:
        """Channels do not mix."""
        channels = [transport.open("cat") for _ in range(5)]
        for number, channel in enumerate(channels):
            channel.send(f"number {number}\n".encode())
        for number, channel in reversed(list(enumerate(channels))):
            assert channel.recv(100) == f"number {number}\n".encode()
            channel.close()

    def test_sending_to_a_command_that_has_ended_fails(self, transport: Transport) -> None:
        """It fails sooner or later, because pipes and windows take some bytes."""
        channel = transport.open("exit 0")
        assert read_all(channel) == b""
        with pytest.raises(ConnectionLost):
            channel.send(bytes(64 << 20))

    def test_errors_name_the_host(self, transport: Transport) -> None:
        """They have the name that the user gave, and the phase."""
        channel = transport.open("read line")
        channel.close()
        with pytest.raises(ConnectionLost) as caught:
            channel.recv(1)
        assert (caught.value.host, caught.value.phase) == (transport.host, "session")

    def test_a_command_killed_by_a_signal_has_no_status_of_success(self, transport: Transport) -> None:
        """The status is None, or at least 128."""
        channel = transport.open("kill -9 $$")
        assert read_all(channel) == b""
        status = channel.exit_status(1.0)
        assert status is None or status == 128 + signal.SIGKILL


class TestLinks:
    """The end of a link is a loss, and not the end of the command."""

    @BOTH_WAYS
    def test_a_dropped_link_is_told_from_an_end(self) -> None:
        """For paramiko, both are empty reads."""
        with DemoServer() as server:
            transport = SshTransport("gpu1", options(server))
            channel = transport.open("echo ready; read line")
            assert channel.recv(6) == b"ready\n"
            heard = in_thread(lambda: channel.recv(1))
            server.drop_connections()
            assert isinstance(heard.get(timeout=PATIENCE), ConnectionLost)
            with pytest.raises(ConnectionLost):
                channel.send(b"x")
            again = transport.open("echo again")
            assert read_all(again) == b"again\n"
            transport.close()

    @BOTH_WAYS
    def test_what_arrived_before_the_loss_is_read(self) -> None:
        """The bytes come first, then the loss."""
        with DemoServer() as server:
            transport = SshTransport("gpu1", options(server))
            channel = transport.open("printf 1234567890; read line")
            assert channel.recv(4) == b"1234"
            server.drop_connections()
            said = b""
            with pytest.raises(ConnectionLost):
                while True:
                    said += channel.recv(4)
            assert said == b"567890"
            transport.close()

    @BOTH_WAYS
    def test_a_closed_transport_leaves_no_thread_and_opens_nothing(self) -> None:
        """A server that stops leaves no process either."""
        before = links()
        with DemoServer() as server:
            transport = SshTransport("gpu1", options(server))
            channel = transport.open("echo $$; setsid tail -f /dev/null")
            pid = int(channel.recv(20))
            transport.close()
            with pytest.raises(ConnectionLost):
                transport.open("true")
            assert links_left(before) == []
        assert not Path(f"/proc/{pid}").exists()

    def test_algorithms(self, demo_server: DemoServer) -> None:
        """AES-GCM is used if the host has it. Weak algorithms are never offered."""
        transport = SshTransport("gpu1", options(demo_server))
        transport.open("true")
        link = transport._chain[-1].transport
        assert link.local_cipher == link.remote_cipher == "aes128-gcm@openssh.com"
        offer = link.get_security_options()
        offered = {*offer.ciphers, *offer.digests, *offer.kex, *offer.key_types}
        assert not [name for name in offered if re.search(r"md5|sha1\b|3des|cbc|ssh-rsa|ssh-dss|arcfour", name)]
        transport.close()

    def test_the_socket_is_tuned(self, demo_server: DemoServer) -> None:
        """It has TCP_NODELAY, TCP_USER_TIMEOUT and keepalives, and eager acknowledgements only at the start."""
        transport = SshTransport("gpu1", options(demo_server))
        channel = transport.open("echo x")
        sock = transport._chain[-1].transport.sock
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.is_eager
        read_all(channel)
        assert not sock.is_eager
        transport.close()

    def test_fabric_reads_no_configuration(
        self, demo_server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It reads neither its own files nor ssh's, because both could change whom we trust."""
        opened: list[str] = []
        home = tmp_path / "home"
        (home / ".ssh").mkdir(parents=True)
        (home / ".ssh" / "config").write_text("Host *\n  ProxyCommand false\n")
        (home / ".fabric.yaml").write_text("connect_kwargs: {password: x}\n")
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.chdir(home)
        (home / "fabric.yaml").write_text("gateway: nowhere\n")
        how = options(demo_server)
        sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
        transport = SshTransport("gpu1", how)
        assert read_all(transport.open("echo in")) == b"in\n"
        transport.close()
        assert not [path for path in opened if path.startswith(str(home)) and "id_" not in path]


@pytest.mark.openssh
class TestOpenSsh:
    """What a real sshd does."""

    def test_the_test_host_has_none_of_our_files(self, openssh_host: OpenSshHost) -> None:
        """This checks the test host itself."""
        said = openssh_host.run(f"ls -A /tmp /root {Path(__file__).resolve().parents[3]}; id -un", user="runner")
        assert said.stdout.split("\n")[-2] == "runner" or "runner" in said.stdout
        assert "conftest.py" not in said.stdout
        assert "pyproject.toml" not in said.stdout

    @pytest.mark.parametrize("ssh", ["fabric", "openssh"])
    def test_a_killed_session_is_a_loss(self, openssh_host: OpenSshHost, ssh: str) -> None:
        """The next session uses a new connection."""
        transport = make_transport(openssh_host.spec(ssh=ssh))
        channel = transport.open("echo ready; read line")
        assert channel.recv(6) == b"ready\n"
        heard = in_thread(lambda: channel.recv(1))
        assert openssh_host.kill_sessions()
        assert isinstance(heard.get(timeout=PATIENCE), ConnectionLost)
        assert read_all(transport.open("echo again")) == b"again\n"
        transport.close()

    @pytest.mark.parametrize("ssh", ["fabric", "openssh"])
    @pytest.mark.slow
    def test_a_link_on_which_nobody_answers_is_found(self, openssh_host: OpenSshHost, ssh: str) -> None:
        """This is like a pulled cable: no end of file arrives, and paramiko's keepalive would notice after 16 minutes."""
        iptables = need_programs("iptables")["iptables"]
        rule = ["INPUT", "-p", "tcp", "-i", "lo", "--dport", str(openssh_host.port), "-j", "DROP"]
        transport = make_transport(openssh_host.spec(ssh=ssh))
        channel = transport.open("echo ready; read line")
        assert channel.recv(6) == b"ready\n"
        subprocess.run([iptables, "-w", "-I", *rule], check=True)
        try:
            assert isinstance(in_thread(lambda: channel.recv(1)).get(timeout=60), ConnectionLost)
        finally:
            subprocess.run([iptables, "-w", "-D", *rule], check=True)
        assert read_all(transport.open("echo again")) == b"again\n"
        transport.close()

    def test_too_many_sessions_are_refused_by_name(self, openssh_host: OpenSshHost) -> None:
        """MaxSessions is 10 by default."""
        transport = make_transport(openssh_host.spec(ssh="fabric"))
        held = []
        with pytest.raises(AgentError, match="refuses a session") as caught:
            for _ in range(11):
                held.append(transport.open("read line"))  # noqa: PERF401 (kept although a later one raises)
        assert len(held) == 10
        assert "MaxSessions" in caught.value.next_step
        transport.close()

    @pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
    def test_a_host_with_several_keys_is_asked_for_the_known_one(self, tmp_path: Path, kind: str) -> None:
        """It is asked by type, for rsa with SHA-2 signatures."""
        with running_openssh_host(tmp_path / "host", key_types=("ed25519", "ecdsa", "rsa")) as host:
            lines = host.known_hosts.read_text().splitlines()
            host.known_hosts.write_text("".join(f"{line}\n" for line in lines if kind in line))
            transport = make_transport(host.spec())
            assert read_all(transport.open("echo in")) == b"in\n"
            transport.close()

    @pytest.mark.parametrize("ssh", ["fabric", "openssh"])
    def test_no_host_is_lost_to_max_startups(self, tmp_path: Path, ssh: str) -> None:
        """Thirty controllers connect at once to a host that takes two. All of them get in."""
        with running_openssh_host(tmp_path / "host", settings=["MaxStartups 2:50:4"]) as host:
            transports = [make_transport(host.spec(ssh=ssh)) for _ in range(12)]
            results = [in_thread(lambda one=one: read_all(one.open("echo in"))) for one in transports]  # type: ignore[misc]
            assert [result.get(timeout=120) for result in results] == [b"in\n"] * len(transports)
            for transport in transports:
                transport.close()

    def test_what_is_negotiated(self, openssh_host: OpenSshHost) -> None:
        """The algorithms with OpenSSH are those in docs/security.md."""
        transport = SshTransport("gpu1", options(openssh_host))
        transport.open("true")
        link = transport._chain[-1].transport
        assert link.local_cipher == link.remote_cipher == "aes128-gcm@openssh.com"
        assert link.host_key_type == "ssh-ed25519"
        assert link.agreed_on_strict_kex or "OpenSSH_9.2" in link.remote_version
        transport.close()

    @BOTH_WAYS
    def test_a_second_factor_is_named(self, tmp_path: Path) -> None:
        """The launcher does not ask for it. The error has the command that does."""
        settings = ["AuthenticationMethods publickey,keyboard-interactive", "KbdInteractiveAuthentication yes"]
        with running_openssh_host(tmp_path / "host", settings=settings) as host:
            error = refusal(options(host))
            assert isinstance(error, AuthenticationFailed)
            assert "keyboard-interactive" in error.message
            assert "launcher connect gpu1" in error.next_step

    @BOTH_WAYS
    def test_a_host_that_takes_only_passwords(self, tmp_path: Path) -> None:
        """The message says so."""
        settings = ["PubkeyAuthentication no", "PasswordAuthentication yes"]
        with running_openssh_host(tmp_path / "host", settings=settings) as host:
            error = refusal(options(host))
            assert isinstance(error, AuthenticationFailed)
            assert "password" in error.message

    @BOTH_WAYS
    def test_too_many_keys_suggest_identities_only(self, tmp_path: Path) -> None:
        """With MaxAuthTries the host ends the connection. The message suggests IdentitiesOnly."""
        with running_openssh_host(tmp_path / "host", settings=["MaxAuthTries 2"]) as host:
            files = [tmp_path / f"key{number}" for number in range(4)]
            for file in files:
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
            text = host.ssh_config.read_text().replace(f"  IdentityFile {host.identity}\n", "")
            host.ssh_config.write_text(text + "".join(f"  IdentityFile {file}\n" for file in files))
            error = refusal(options(host))
            assert isinstance(error, AuthenticationFailed)
            assert "IdentitiesOnly" in error.next_step

    @pytest.mark.parametrize("ssh", ["fabric", "openssh"])
    def test_long_transfers_are_not_stopped_by_a_key_exchange(self, openssh_host: OpenSshHost, ssh: str) -> None:
        """After half a gibibyte paramiko would exchange keys, and could stop for half a minute."""
        transport = make_transport(openssh_host.spec(ssh=ssh))
        size = 540 << 20
        channel = transport.open(f"head -c {size} /dev/zero")
        count = 0
        while data := channel.recv(1 << 20):
            count += len(data)
        assert count == size
        assert read_all(transport.open("echo still there")) == b"still there\n"
        transport.close()

    @pytest.mark.parametrize("ssh", ["fabric", "openssh"])
    def test_bulk_goes_at_speed_in_both_directions(self, openssh_host: OpenSshHost, ssh: str) -> None:
        """This checks that 64 MiB are correct each way. The benchmarks have the rates."""
        transport = make_transport(openssh_host.spec(ssh=ssh))
        size = 64 << 20
        channel = transport.open(f"head -c {size} | sha256sum; head -c {size} /dev/zero")
        data = bytes(size)
        channel.send(data)
        said = bytearray()
        while len(said) < 64 + 4 + size:
            said += channel.recv(1 << 20)
        import hashlib

        assert said[:64].decode() == hashlib.sha256(data).hexdigest()
        transport.close()
