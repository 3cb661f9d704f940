"""Transports: tests for all of them, and tests for what only SSH can get wrong."""

from __future__ import annotations

import base64
import contextlib
import os
import queue
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.demo.server import DemoServer
from launcher.errors import (
    AgentError,
    AuthenticationFailed,
    ConnectionLost,
    HostError,
    HostKeyError,
    HostUnreachable,
)
from launcher.inventory import HostSpec
from launcher.transports.base import Channel, Transport
from launcher.transports.factory import make_transport
from launcher.transports.openssh import transport as openssh_transport
from launcher.transports.openssh.transport import OpenSshTransport
from launcher.transports.process_channel import ProcessChannel
from launcher.transports.ssh import connect, sockets
from launcher.transports.ssh.authentication import KeyAuthentication
from launcher.transports.ssh.config import SshTarget
from launcher.transports.ssh.keys import plain_of, public_part
from launcher.transports.ssh.known_hosts import fingerprint
from launcher.transports.ssh.route import SshOptions
from launcher.transports.ssh.transport import SshTransport
from tests.hosts.openssh import OpenSshHost, running_openssh_host
from tests.requirements import need_programs

_PATIENCE = 30.0
_WAYS = ["local", "embedded", "embedded-ssh", "openssh", "openssh-ssh", "openssh-kept"]


@pytest.fixture(
    params=[pytest.param(way, marks=[pytest.mark.openssh] if way.startswith("openssh") else []) for way in _WAYS]
)
def any_host(request: pytest.FixtureRequest, host_of: Callable[[str], HostSpec]) -> HostSpec:
    """A host of each kind, and each way to it: what holds for one must hold for all."""
    return host_of(request.param)


def read_all(channel: Channel) -> bytes:
    """Read stdout to its end."""
    said = b""
    while data := channel.recv(1 << 16):
        said += data
    return said


def in_thread(work: Callable[[], object]) -> queue.Queue[object]:
    """Run a function in a thread. The queue gets its result or its exception."""
    results: queue.Queue[object] = queue.Queue()

    def run() -> None:
        try:
            results.put(work())
        except Exception as error:
            results.put(error)

    threading.Thread(target=run, daemon=True).start()
    return results


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
        assert channel.exit_status(_PATIENCE) == 7

    def test_carries_every_byte_both_ways(self, transport: Transport) -> None:
        """They arrive unaltered and in order, even more bytes than any buffer on the way holds."""
        channel = transport.open("cat")
        data = bytes(range(256)) * (40 << 10)
        sent = in_thread(lambda: channel.send(data))
        heard = bytearray()
        while len(heard) < len(data):
            heard += channel.recv(1 << 20)
        assert bytes(heard) == data
        assert sent.get(timeout=_PATIENCE) is None
        channel.close()

    def test_reads_no_more_than_asked_for(self, transport: Transport) -> None:
        """A reader that wants three bytes gets at most three."""
        channel = transport.open("printf abcdefgh")
        assert 1 <= len(channel.recv(3)) <= 3

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
        assert sent.get(timeout=_PATIENCE) is None
        assert int(read_all(channel)) == size

    def test_close_ends_a_blocked_send(self, transport: Transport) -> None:
        """The other thread gets an error, so unsent data does not count as sent."""
        size = 48 << 20
        channel = transport.open("echo ready; exec sleep 300")
        assert channel.recv(6) == b"ready\n"
        sent = in_thread(lambda: channel.send(bytes(size)))
        _pass_beside(transport, size)
        channel.close()
        assert isinstance(sent.get(timeout=_PATIENCE), ConnectionLost)

    def test_keeps_the_last_of_stderr(self, transport: Transport) -> None:
        """It keeps 64 KiB of any bytes. stdout does not wait for it."""
        channel = transport.open("head -c 3000000 /dev/zero | tr '\\000' e >&2; printf '\\377the end' >&2; printf out")
        assert read_all(channel) == b"out"
        assert channel.exit_status(_PATIENCE) == 0
        assert channel.stderr().endswith("ee\ufffdthe end")
        assert len(channel.stderr()) <= 64 << 10

    def test_has_no_status_before_the_end(self, transport: Transport) -> None:
        """The status is None, and nothing waits without limit."""
        channel = transport.open("read line; exit 3")
        assert channel.exit_status(0.01) is None
        channel.send(b"\n")
        assert read_all(channel) == b""
        assert channel.exit_status(_PATIENCE) == 3

    def test_close_ends_a_blocked_read(self, transport: Transport) -> None:
        """In another thread."""
        channel = transport.open("echo ready; read line")
        assert channel.recv(6) == b"ready\n"
        heard = in_thread(lambda: channel.recv(1))
        channel.close()
        assert isinstance(heard.get(timeout=_PATIENCE), ConnectionLost)

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


class TestLocal:
    """The local transport, which is a subprocess."""

    def test_ctrl_c_in_the_terminal_does_not_reach_it(self) -> None:
        """Ctrl-C goes to the terminal's foreground process group. The subprocess is in another session."""
        transport = make_transport(HostSpec("local", "local"))
        said = read_all(transport.open("ps -o sid= -p $$"))
        assert int(said) != os.getsid(0)
        transport.close()

    def test_leaves_no_descriptors(self) -> None:
        """Hundreds of channels hold nothing open after they were closed."""
        transport = make_transport(HostSpec("local", "local"))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            channel = transport.open("echo x")
            read_all(channel)
            channel.exit_status(_PATIENCE)
            channel.close()
        assert len(os.listdir("/proc/self/fd")) <= before
        transport.close()

    def test_kills_a_command_that_ignores_its_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is killed with its whole group, after a grace period."""
        monkeypatch.setattr("launcher.transports.process_channel._GRACE", 0.0)
        transport = make_transport(HostSpec("local", "local"))
        channel = transport.open("trap '' TERM HUP PIPE; echo ready; tail -f /dev/null >/dev/null; echo never")
        assert channel.recv(6) == b"ready\n"
        channel.close()
        assert channel.exit_status(_PATIENCE) == 128 + signal.SIGKILL


# --- SSH ------------------------------------------------------------------------------------------------------------


def options(server: DemoServer | OpenSshHost, **fields: object) -> SshOptions:
    """How to reach a server, with some options changed."""
    alias = server.alias if isinstance(server, DemoServer) else server.name
    return replace(SshOptions(alias, config_file=str(server.ssh_config)), **fields)  # type: ignore[arg-type]


@pytest.fixture(params=["fabric", "openssh"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test holds for both ways: in it, `SshTransport` is fabric's, and then the one of the `ssh` program."""
    monkeypatch.setattr(connect, "_FIRST_DELAY", 0.001)
    monkeypatch.setattr(openssh_transport, "_FIRST_DELAY", 0.001)
    if request.param == "openssh":
        need_programs("ssh")
        monkeypatch.setattr(sys.modules[__name__], "SshTransport", OpenSshTransport)
    return str(request.param)


BOTH_WAYS = pytest.mark.usefixtures("each_way")


def links() -> list[threading.Thread]:
    """Return the threads of connections."""
    return [thread for thread in threading.enumerate() if type(thread).__module__ == "paramiko.transport"]


def links_left(before: list[threading.Thread]) -> list[threading.Thread]:
    """Return new threads that do not end."""
    threads = [thread for thread in links() if thread not in before]
    for thread in threads:
        thread.join(_PATIENCE)
    return [thread for thread in threads if thread.is_alive()]


def refusal(how: SshOptions, host: str = "gpu1") -> HostError:
    """Return the error of an open that fails. It leaves nothing open."""
    before = links()
    transport = SshTransport(host, how)
    with pytest.raises(HostError) as caught:
        transport.open("true")
    transport.close()
    assert caught.value.host.startswith(host)
    assert links_left(before) == []
    return caught.value


def new_key(kind: str = "ed25519") -> tuple[str, bytes]:
    """Make a public host key that no host has: its type and its bytes."""
    import asyncssh

    name = {"ed25519": "ssh-ed25519", "ecdsa": "ecdsa-sha2-nistp256"}[kind]
    public = asyncssh.generate_private_key(name).export_public_key().decode().split()
    return public[0], base64.b64decode(public[1])


@BOTH_WAYS
class TestHostKeys:
    """Host keys are verified before anything else is sent."""

    @pytest.fixture
    def server(self) -> Iterator[DemoServer]:
        """A server whose files and logins only this test uses."""
        with DemoServer() as server:
            yield server

    def key(self, server: DemoServer) -> bytes:
        """The host key's bytes."""
        return base64.b64decode(server.host_keys[0].split()[1])

    def refused(self, server: DemoServer, **fields: object) -> HostKeyError:
        """Return the error, after checking that no login was begun."""
        error = refusal(options(server, **fields))
        assert isinstance(error, HostKeyError)
        assert error.phase == "host key"
        assert server.logins == 0
        return error

    def test_an_unknown_key_is_refused_with_fingerprint_and_line(self, server: DemoServer) -> None:
        """When the line is added, the host is known."""
        server.known_hosts.write_text("# nobody\n")
        error = self.refused(server)
        assert fingerprint(self.key(server)) in error.message
        assert "is not known" in error.message
        added = error.next_step.splitlines()[-1]
        assert added == f"[127.0.0.1]:{server.port} {' '.join(server.host_keys[0].split()[:2])}"
        server.known_hosts.write_text(added + "\n")
        transport = SshTransport("gpu1", options(server))
        assert read_all(transport.open("echo in")) == b"in\n"
        transport.close()

    def test_an_unknown_key_is_not_added_whatever_ssh_config_says(self, server: DemoServer) -> None:
        """StrictHostKeyChecking `no` and `accept-new` are only for ssh. We have our own option."""
        server.known_hosts.write_text("")
        text = server.ssh_config.read_text()
        for value in ("no", "accept-new", "off"):
            server.ssh_config.write_text(f"{text}  StrictHostKeyChecking {value}\n")
            self.refused(server)
        assert server.known_hosts.read_text() == ""

    def test_a_changed_key_is_refused_with_both_fingerprints_and_no_line(self, server: DemoServer) -> None:
        """There is nothing to paste."""
        kind, other = new_key()
        server.known_hosts.write_text(
            f"# a comment\n[127.0.0.1]:{server.port}  {kind}  {base64.b64encode(other).decode()}\n"
        )
        error = self.refused(server)
        assert fingerprint(other) in error.message
        assert fingerprint(self.key(server)) in error.message
        assert f"{server.known_hosts}:2" in error.message
        assert server.host_keys[0].split()[1] not in str(error)
        assert "ssh-keygen -R" in error.next_step

    def test_another_type_than_the_known_one_is_a_change(self, server: DemoServer) -> None:
        """A host that cannot show its known key is not offered as new."""
        kind, other = new_key("ecdsa")
        server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {kind} {base64.b64encode(other).decode()}\n")
        assert "CHANGED" in self.refused(server).message

    def test_a_revoked_key_is_refused_even_if_known(self, server: DemoServer) -> None:
        """The message names the line that revokes it."""
        with server.known_hosts.open("a") as file:
            file.write(f"@revoked * {server.host_keys[0]}\n")
        error = self.refused(server, fingerprint=fingerprint(self.key(server)))
        assert "revoked" in error.message
        assert f"{server.known_hosts}:2" in error.message

    def test_revoked_host_keys_count(self, server: DemoServer, tmp_path: Path, each_way: str) -> None:
        """A text file counts. A missing file is refused by name, and so is a binary list that cannot be read."""
        revoked = tmp_path / "revoked"
        text = server.ssh_config.read_text()
        server.ssh_config.write_text(f"{text}  RevokedHostKeys {revoked}\n")
        assert str(revoked) in self.refused(server).message
        revoked.write_text(server.host_keys[0] + "\n")
        assert "revoked" in self.refused(server).message
        revoked.write_bytes(b"SSHKRL\n\x00...")
        error = self.refused(server)
        assert ("binary revocation list" if each_way == "fabric" else str(revoked)) in error.message
        revoked.write_text("# none\n")
        transport = SshTransport("gpu1", options(server))
        assert read_all(transport.open("echo in")) == b"in\n"
        transport.close()

    def test_a_certificate_authority_is_refused_by_name(self, server: DemoServer) -> None:
        """The message says what to do."""
        server.known_hosts.write_text(f"@cert-authority 127.0.0.1,[127.0.0.1]:* {server.host_keys[0]}\n")
        error = self.refused(server)
        assert "certificate authority" in error.message
        assert "fingerprint:" in error.next_step

    def test_a_pin_wins_over_known_hosts(self, server: DemoServer) -> None:
        """This holds whether it matches or not."""
        pin = fingerprint(self.key(server))
        kind, other = new_key()
        assert "pinned" in self.refused(server, fingerprint=fingerprint(other)).message
        server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {kind} {base64.b64encode(other).decode()}\n")
        transport = SshTransport("gpu1", options(server, fingerprint=pin))
        assert read_all(transport.open("echo in")) == b"in\n"
        transport.close()

    def test_accept_new_adds_an_unknown_key_and_never_a_changed_one(self, server: DemoServer) -> None:
        """This needs our own option."""
        server.known_hosts.unlink()
        transport = SshTransport("gpu1", options(server, is_accept_new=True))
        assert read_all(transport.open("echo in")) == b"in\n"
        transport.close()
        line = server.known_hosts.read_text()
        assert line == f"[127.0.0.1]:{server.port} {' '.join(server.host_keys[0].split()[:2])}\n"
        kind, other = new_key()
        server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {kind} {base64.b64encode(other).decode()}\n")
        server.logins = 0
        assert "CHANGED" in self.refused(server, is_accept_new=True).message

    @pytest.mark.parametrize("patterns", ["*", "127.0.0.1", "[127.0.0.*]:*", "x,[127.0.0.1]:{port}"])
    def test_patterns_and_the_name_without_the_port_count(self, server: DemoServer, patterns: str) -> None:
        """As in OpenSSH."""
        server.known_hosts.write_text(f"{patterns.format(port=server.port)} {server.host_keys[0]}\n")
        transport = SshTransport("gpu1", options(server))
        assert read_all(transport.open("echo in")) == b"in\n"
        transport.close()

    def test_host_key_alias_is_the_name_to_look_for(self, server: DemoServer) -> None:
        """It is the only name to look for."""
        server.ssh_config.write_text(server.ssh_config.read_text() + "  HostKeyAlias thegpu\n")
        error = self.refused(server)
        assert error.next_step.splitlines()[-1].startswith("thegpu ssh-ed25519 ")
        server.known_hosts.write_text(f"thegpu {server.host_keys[0]}\n")
        transport = SshTransport("gpu1", options(server))
        assert read_all(transport.open("echo in")) == b"in\n"
        transport.close()

    @pytest.mark.parametrize("ssh", ["fabric", "openssh"])
    @pytest.mark.parametrize("known", [0, 1, 2])
    def test_a_host_with_several_keys_is_asked_for_the_known_one(self, known: int, ssh: str) -> None:
        """Otherwise its preferred key would look like a change."""
        with DemoServer(key_types=("ssh-ed25519", "ecdsa-sha2-nistp384", "ssh-rsa")) as server:
            server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {server.host_keys[known]}\n")
            transport = SshTransport("gpu1", options(server))
            assert read_all(transport.open("echo in")) == b"in\n"
            transport.close()


class TestKnownHostsCommand:
    """A KnownHostsCommand runs as under ssh."""

    def how(self, server: DemoServer, folder: Path, script: str, arguments: str = "%I %H %t %f %K") -> SshOptions:
        """A host that no file knows. `asked` has the command's arguments."""
        command = folder / "command"
        command.write_text(f'#!/bin/sh\necho "$@" >>{folder}/asked\n{script}\n')
        command.chmod(0o755)
        config = folder / "config"
        config.write_text(
            f"Host gpu1\n HostName 127.0.0.1\n Port {server.port}\n User demo\n IdentityFile {server.identity}\n"
            f" IdentityAgent none\n UserKnownHostsFile /dev/null\n GlobalKnownHostsFile none\n"
            f" KnownHostsCommand {command} {arguments}\n"
        )
        return SshOptions("gpu1", config_file=str(config))

    def test_keys_that_it_prints_are_known(self, demo_server: DemoServer, tmp_path: Path) -> None:
        """It gets ssh's tokens, once before the host shows a key and once for that key."""
        transport = SshTransport("gpu1", self.how(demo_server, tmp_path, f"cat {demo_server.known_hosts}"))
        assert read_all(transport.open("echo in")) == b"in\n"
        transport.close()
        kind, key = demo_server.host_keys[0].split()[:2]
        name = f"[127.0.0.1]:{demo_server.port}"
        shown = fingerprint(base64.b64decode(key))
        assert (tmp_path / "asked").read_text().splitlines() == [
            f"ORDER {name} NONE NONE NONE",
            f"HOSTNAME {name} {kind} {shown} {key}",
        ]

    @pytest.mark.parametrize(
        ("script", "said"),
        [
            ("true", "its KnownHostsCommand"),
            ("exit 3", "it ended with status 3"),
            ("echo '* ssh-ed25519 AAAA'", "CHANGED"),
        ],
    )
    def test_keys_that_it_does_not_print_are_refused(
        self, demo_server: DemoServer, tmp_path: Path, script: str, said: str
    ) -> None:
        """If the command fails, every key is refused, because it might have said that the key is revoked."""
        error = refusal(self.how(demo_server, tmp_path, script))
        assert isinstance(error, HostKeyError)
        assert said in error.message

    def test_keys_that_it_revokes_are_refused(self, demo_server: DemoServer, tmp_path: Path) -> None:
        """This also holds if a file knows the key."""
        how = self.how(demo_server, tmp_path, f"echo '@revoked * {demo_server.host_keys[0]}'")
        Path(how.config_file or "").write_text(
            Path(how.config_file or "").read_text().replace("/dev/null", str(demo_server.known_hosts))
        )
        assert "revoked" in refusal(how).message

    def test_one_that_cannot_be_run_is_named(self, demo_server: DemoServer, tmp_path: Path) -> None:
        """Nothing has been sent."""
        how = self.how(demo_server, tmp_path, "true")
        (tmp_path / "command").chmod(0o644)
        error = refusal(how)
        assert isinstance(error, HostKeyError)
        assert "KnownHostsCommand" in error.message
        assert "Permission denied" in error.message


class TestIdentity:
    """Only keys are offered, in OpenSSH's order, and nothing is asked."""

    def failed(self, how: SshOptions) -> AuthenticationFailed:
        """Return the error of a login that fails."""
        error = refusal(how)
        assert isinstance(error, AuthenticationFailed)
        assert error.phase == "authenticate"
        return error

    def keygen(self, path: Path, passphrase: str = "") -> Path:
        """Make a key that no server knows."""
        need_programs("ssh-keygen")
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "c", "-f", str(path)]
        subprocess.run(command, check=True)
        return path

    def test_a_key_that_is_not_accepted_is_named_with_the_user(self, demo_server: DemoServer, tmp_path: Path) -> None:
        """A wrong user and a wrong key look the same from here, so the message has both."""
        key = self.keygen(tmp_path / "key")
        error = self.failed(options(demo_server, identity=str(key), user="nobody-in-particular"))
        assert "'nobody-in-particular'" in error.message
        assert str(key) in error.message
        assert "SHA256:" in error.message
        assert "right user" in error.next_step
        assert f"ssh-copy-id -p {demo_server.port}" in error.next_step

    def test_a_key_with_a_passphrase_leads_to_ssh_add(self, demo_server: DemoServer, tmp_path: Path) -> None:
        """The passphrase is never asked for."""
        key = self.keygen(tmp_path / "key", "secret")
        error = self.failed(options(demo_server, identity=str(key)))
        assert "needs a passphrase" in error.message
        assert f"ssh-add {key}" in error.next_step
        Path(f"{key}.pub").unlink()
        assert f"ssh-add {key}" in self.failed(options(demo_server, identity=str(key))).next_step

    def test_a_login_without_any_key_suggests_ssh_keygen(self, demo_server: DemoServer, tmp_path: Path) -> None:
        """The message suggests ssh-keygen."""
        error = self.failed(options(demo_server, identity=str(tmp_path / "none")))
        assert "no key to offer" in error.message
        assert "ssh-keygen" in error.next_step

    def test_a_key_that_others_can_read_is_not_offered(self, demo_server: DemoServer, tmp_path: Path) -> None:
        """`ssh` does the same."""
        key = tmp_path / "key"
        key.write_bytes(demo_server.identity.read_bytes())
        key.chmod(0o644)
        assert "chmod 600" in self.failed(options(demo_server, identity=str(key))).message

    @pytest.mark.parametrize("content", [b"", b"not a key", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END"])
    def test_a_file_without_a_key_is_named(self, demo_server: DemoServer, tmp_path: Path, content: bytes) -> None:
        """The message has the library's error."""
        key = tmp_path / "key"
        key.write_bytes(content)
        key.chmod(0o600)
        assert f"{key}: cannot be used as a key" in self.failed(options(demo_server, identity=str(key))).message

    @pytest.fixture
    def agent(self, tmp_path: Path) -> Iterator[Path]:
        """The socket of a real ssh-agent."""
        need_programs("ssh-agent", "ssh-add")
        path = Path(f"/tmp/launcher-test-agent-{os.getpid()}-{id(tmp_path):x}")  # short: AF_UNIX
        process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert b"SSH_AUTH_SOCK" in process.stdout.readline()
        try:
            yield path
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()
            path.unlink(missing_ok=True)

    def agent_options(self, server: DemoServer, folder: Path, agent: Path, identity: str, more: str = "") -> SshOptions:
        """Options with a configuration that names an agent and an identity file."""
        config = folder / "config"
        config.write_text(
            f"Host gpu1\n HostName 127.0.0.1\n Port {server.port}\n User demo\n IdentityAgent {agent}\n"
            f" IdentityFile {identity}\n UserKnownHostsFile {server.known_hosts}\n GlobalKnownHostsFile none\n{more}"
        )
        return SshOptions("gpu1", config_file=str(config))

    def ssh_add(self, agent: Path, *arguments: str, password: str = "") -> None:
        """Run ssh-add. If it asks for a password, a program gives it."""
        ask = Path(f"{agent}.ask")
        ask.write_text(f"#!/bin/sh\necho {shlex.quote(password)}\n")
        ask.chmod(0o700)
        environ = {**os.environ, "SSH_AUTH_SOCK": str(agent), "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
        try:
            subprocess.run(["ssh-add", "-q", *arguments], env=environ, check=True, capture_output=True)
        finally:
            ask.unlink()

    @BOTH_WAYS
    def test_a_key_of_the_agent_is_used(self, demo_server: DemoServer, tmp_path: Path, agent: Path) -> None:
        """This also holds if its file needs a passphrase, or does not exist."""
        self.ssh_add(agent, str(demo_server.identity))
        transport = SshTransport("gpu1", self.agent_options(demo_server, tmp_path, agent, str(tmp_path / "none")))
        assert read_all(transport.open("echo in")) == b"in\n"
        transport.close()

    def test_identities_only_offers_no_other_key_of_the_agent(
        self, demo_server: DemoServer, tmp_path: Path, agent: Path
    ) -> None:
        """With many keys in an agent, the host would refuse before the right one comes."""
        self.ssh_add(agent, str(demo_server.identity))
        key = self.keygen(tmp_path / "key")
        how = self.agent_options(demo_server, tmp_path, agent, str(key), " IdentitiesOnly yes\n")
        error = self.failed(how)
        assert "of the agent" not in error.message
        self.ssh_add(agent, str(key))
        assert "of the agent" in self.failed(how).message

    def test_a_locked_agent_is_named(self, demo_server: DemoServer, tmp_path: Path, agent: Path) -> None:
        """It gives the same answer as an empty one."""
        key = self.keygen(tmp_path / "key", "secret")
        self.ssh_add(agent, str(demo_server.identity))
        self.ssh_add(agent, "-x", password="lock")
        error = self.failed(self.agent_options(demo_server, tmp_path, agent, str(key)))
        assert "is locked or holds no key" in error.message
        assert "ssh-add -X" in error.next_step
        error = self.failed(self.agent_options(demo_server, tmp_path, agent, str(tmp_path / "none")))
        assert "no key could be offered" in error.message
        assert "ssh-add -X" in error.next_step

    def test_a_missing_agent_is_named(self, demo_server: DemoServer, tmp_path: Path) -> None:
        """A stale SSH_AUTH_SOCK is common. Other keys still count."""
        how = self.agent_options(demo_server, tmp_path, tmp_path / "no-agent", str(tmp_path / "none"))
        assert f"the agent at {tmp_path}/no-agent does not answer" in self.failed(how).message
        how = self.agent_options(demo_server, tmp_path, tmp_path / "no-agent", str(demo_server.identity))
        transport = SshTransport("gpu1", how)
        assert read_all(transport.open("echo in")) == b"in\n"
        transport.close()

    @BOTH_WAYS
    def test_a_public_file_names_a_key_of_the_agent(self, demo_server: DemoServer, tmp_path: Path, agent: Path) -> None:
        """1Password and others need this: no file has a private key, and only this one of many keys is offered."""
        self.ssh_add(agent, str(demo_server.identity))
        for number in range(3):
            self.ssh_add(agent, str(self.keygen(tmp_path / f"other{number}")))
        only = tmp_path / "only.pub"
        public = subprocess.run(["ssh-keygen", "-y", "-f", demo_server.identity], capture_output=True, check=True)
        only.write_bytes(public.stdout)
        only.chmod(0o644)
        how = self.agent_options(demo_server, tmp_path, agent, str(only), " IdentitiesOnly yes\n")
        transport = SshTransport("gpu1", how)
        assert read_all(transport.open("echo in")) == b"in\n"
        transport.close()

    def test_a_public_file_without_its_key_is_named(self, demo_server: DemoServer, tmp_path: Path, agent: Path) -> None:
        """It is not reported as a private key that others can read."""
        public = Path(f"{self.keygen(tmp_path / 'key')}.pub")
        error = self.failed(self.agent_options(demo_server, tmp_path, agent, str(public)))
        assert f"{public}: is a public key, and the agent does not have the private one" in error.message
        assert "chmod" not in error.message
        assert "ssh-add -l" in error.next_step

    @pytest.mark.parametrize(
        "case",
        [
            pytest.param(
                case, marks=[] if case == "key in the agent, certificate beside its file" else pytest.mark.slow
            )
            for case in (
                "key in the agent, certificate beside its file",
                "certificate in the agent alone",
                "key and certificate in files",
                "old key file without its public part, certificate beside it",
                "CertificateFile, key in a file",
                "CertificateFile, key in the agent",
                "CertificateFile, and the agent has the certificate",
                "a certificate of another key beside CertificateFile",
            )
        ],
    )
    @pytest.mark.parametrize(
        "kind", ["ed25519", pytest.param("rsa", marks=pytest.mark.slow), pytest.param("ecdsa", marks=pytest.mark.slow)]
    )
    @BOTH_WAYS
    def test_a_certificate_is_used_as_by_ssh(self, tmp_path: Path, agent: Path, case: str, kind: str) -> None:
        """The host trusts only the authority."""
        authority, key = self.keygen(tmp_path / "ca"), tmp_path / "key"
        old = ["-m", "PEM"] if case.startswith("old") and kind != "ed25519" else []
        subprocess.run(["ssh-keygen", "-q", "-t", kind, *old, "-N", "", "-f", str(key)], check=True)
        certify(authority, key)
        certificate = Path(f"{key}-cert.pub")
        more = " IdentitiesOnly yes\n"
        if case == "key in the agent, certificate beside its file":
            certificate.rename(tmp_path / "aside")
            self.ssh_add(agent, str(key))
            (tmp_path / "aside").rename(certificate)
            key.unlink()
        elif case == "certificate in the agent alone":
            self.ssh_add(agent, str(key))
            certificate.rename(tmp_path / "aside")
            self.ssh_add(agent, "-d", f"{key}.pub")
            key.unlink()
            # With it, ssh looks for the private key in the file.
            Path(f"{key}.pub").unlink()
            more = ""
        elif case.startswith("old"):
            Path(f"{key}.pub").unlink()
        elif case.startswith("CertificateFile"):
            if case.endswith("certificate"):
                self.ssh_add(agent, str(key))
                key.unlink()
            certificate.rename(tmp_path / "elsewhere")
            if case.endswith("key in the agent"):
                self.ssh_add(agent, str(key))
                key.unlink()
            more += f" CertificateFile {tmp_path / 'elsewhere'}\n"
        elif case.startswith("a certificate of another"):
            certify(authority, self.keygen(tmp_path / "another"))
            certificate.rename(tmp_path / "elsewhere")
            more += f" CertificateFile {tmp_path}/another-cert.pub\n CertificateFile {tmp_path / 'elsewhere'}\n"
        with Trusting(authority) as server:
            transport = SshTransport("gpu1", self.agent_options(server, tmp_path, agent, str(key), more))
            assert read_all(transport.open("echo in")) == b"in\n"
            transport.close()

    def test_a_key_with_a_certificate_is_offered_without_it_too(self, demo_server: DemoServer, tmp_path: Path) -> None:
        """A host that trusts only the key does not know the authority."""
        key = tmp_path / "key"
        key.write_bytes(demo_server.identity.read_bytes())
        key.chmod(0o600)
        public = subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, check=True)
        Path(f"{key}.pub").write_bytes(public.stdout)
        certify(self.keygen(tmp_path / "ca"), key)
        target = replace(SshTarget("gpu1", "127.0.0.1", "demo", demo_server.port), identity_files=(str(key),))
        offered = [label for label, _ in KeyAuthentication("gpu1", target)._identities()]
        shown = f"{key} {fingerprint(public_part(str(key)))}"
        assert offered == [f"{shown} with certificate {key}-cert.pub", shown]

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
    def test_a_certificate_tells_its_key(self, tmp_path: Path, kind: str) -> None:
        """Its bytes are enough. A truncated one gives no key, and raises nothing."""
        key = tmp_path / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(key)], check=True)
        certify(self.keygen(tmp_path / "ca"), key)
        certificate = public_part(f"{key}-cert.pub")
        assert plain_of(certificate) == public_part(str(key))
        for size in range(len(certificate)):
            plain_of(certificate[:size])

    def test_a_certificate_without_its_key_is_named(self, demo_server: DemoServer, tmp_path: Path, agent: Path) -> None:
        """So is a CertificateFile that has no certificate."""
        key = self.keygen(tmp_path / "other")
        certify(self.keygen(tmp_path / "ca"), key)
        more = f" IdentitiesOnly yes\n CertificateFile {key}-cert.pub\n CertificateFile {key}\n"
        message = self.failed(self.agent_options(demo_server, tmp_path, agent, str(tmp_path / "none"), more)).message
        assert f"{key}-cert.pub: neither the agent nor an IdentityFile has its private key" in message
        assert f"{key}: not a certificate" in message

    def test_keys_for_a_provider_are_named(self, demo_server: DemoServer, tmp_path: Path, agent: Path) -> None:
        """These are a smart card's library, and the key file of a security key."""
        key = self.keygen(tmp_path / "key")
        name = b"sk-ssh-ed25519@openssh.com"
        blob = len(name).to_bytes(4, "big") + name + (32).to_bytes(4, "big") + bytes(32) + bytes(4)
        Path(f"{key}.pub").write_bytes(name + b" " + base64.b64encode(blob))
        how = self.agent_options(demo_server, tmp_path, agent, str(key), " PKCS11Provider /lib/card.so\n")
        message = self.failed(how).message
        assert "PKCS11Provider /lib/card.so: not supported here" in message
        assert f"{key}: needs its security key" in message

    def test_an_agent_that_sends_nonsense_is_named(self, demo_server: DemoServer, tmp_path: Path) -> None:
        """It affects nothing else."""
        path = Path(f"/tmp/launcher-test-nonsense-{os.getpid()}")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            try:
                listener.listen()

                def answer() -> None:
                    peer, _ = listener.accept()
                    with peer:
                        peer.recv(100)
                        peer.sendall(b"\x00\x00\x00\x01\x05")

                in_thread(answer)
                how = self.agent_options(demo_server, tmp_path, path, str(tmp_path / "none"))
                assert "does not answer" in self.failed(how).message
            finally:
                path.unlink()


def certify(authority: Path, key: Path) -> None:
    """Make `key`-cert.pub for the demo's user."""
    command = ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", "demo", f"{key}.pub"]
    subprocess.run(command, check=True)


class Trusting(DemoServer):
    """A server that trusts an authority, and no single key."""

    def __init__(self, authority: Path) -> None:
        super().__init__()
        self._authority = Path(f"{authority}.pub").read_text()

    def _make_keys(self, folder: Path, asyncssh: object) -> None:
        super()._make_keys(folder, asyncssh)
        self._authorized.write_text(f"cert-authority {self._authority}")


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket, int], None]) -> Iterator[int]:
    """Run a TCP server that handles each connection with a function. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            number = 0
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=guarded, args=(peer, number), daemon=True).start()
                number += 1

        def guarded(peer: socket.socket, number: int) -> None:
            with peer, contextlib.suppress(OSError):
                serve(peer, number)

        threading.Thread(target=run, daemon=True).start()
        yield listener.getsockname()[1]
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def relay(peer: socket.socket, port: int) -> None:
    """Pass everything on to a port, in both directions, until one side ends."""
    with socket.create_connection(("127.0.0.1", port)) as other:

        def pump(source: socket.socket, target: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(1 << 16):
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=pump, args=(other, peer), daemon=True)
        thread.start()
        pump(peer, other)
        thread.join()


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
        assert begun.wait(_PATIENCE)
        transport.close()
        assert isinstance(result.get(timeout=_PATIENCE), ConnectionLost)

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
            assert dropped.wait(_PATIENCE)
            transport.close()
            assert isinstance(result.get(timeout=_PATIENCE), ConnectionLost)

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
            assert isinstance(heard.get(timeout=_PATIENCE), ConnectionLost)
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
        assert isinstance(heard.get(timeout=_PATIENCE), ConnectionLost)
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


def test_a_read_of_a_process_makes_room_for_a_piece_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for all that a caller would take is fresh memory of the system for each read. All bytes still come, in their order."""
    code = "import os; [os.write(1, bytes([n]) * 300_000) for n in range(5)]"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    channel = ProcessChannel("h", process)
    sizes: list[int] = []
    read = os.read

    def counted(fd: int, size: int) -> bytes:
        sizes.append(size)
        return read(fd, size)

    monkeypatch.setattr(os, "read", counted)
    said = bytearray()
    while data := channel.recv(1 << 24):
        said += data
    channel.close()
    assert said == b"".join(bytes([number]) * 300_000 for number in range(5))
    assert max(sizes) <= 1 << 18
