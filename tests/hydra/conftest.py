"""A host per transport, started once, and what an application's process needs to import this project."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.demo.server import DemoServer
from tests.hosts.openssh import OpenSshHost, running_openssh_host
from tests.hydra.hosts import hosts_file

_PACKAGES = (
    *("antlr4", "hydra", "omegaconf", "packaging", "yaml"),
    *("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "urllib3"),
)
_REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Make applications import this tree, and keep their state out of the user's folders."""
    monkeypatch.setenv("PYTHONPATH", str(_REPOSITORY))
    state = tmp_path_factory.getbasetemp() / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))


@pytest.fixture(scope="session")
def demo_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A hosts file with an SSH server on loopback that shares this machine's files."""
    with DemoServer() as server:
        yield hosts_file(tmp_path_factory.mktemp("demo") / "hosts.yaml", server.alias, server.ssh_config)


@pytest.fixture(scope="session")
def openssh_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSshHost]:
    """A host with a real sshd, without a shared disk or packages."""
    with running_openssh_host(tmp_path_factory.mktemp("openssh") / "host") as host:
        yield host


@pytest.fixture(scope="session")
def openssh_hosts(openssh_host: OpenSshHost, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hosts file with that host."""
    return hosts_file(tmp_path_factory.mktemp("hosts") / "hosts.yaml", openssh_host.name, openssh_host.ssh_config)


@pytest.fixture(scope="session")
def equipped_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A hosts file with a host without a shared disk, whose job environment has Hydra and boto3."""
    folder = tmp_path_factory.mktemp("equipped") / "host"
    for package in _PACKAGES:
        source = Path(str(importlib.import_module(package).__file__)).parent
        shutil.copytree(source, folder / "python" / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(str(importlib.import_module("six").__file__), folder / "python" / "six.py")
    with running_openssh_host(folder, "equipped-host") as host:
        path = tmp_path_factory.mktemp("hosts") / "equipped.yaml"
        yield hosts_file(path, host.name, host.ssh_config, env={"PYTHONPATH": "/opt"})
