"""What all tests share: folders of their own instead of the user's, and hosts to reach."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf.basecontainer import BaseContainer

from launcher.demo.server import DemoServer
from launcher.hosts.host_spec import HostSpec
from launcher.transports.base import Transport
from launcher.transports.factory import make_transport, ssh_options
from launcher.transports.openssh import kept
from tests.examples import load_profile
from tests.hosts.openssh import OpenSshHost, running_openssh_host
from tests.requirements import need_programs


def pytest_configure(config: pytest.Config) -> None:
    """What the tests start hears these signals; under `nohup`, or in a script's background, they would be ignored for good."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Each process of the run reads all test files. Compiling them takes three times as long as all else there, so it is kept.
    sys.dont_write_bytecode = False
    # Whatever is made until all tests are collected stays: looking for garbage among it is a fifth of the work.
    gc.disable()
    load_profile(config)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """All tests are shared out among the cores, and one process more, because most tests wait for processes. Tests that are named run in
    this process: that starts at once, and shows what they print.
    """
    return (os.cpu_count() or 1) + 1 if config.args == config.getini("testpaths") else 0


def pytest_collection_finish() -> None:
    """What was imported and collected stays: a garbage collection in a test need not look through five thousand tests each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Cache and state of the tests are not the user's, and no key of the user's agent is offered to anybody.

    For the whole session, so that it holds in fixtures of a module or a class, too.
    """
    base = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(base / "own-cache"))
        patch.setenv("XDG_STATE_HOME", str(base / "own-state"))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        # Nothing is asked of a network: hosts get the uv of this machine.
        patch.setenv("UV_OFFLINE", "1")
        # A test that wants warm interpreters says so: others would find processes and files of tests before them.
        patch.setenv("HYDRA_REMOTE_LAUNCHER_NO_WARM", "1")
        yield


@pytest.fixture(autouse=True)
def _own_hydra() -> Iterator[None]:
    """Resolvers that an application registers, and a Hydra that it initialises, are gone with its test."""
    resolvers = BaseContainer._resolvers
    BaseContainer._resolvers = dict(resolvers)
    yield
    BaseContainer._resolvers = resolvers
    GlobalHydra.instance().clear()


@pytest.fixture(scope="session", autouse=True)
def _bare_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The `python3` that an embedded host finds has no package, whatever this machine's has: a job that needs one shows it.

    What is started keeps its bytecode, as it would for a user: or each agent of the tests compiles itself once more.
    """
    folder = tmp_path_factory.mktemp("bare-python")
    venv.create(folder, symlinks=True, with_pip=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        yield


@pytest.fixture(scope="session")
def demo_server() -> Iterator[DemoServer]:
    """The embedded asyncssh server. Shared: a test that cuts its links or changes its files makes one of its own."""
    with DemoServer() as server:
        yield server


@pytest.fixture(scope="module")
def openssh_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSshHost]:
    """A host with a real sshd and nothing of this machine's files. Shared by a module."""
    with running_openssh_host(tmp_path_factory.mktemp("openssh") / "host") as host:
        yield host


@pytest.fixture
def host_of(request: pytest.FixtureRequest) -> Callable[[str], HostSpec]:
    """Makes a host of a kind: `local`, `embedded` or `openssh`; behind a `-`, the way to it, which is fabric's otherwise."""

    def make(kind: str) -> HostSpec:
        kind, _, way = kind.partition("-")
        if kind == "local":
            return HostSpec("local", "local")
        if way:
            need_programs("ssh")
        if kind == "embedded":
            server: DemoServer = request.getfixturevalue("demo_server")
            spec = HostSpec(server.alias, server.alias, ssh_config=str(server.ssh_config))
        else:
            host: OpenSshHost = request.getfixturevalue("openssh_host")
            spec = host.spec()
        if way == "kept":
            request.getfixturevalue("kept_connection")
            return replace(spec, ssh="auto")
        return replace(spec, ssh="openssh" if way else "fabric")

    return make


@pytest.fixture(
    params=[
        "local",
        pytest.param("embedded", marks=pytest.mark.slow),
        pytest.param("openssh", marks=pytest.mark.openssh),
    ]
)
def any_host(request: pytest.FixtureRequest, host_of: Callable[[str], HostSpec]) -> HostSpec:
    """A host of each kind: what holds for one must hold for all. Few whole runs over SSH are in the quick suite."""
    return host_of(request.param)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A private folder whose path is short enough for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="l-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def runtime_folder(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where kept connections are, empty and of this test alone."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_folder))
    return short_folder


@pytest.fixture
def kept_connection(openssh_host: OpenSshHost, runtime_folder: Path) -> Iterator[kept.Kept]:
    """A kept connection to the host with a real sshd, as `launcher connect` opens one."""
    opened = kept.open_kept(openssh_host.name, ssh_options(openssh_host.spec()), 600.0)
    yield opened
    kept.close(opened.socket)


@pytest.fixture
def transport(any_host: HostSpec) -> Iterator[Transport]:
    """A transport to a host of each kind, closed at the end."""
    made = make_transport(any_host)
    yield made
    made.close()


@pytest.fixture
def host_folder(any_host: HostSpec, transport: Transport, tmp_path: Path) -> Callable[[], str]:
    """Makes an empty folder on the host, and says where."""

    def make() -> str:
        channel = transport.open("mktemp -d")
        said = b""
        while data := channel.recv(4096):
            said += data
        channel.close()
        return said.decode().strip()

    return make
