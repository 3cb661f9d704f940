"""A server of a test's own, and both ways to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.demo.server import DemoServer
from launcher.transports.openssh import kept
from launcher.transports.openssh import transport as openssh_transport
from launcher.transports.openssh.transport import OpenSshTransport
from launcher.transports.ssh import connect
from launcher.transports.ssh.route import SshOptions
from tests.launcher.transports import links
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


@pytest.fixture(params=["fabric", "openssh"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test holds for both ways: in it, `SshTransport` is fabric's, and then the one of the `ssh` program."""
    monkeypatch.setattr(connect, "_FIRST_DELAY", 0.001)
    monkeypatch.setattr(openssh_transport, "_FIRST_DELAY", 0.001)
    if request.param == "openssh":
        need_programs("ssh")
        for module in (request.module, links):
            monkeypatch.setattr(module, "SshTransport", OpenSshTransport, raising=False)
    return str(request.param)
