"""The test application, and hosts for its jobs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.demo.server import DemoServer
from launcher.hosts.inventory import load_hosts

APP = Path(__file__).parents[2] / "apps" / "plain"


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoServer]:
    """A temporary SSH server."""
    with DemoServer() as server:
        yield server


@pytest.fixture(params=["local", pytest.param("ssh", marks=pytest.mark.slow)])
def hosts(request: pytest.FixtureRequest) -> list[Any]:
    """Hosts to run on: this machine, or one behind SSH with its own home."""
    if request.param == "local":
        return ["local/2"]
    server: DemoServer = request.getfixturevalue("demo")
    return list(load_hosts({"demo": {"address": "demo", "ssh_config": str(server.ssh_config), "slots": 2}}, "test"))


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The test application in its own project folder, imported."""
    project = tmp_path / "project"
    project.mkdir()
    for file in APP.glob("*.py"):
        (project / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    import training

    yield training
    for name in ("training", "helper"):
        sys.modules.pop(name, None)
