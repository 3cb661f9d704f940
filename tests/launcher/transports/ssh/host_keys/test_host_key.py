"""How a host key is judged, over both ways to a host."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.demo.server import DemoServer
from launcher.errors import (
    HostKeyError,
)
from launcher.transports.ssh.host_keys.known_hosts import fingerprint
from launcher.transports.ssh.transport import SshTransport
from tests.launcher.transports.links import (
    BOTH_WAYS,
    new_key,
    options,
    read_all,
    refusal,
)


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

    @pytest.fixture(scope="class")
    def with_several_keys(self) -> Iterator[DemoServer]:
        """Making an RSA key takes longer than a connection."""
        with DemoServer(key_types=("ssh-ed25519", "ecdsa-sha2-nistp384", "ssh-rsa")) as server:
            yield server

    @pytest.mark.parametrize("known", [0, 1, 2])
    def test_a_host_with_several_keys_is_asked_for_the_known_one(
        self, known: int, with_several_keys: DemoServer
    ) -> None:
        """Otherwise its preferred key would look like a change."""
        server = with_several_keys
        server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {server.host_keys[known]}\n")
        transport = SshTransport("gpu1", options(server))
        assert read_all(transport.open("echo in")) == b"in\n"
        transport.close()
