"""Which way to a host is chosen, and why: `launcher.transports.choice`."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.errors import HostUnreachable
from launcher.transports import choice
from launcher.transports.choice import choose
from launcher.transports.openssh import kept
from launcher.transports.ssh.route import SshOptions
from tests.requirements import need_programs

pytestmark = pytest.mark.usefixtures("runtime_folder")

_KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)).decode()


@pytest.fixture(autouse=True)
def _programs() -> None:
    need_programs("ssh", "ssh-keygen")


@pytest.fixture
def how(tmp_path: Path) -> Callable[..., SshOptions]:
    """Makes the options of a host with these lines in ssh's configuration, and one plain key."""
    key = tmp_path / "id_plain"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    known = tmp_path / "known_hosts"
    known.write_text(f"gpu1 {_KEY}\n")

    def make(*lines: str, identity: Path | None = key, more: str = "") -> SshOptions:
        config = tmp_path / "config"
        text = "Host gpu1\n" + "".join(f" {line}\n" for line in lines)
        text += f" IdentityFile {identity}\n" if identity else ""
        text += f" IdentityAgent none\n UserKnownHostsFile {known}\n GlobalKnownHostsFile none\n"
        config.write_text(text + more)
        return SshOptions("gpu1", config_file=str(config))

    return make


@pytest.fixture
def listener(runtime_folder: Path) -> Iterator[Path]:
    """A socket of this user, at which somebody listens."""
    path = runtime_folder / "socket"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
        one.listen()
        yield path


@pytest.fixture
def up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sockets at which a master answers; only whose they are is looked at."""
    answering: list[str] = []
    monkeypatch.setattr(kept, "_ask", lambda socket, what: os.fspath(socket) in answering)
    return answering


def security_key(folder: Path, name: str) -> Path:
    """A file with the public part of a security key."""
    kind = b"sk-ssh-ed25519@openssh.com"
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (kind, bytes(32), b"ssh:"))
    path = folder / name
    path.write_text("the private part is not read\n")
    Path(f"{path}.pub").write_text(f"{kind.decode()} {base64.b64encode(blob).decode()} me\n")
    return path


class TestAuto:
    """What `auto` chooses."""

    def test_fabric_is_the_usual_way(self, how: Callable[..., SshOptions]) -> None:
        """Nothing asks for more."""
        chosen = choose("gpu1", how(), "auto")
        assert (chosen.name, chosen.may_be_fabric) == ("fabric", True)

    def test_without_the_program_there_is_no_choice(
        self, how: Callable[..., SshOptions], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing but Python is needed here. Who asks for the program is told that there is none."""
        monkeypatch.setattr("launcher.transports.openssh.command.program", lambda: None)
        assert choose("gpu1", how("PKCS11Provider /lib/card.so"), "auto").name == "fabric"
        with pytest.raises(HostUnreachable, match="no `ssh` program") as caught:
            choose("gpu1", how(), "openssh")
        assert caught.value.host == "gpu1"

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("PKCS11Provider /lib/card.so", "PKCS11Provider /lib/card.so"),
            ("KnownHostsCommand /bin/echo %C", "KnownHostsCommand"),
            ("PubkeyAuthentication no", "PubkeyAuthentication no"),
            ("PreferredAuthentications gssapi-with-mic", "PreferredAuthentications gssapi-with-mic"),
            ("ProxyUseFdpass yes", "ProxyUseFdpass"),
        ],
    )
    def test_what_fabric_cannot_do_asks_for_the_program(
        self, how: Callable[..., SshOptions], line: str, said: str
    ) -> None:
        """Fabric must not follow where it could not have been chosen."""
        chosen = choose("gpu1", how(line), "auto")
        assert (chosen.name, chosen.may_be_fabric) == ("openssh", False)
        assert said in chosen.why

    def test_a_command_for_known_hosts_that_fabric_follows_asks_for_nothing(
        self, how: Callable[..., SshOptions]
    ) -> None:
        """Its tokens are ours, too."""
        assert choose("gpu1", how("KnownHostsCommand /bin/echo %I %H %t %f %K"), "auto").name == "fabric"

    def test_what_a_jump_host_needs_counts(self, how: Callable[..., SshOptions]) -> None:
        """The reason names it."""
        options = how("ProxyJump gate", more="Host gate\n PKCS11Provider /lib/card.so\n")
        chosen = choose("gpu1", options, "auto")
        assert chosen.name == "openssh"
        assert "of the jump host gate" in chosen.why

    def test_a_certificate_authority_alone_asks_for_the_program(
        self, how: Callable[..., SshOptions], tmp_path: Path
    ) -> None:
        """Not where a key of the host is known, too, or where its fingerprint is pinned: fabric can verify that."""
        known = tmp_path / "known_hosts"
        known.write_text(f"@cert-authority gpu* {_KEY}\n")
        options = how()
        assert "certificate authority" in choose("gpu1", options, "auto").why
        assert choose("gpu1", replace(options, fingerprint="SHA256:" + "A" * 43), "auto").name == "fabric"
        known.write_text(f"@cert-authority gpu* {_KEY}\ngpu1 {_KEY}\n")
        assert choose("gpu1", options, "auto").name == "fabric"

    def test_a_security_key_asks_for_the_program(self, how: Callable[..., SshOptions], tmp_path: Path) -> None:
        """One that the configuration names."""
        chosen = choose("gpu1", how(identity=security_key(tmp_path, "my_token")), "auto")
        assert chosen.name == "openssh"
        assert "my_token needs its security key" in chosen.why

    def test_a_security_key_that_the_agent_has_asks_for_nothing(
        self, how: Callable[..., SshOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Fabric can use it through the agent."""
        key = security_key(tmp_path, "my_token")
        blob = base64.b64decode(Path(f"{key}.pub").read_text().split()[1])
        monkeypatch.setattr(choice, "_agent_keys", lambda path: {blob})
        assert choose("gpu1", how(identity=key), "auto").name == "fabric"

    @pytest.mark.parametrize("has_ticket", [True, False])
    def test_kerberos_is_taken_where_no_key_is_left(
        self, how: Callable[..., SshOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_ticket: bool
    ) -> None:
        """Debian's configuration always allows Kerberos, so a ticket must be there, too."""
        monkeypatch.setattr(choice, "_has_ticket", lambda: has_ticket)
        none = tmp_path / "no_such_key"
        chosen = choose("gpu1", how("GSSAPIAuthentication yes", identity=none), "auto")
        assert chosen.name == ("openssh" if has_ticket else "fabric")
        assert choose("gpu1", how("GSSAPIAuthentication yes"), "auto").name == "fabric"
        assert choose("gpu1", how("GSSAPIAuthentication no", identity=none), "auto").name == "fabric"


class TestKept:
    """Connections that stand."""

    def test_ours_is_taken(self, how: Callable[..., SshOptions], up: list[str], listener: Path) -> None:
        """Fabric may follow, because it could have been chosen."""
        options = how()
        path = kept.socket_of(options, choice.resolve("gpu1", options)[0])
        path.parent.mkdir(parents=True, mode=0o700)
        listener.rename(path)
        assert choose("gpu1", options, "auto").name == "fabric"
        up.append(str(path))
        chosen = choose("gpu1", options, "auto")
        assert (chosen.name, chosen.socket, chosen.may_be_fabric) == ("openssh", str(path), True)
        assert choose("gpu1", options, "openssh").may_be_fabric is False
        assert choose("gpu1", options, "fabric").name == "fabric"
        assert choose("gpu1", how("PKCS11Provider /lib/card.so"), "auto").may_be_fabric is False

    @pytest.mark.parametrize(
        "changed",
        [
            {"fingerprint": "SHA256:" + "A" * 43},
            {"known_hosts": "/x"},
            {"identity": "/y"},
            {"user": "other"},
            {"port": 9},
        ],
    )
    def test_ours_is_not_taken_for_another_login(
        self, how: Callable[..., SshOptions], changed: dict[str, object]
    ) -> None:
        """One that trusts something else, or leads elsewhere."""
        options = how()
        other = replace(options, **changed)  # type: ignore[arg-type]
        sockets = {kept.socket_of(one, choice.resolve("gpu1", one)[0]) for one in (options, other)}
        assert len(sockets) == 2

    def test_the_users_own_is_taken(self, how: Callable[..., SshOptions], up: list[str], listener: Path) -> None:
        """A ControlMaster that somebody has opened with ssh."""
        up.append(str(listener))
        chosen = choose("gpu1", how(f"ControlPath {listener}"), "auto")
        assert (chosen.name, chosen.socket, chosen.why) == (
            "openssh",
            str(listener),
            "your own ControlMaster to the host is open",
        )

    @pytest.mark.parametrize(
        "line",
        [
            "StrictHostKeyChecking no",
            "StrictHostKeyChecking off",
            "StrictHostKeyChecking accept-new",
            "VerifyHostKeyDNS yes",
            "NoHostAuthenticationForLocalhost yes",
        ],
    )
    def test_the_users_own_is_not_taken_without_host_keys(
        self, how: Callable[..., SshOptions], up: list[str], listener: Path, line: str
    ) -> None:
        """Nobody may have looked at the host's key when it was opened."""
        up.append(str(listener))
        assert choose("gpu1", how(f"ControlPath {listener}", line), "auto").name == "fabric"

    @pytest.mark.parametrize(
        "changed", [{"fingerprint": "SHA256:" + "A" * 43}, {"known_hosts": "known"}, {"identity": "k"}]
    )
    def test_the_users_own_is_not_taken_where_more_is_asked(
        self,
        how: Callable[..., SshOptions],
        up: list[str],
        listener: Path,
        changed: dict[str, object],
    ) -> None:
        """It is not known whether it was opened with just this key of the host, or of the user."""
        up.append(str(listener))
        options = replace(how(f"ControlPath {listener}"), **changed)  # type: ignore[arg-type]
        assert choose("gpu1", options, "auto").name == "fabric"

    def test_a_socket_of_another_user_is_not_used(
        self, how: Callable[..., SshOptions], up: list[str], listener: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever listens there would see everything, and could answer for the host."""
        up.append(str(listener))
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert choose("gpu1", how(f"ControlPath {listener}"), "auto").name == "fabric"

    def test_one_to_a_jump_host_is_taken(self, how: Callable[..., SshOptions], up: list[str], listener: Path) -> None:
        """The host has a login of its own, through it."""
        options = how("ProxyJump gate", more="Host gate\n HostName 192.0.2.1\n")
        _, hops = choice.resolve("gpu1", options)
        path = kept.socket_of(replace(options, address="gate"), hops[0])
        path.parent.mkdir(parents=True, mode=0o700)
        listener.rename(path)
        up.append(str(path))
        chosen = choose("gpu1", options, "auto")
        assert (chosen.name, chosen.socket, dict(chosen.kept_hops)) == ("openssh", None, {"gate": str(path)})
        assert "jump host gate" in chosen.why
