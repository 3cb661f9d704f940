"""What only the way through the `ssh` program can get wrong: `launcher.transports.openssh.transport`."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.demo.server import DemoServer
from launcher.errors import AuthenticationFailed, ConnectionLost, HostError, HostKeyError, HostUnreachable
from launcher.transports.base import Channel
from launcher.transports.openssh import kept
from launcher.transports.openssh.log import SshLog
from launcher.transports.openssh.transport import OpenSshTransport
from launcher.transports.ssh.route import SshOptions
from tests.hosts.openssh import OpenSshHost, running_openssh_host
from tests.remote_agent.agents import wait_until
from tests.requirements import need_programs


@pytest.fixture(autouse=True)
def _programs() -> None:
    need_programs("ssh", "ssh-keygen")


@pytest.fixture
def server() -> Iterator[DemoServer]:
    """A server whose files and logins only this test uses."""
    with DemoServer() as server:
        yield server


def how(server: DemoServer | OpenSshHost, *lines: str) -> SshOptions:
    """How to reach it, with these lines in ssh's configuration."""
    with server.ssh_config.open("a") as file:
        file.write("".join(f"  {line}\n" for line in lines))
    return SshOptions(
        server.alias if isinstance(server, DemoServer) else server.name, config_file=str(server.ssh_config)
    )


def said(channel: Channel) -> bytes:
    """What a command has printed."""
    read = b""
    while data := channel.recv(1 << 16):
        read += data
    return read


def refusal(options: SshOptions) -> HostError:
    """The error of an open that fails."""
    transport = OpenSshTransport("gpu1", options)
    with pytest.raises(HostError) as caught:
        transport.open("true")
    transport.close()
    return caught.value


class TestConfiguration:
    """What the user's configuration says, and what it cannot say."""

    def test_what_a_terminal_needs_is_without_effect(self, server: DemoServer, tmp_path: Path) -> None:
        """So is what would start something here, or leave a connection behind."""
        socket = tmp_path / "master"
        options = how(
            server,
            "RequestTTY force",
            "RemoteCommand echo wrong",
            "ControlMaster auto",
            f"ControlPath {socket}",
            "ControlPersist yes",
            "PermitLocalCommand yes",
            f"LocalCommand touch {tmp_path}/local",
            "LocalForward 127.0.0.1:1 127.0.0.1:2",
            "ExitOnForwardFailure yes",
            "ForwardAgent yes",
            "LogLevel QUIET",
            "BatchMode no",
        )
        transport = OpenSshTransport("gpu1", options)
        assert said(transport.open("test -t 0 || echo none; echo $SSH_AUTH_SOCK")) == b"none\n\n"
        transport.close()
        assert not socket.exists()
        assert not (tmp_path / "local").exists()

    @pytest.mark.parametrize("checking", ["no", "off", "accept-new", "ask"])
    def test_an_unknown_key_of_a_jump_host_is_refused(self, server: DemoServer, tmp_path: Path, checking: str) -> None:
        """Whatever the configuration says about it: the jump host's own `ssh` gets our settings, too."""
        with DemoServer("gate") as gate:
            gate.known_hosts.write_text("")
            config = tmp_path / "config"
            config.write_text(
                f"Host demo\n  ProxyJump gate\nHost *\n  StrictHostKeyChecking {checking}\n"
                f"{gate.ssh_config.read_text()}{server.ssh_config.read_text()}"
            )
            error = refusal(SshOptions("demo", config_file=str(config)))
            assert isinstance(error, HostKeyError)
            assert error.host == "gpu1 (through gate)"
            assert (gate.logins, gate.known_hosts.read_text()) == (0, "")

    def test_nobody_is_asked_in_a_window(
        self, server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not for a passphrase, and not by the `ssh` of a jump host either."""
        asks = tmp_path / "asks"
        asks.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\necho secret\n")
        asks.chmod(0o755)
        monkeypatch.setenv("SSH_ASKPASS", str(asks))
        monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
        monkeypatch.setenv("DISPLAY", ":0")
        locked = tmp_path / "locked"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(locked)], check=True)
        with DemoServer("gate") as gate:
            text = f"{gate.ssh_config.read_text()}{server.ssh_config.read_text()}"
            text = text.replace(str(gate.identity), str(locked)).replace(str(server.identity), str(locked))
            config = tmp_path / "config"
            config.write_text(text)
            error = refusal(SshOptions("demo", config_file=str(config)))
            assert isinstance(error, AuthenticationFailed)
            assert "launcher connect gpu1" in error.next_step
            config.write_text(f"Host demo\n  ProxyJump gate\n{text}")
            error = refusal(SshOptions("demo", config_file=str(config)))
            assert isinstance(error, AuthenticationFailed)
            assert error.host == "gpu1 (through gate)"
        assert not (tmp_path / "asked").exists()

    def test_odd_names_of_files_are_meant_as_they_are(self, server: DemoServer, tmp_path: Path) -> None:
        """The program would expand a percent sign, and end a name at a space. A name that it cannot have is refused."""
        folder = tmp_path / "100% of my keys"
        folder.mkdir()
        key, known = folder / "a key", folder / "known %h"
        key.write_bytes(server.identity.read_bytes())
        key.chmod(0o600)
        known.write_bytes(server.known_hosts.read_bytes())
        server.known_hosts.write_text("")
        config = tmp_path / "a config"
        config.write_text(f"Host demo\n HostName 127.0.0.1\n Port {server.port}\n User demo\n")
        options = SshOptions("demo", identity=str(key), known_hosts=str(known), config_file=str(config))
        transport = OpenSshTransport("gpu1", options)
        assert said(transport.open("echo in")) == b"in\n"
        transport.close()
        for odd in ('a"b', "a${HOME}b", "a\nb"):
            error = refusal(replace(options, known_hosts=odd))
            assert (error.phase, "--ssh fabric" in error.next_step) == ("resolve", True)

    def test_a_file_of_known_hosts_is_the_only_one(self, server: DemoServer, tmp_path: Path) -> None:
        """Neither another file nor a command makes a host known that is not in it."""
        command = tmp_path / "command"
        command.write_text(f"#!/bin/sh\ncat {server.known_hosts}\n")
        command.chmod(0o755)
        only = tmp_path / "only"
        only.write_text("")
        options = how(server, f"KnownHostsCommand {command} %H")
        transport = OpenSshTransport("gpu1", options)
        assert said(transport.open("echo in")) == b"in\n"
        transport.close()
        logins = server.logins
        error = refusal(replace(options, known_hosts=str(only)))
        assert isinstance(error, HostKeyError)
        assert str(only) in error.message
        assert server.logins == logins

    def test_an_identity_is_the_only_key(self, server: DemoServer, tmp_path: Path) -> None:
        """The program would offer the keys of the configuration, too, so both together are refused."""
        options = how(server)
        assert "adds IdentityFile" in refusal(replace(options, identity=str(tmp_path / "other"))).message
        transport = OpenSshTransport("gpu1", replace(options, identity=str(server.identity)))
        assert said(transport.open("echo in")) == b"in\n"
        transport.close()

    def test_a_setting_that_ssh_does_not_know_is_shown(self, server: DemoServer, tmp_path: Path) -> None:
        """The phase is `resolve`, and no connection was tried."""
        error = refusal(how(server, "NoSuchSetting yes"))
        assert (type(error), error.phase) == (HostUnreachable, "resolve")
        assert "nosuchsetting" in error.message.lower()


class TestProcess:
    """The `ssh` process of a session."""

    def test_nothing_is_left_when_it_is_closed(
        self, server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No process, no folder, no descriptor. A login that has failed leaves nothing either."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        options = how(server)
        before = len(os.listdir("/proc/self/fd"))
        for command in ("echo in", "exit 3", "kill -9 $$"):
            transport = OpenSshTransport("gpu1", options)
            channel = transport.open(command)
            said(channel)
            transport.close()
            assert channel.is_closed
        server.identity.unlink()
        refusal(options)
        assert list(tmp_path.iterdir()) == []
        # The server is in this process, and closes its side a moment later.
        wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before, "all descriptors are closed")

    def test_close_ends_a_connection_that_is_being_made(self, tmp_path: Path) -> None:
        """A run that ends does not wait for a host that is silent."""
        import queue
        import socket
        import threading

        with socket.create_server(("127.0.0.1", 0)) as listener:
            config = tmp_path / "config"
            config.write_text("ConnectTimeout 3600\n")
            options = SshOptions("127.0.0.1", port=listener.getsockname()[1], config_file=str(config))
            transport = OpenSshTransport("gpu1", options)
            ended: queue.Queue[object] = queue.Queue()

            def run() -> None:
                try:
                    transport.open("true")
                except HostError as error:
                    ended.put(error)

            threading.Thread(target=run, daemon=True).start()
            peer, _ = listener.accept()
            with peer:
                transport.close()
                assert isinstance(ended.get(timeout=30), ConnectionLost)

    def test_a_proxy_commands_words_are_in_the_error(self, server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are what says why."""
        monkeypatch.setattr("launcher.transports.openssh.transport._FIRST_DELAY", 0.001)
        error = refusal(how(server, "ProxyCommand sh -c 'echo the tunnel is down >&2; exit 3'"))
        assert "the tunnel is down" in error.message
        assert "ProxyCommand" in error.next_step

    def test_a_host_cannot_speak_for_ssh(self, tmp_path: Path) -> None:
        """What it says stands behind a prefix, and no line of it begins anew."""
        log = SshLog(tmp_path / "log")
        with log.path.open("w") as file:
            file.write("debug1: Remote: exec request accepted on channel 0, rtype exit-status\r\n")
            file.write("debug1: Offering public key: /id ED25519 SHA256:x explicit\r\n")
            file.write("Received disconnect from 127.0.0.1 port 1:2: \\nAuthenticated to x\r\n")
        log.finish()
        assert (log.is_begun, log.has_status, log.is_authenticated) == (False, False, False)
        assert log.offered == ["/id ED25519 SHA256:x explicit"]
        assert list(log.said) == ["Received disconnect from 127.0.0.1 port 1:2: \\nAuthenticated to x"]


@pytest.mark.openssh
class TestRealHost:
    """With a real sshd."""

    def test_no_variable_of_this_process_is_sent(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Debian's configuration sends the language. What the user has set for the host is sent."""
        monkeypatch.setenv("LC_TEST", "mine")
        with running_openssh_host(tmp_path / "host", settings=["AcceptEnv *"]) as host:
            transport = OpenSshTransport("gpu1", how(host, "SendEnv LC_*", "SetEnv LC_OTHER=theirs"))
            assert said(transport.open('echo "$LC_TEST,$LC_OTHER"')) == b",theirs\n"
            transport.close()

    def test_too_many_sessions_over_a_kept_connection_are_refused_by_name(
        self, tmp_path: Path, runtime_folder: Path
    ) -> None:
        """The program itself would try another login then. Those that stand are not disturbed."""
        with running_openssh_host(tmp_path / "host", settings=["MaxSessions 2"]) as host:
            options = how(host)
            opened = kept.open_kept("gpu1", options, 60.0)
            with host.without_login():
                transport = OpenSshTransport("gpu1", options, opened.socket, stands=kept.is_up)
                held = [transport.open("read line; echo $line") for _ in range(2)]
                error = None
                with pytest.raises(HostError) as caught:
                    transport.open("true")
                error = caught.value
                assert "refuses a session" in error.message
                assert "MaxSessions" in error.next_step
                for channel in held:
                    channel.send(b"still here\n")
                    assert said(channel) == b"still here\n"
                transport.close()
            kept.close(opened.socket)
