"""Which keys are offered to a host, and what an error says of them."""

from __future__ import annotations

import base64
import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest
from cryptography.exceptions import InvalidTag

from launcher.demo.server import DemoServer
from launcher.errors import (
    AuthenticationFailed,
)
from launcher.transports.ssh.authentication import KeyAuthentication
from launcher.transports.ssh.config import SshTarget
from launcher.transports.ssh.host_keys.known_hosts import fingerprint
from launcher.transports.ssh.keys import plain_of, public_part
from launcher.transports.ssh.transport import SshOptions, SshTransport
from tests.launcher.transports.links import (
    BOTH_WAYS,
    in_thread,
    options,
    read_all,
    refusal,
)
from tests.requirements import need_programs


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

    @pytest.mark.parametrize("why", [paramiko.SSHException("Mismatched MAC"), InvalidTag()])
    def test_what_was_altered_before_the_key_could_be_sent_is_not_an_answer(
        self, demo_server: DemoServer, monkeypatch: pytest.MonkeyPatch, why: Exception
    ) -> None:
        """Paramiko's reading thread has seen it, and closes the connection. Who sends then hears only that it is closed."""
        login, calls = paramiko.Transport.auth_publickey, 0

        def altered(transport: paramiko.Transport, *args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > 1:
                return login(transport, *args)
            transport.saved_exception = why
            raise EOFError

        monkeypatch.setattr(paramiko.Transport, "auth_publickey", altered)
        transport = SshTransport("demo", options(demo_server))
        assert read_all(transport.open("echo in")) == b"in\n"
        transport.close()
        assert calls == 2

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
