"""A server of a test's own, which the `ssh` program reaches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.demo.server import DemoServer
from launcher.transports.openssh import kept
from launcher.transports.ssh.route import SshOptions
from tests.requirements import need_programs


@pytest.fixture
def server() -> Iterator[DemoServer]:
    """A server whose files and logins only this test uses."""
    with DemoServer() as server:
        yield server


@pytest.fixture
def how(server: DemoServer, runtime_folder: Path) -> Iterator[SshOptions]:
    """How to reach it. What is kept at the end is closed."""
    need_programs("ssh")
    yield SshOptions(server.alias, config_file=str(server.ssh_config))
    for one in kept.connections():
        kept.close(one.socket)
