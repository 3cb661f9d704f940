"""Keys that a program of the user prints (`KnownHostsCommand`)."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from launcher.demo.server import DemoServer
from launcher.errors import (
    HostKeyError,
)
from launcher.transports.ssh.host_keys.known_hosts import fingerprint
from launcher.transports.ssh.transport import SshOptions, SshTransport
from tests.launcher.transports.links import (
    read_all,
    refusal,
)


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
