"""Connections that begin before the run is set up. Until the run needs them, hosts see only a handshake."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import paramiko
import pytest
from omegaconf import OmegaConf

import launcher
from launcher.cli import main
from launcher.demo.server import DemoServer
from launcher.errors import AuthenticationFailed, UsageError
from launcher.hosts.host_spec import HostSpec
from launcher.options import LaunchConf
from launcher.reproduce import reproduce
from launcher.transports import early_connections as early_connect
from launcher.transports.early_connections import EarlyConnections
from launcher.transports.factory import begin_transport
from launcher.transports.ssh import config as ssh_config
from launcher.transports.ssh import preconnect
from launcher.transports.ssh.authentication import KeyAuthentication
from tests.remote_agent.agents import wait_until
from tests.start_hook_tasks import DO, Starter, twice

_PATIENCE = 30.0


@pytest.fixture
def server() -> Iterator[DemoServer]:
    """A server that nobody has logged in to."""
    with DemoServer() as made:
        yield made


@pytest.fixture
def spec(server: DemoServer) -> HostSpec:
    """The server as a host."""
    return HostSpec(server.alias, server.alias, ssh_config=str(server.ssh_config))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """An event that is set when a host has shown its key and it was judged."""
    event = threading.Event()
    wait_wanted = preconnect.Preconnection._wait_wanted

    def noted(ahead: preconnect.Preconnection) -> bool:
        event.set()
        return wait_wanted(ahead)

    monkeypatch.setattr(preconnect.Preconnection, "_wait_wanted", noted)
    return event


def _say(transport: Any, command: str = "echo here") -> bytes:
    channel = transport.open(command)
    said = b""
    while data := channel.recv(1 << 16):
        said += data
    return said


def test_a_host_is_told_nothing_until_it_is_asked_for(server, spec, shown):
    """Its key is judged. Authentication comes with the first command, over the same connection."""
    transport = begin_transport(spec)
    assert shown.wait(_PATIENCE)
    (connection,) = server._connections
    assert server.logins == 0
    assert _say(transport) == b"here\n"
    assert (server.logins, server._connections) == (1, {connection})
    transport.close()


def test_a_run_that_is_refused_has_sent_nothing(server, spec, shown, tmp_path):
    """Its first config is bad, which is noticed only after the host has shown its key."""

    def configs() -> Iterator[Any]:
        assert shown.wait(_PATIENCE)
        assert server._connections
        yield 3

    with pytest.raises(UsageError):
        launcher.multirun(twice, configs(), hosts=[spec], folder=tmp_path / "sweep")
    wait_until(lambda: not server._connections, "the connection to be dropped")
    assert server.logins == 0
    assert not list(server.home.iterdir())


def test_a_callback_that_its_start_hook_makes_unpicklable_has_sent_nothing(server, spec, shown, tmp_path):
    """If the start hook makes a callback unpicklable, that is found before anything is sent."""

    def lock() -> Any:
        assert shown.wait(_PATIENCE)
        return threading.Lock()

    DO["start"] = lock
    with pytest.raises(UsageError, match=r"made.*lock"):
        launcher.run(twice, {"x": 1}, host=spec, callbacks=[Starter()], folder=tmp_path / "run")
    wait_until(lambda: not server._connections, "the connection to be dropped")
    assert server.logins == 0


@pytest.mark.slow
def test_a_run_uses_its_early_connections(server, spec, shown, tmp_path):
    """There is one connection and one login per host."""
    job_return = launcher.run(twice, {"x": 4}, host=spec, folder=tmp_path / "run")
    assert job_return.return_value == 8
    assert shown.is_set()
    assert server.logins == 1


def _after(shown: threading.Event, server: DemoServer, *then: Any) -> Iterator[Any]:
    """Yield these, after the host has shown its key."""
    assert shown.wait(_PATIENCE)
    assert server._connections
    yield from then


@pytest.mark.slow
def test_a_session_connects_from_its_opening_on(server, spec, shown, tmp_path):
    """It connects before it is entered. Its first job uses that connection."""
    callbacks = _after(shown, server)
    with launcher.Session.open(hosts=[spec], callbacks=callbacks, folder=tmp_path / "run") as session:
        assert server.logins == 0
        assert session.submit(twice, {"x": 4}).result(_PATIENCE) == 8
    assert server.logins == 1


def test_a_session_that_is_refused_has_sent_nothing(server, spec, shown, tmp_path):
    """The connection is dropped."""
    with pytest.raises(UsageError, match="not a callback"):
        launcher.Session.open(hosts=[spec], callbacks=_after(shown, server, 3), folder=tmp_path / "run")
    wait_until(lambda: not server._connections, "the connection to be dropped")
    assert server.logins == 0


@pytest.mark.slow
@pytest.mark.parametrize("is_refused", [True, False])
def test_reproducing_connects_early(server, spec, shown, tmp_path, monkeypatch, is_refused):
    """It connects while it finds out what the job needs. A refused one has sent nothing."""
    launcher.run(twice, {"x": 4}, folder=tmp_path / "run")
    set_up = reproduce._set_up

    def slow(*args: Any, **kwargs: Any) -> Any:
        assert shown.wait(_PATIENCE)
        assert (server.logins, bool(server._connections)) == (0, True)
        if is_refused:
            raise UsageError("not so")
        return set_up(*args, **kwargs)

    monkeypatch.setattr(reproduce, "_set_up", slow)
    options = LaunchConf(hosts=(spec,))

    def again() -> reproduce.Reproduction:
        with EarlyConnections.begin(None, options) as early:
            return reproduce.reproduce(str(tmp_path / "run"), options, folder=tmp_path / "again", early=early)

    if is_refused:
        with pytest.raises(UsageError, match="not so"):
            again()
        wait_until(lambda: not server._connections, "the connection to be dropped")
    else:
        assert again().comparison.is_same
    assert server.logins == (0 if is_refused else 1)


def test_the_plugin_connects_while_it_checks_the_first_config(server, spec, shown, monkeypatch):
    """A sweep that is refused has sent nothing."""
    from hydra_plugins.hydra_remote_launcher import _sweep

    def check(sweep: Any, overrides: Any, num: int) -> None:
        assert shown.wait(_PATIENCE)
        assert server._connections
        raise UsageError("not so")

    monkeypatch.setattr(_sweep, "configure_log", lambda *args: None)
    monkeypatch.setattr(_sweep.Sweep, "_check", check)
    sweep = object.__new__(_sweep.Sweep)
    sweep._session = None
    sweep._config = OmegaConf.create({"hydra": {"hydra_logging": None, "verbose": False}})
    sweep._options = LaunchConf(hosts=(spec,))
    with pytest.raises(UsageError, match="not so"):
        sweep.launch([["x=1"]], 0)
    wait_until(lambda: not server._connections, "the connection to be dropped")
    assert server.logins == 0


@pytest.mark.slow
def test_modules_for_the_answer_are_not_imported_before_the_login(server, spec, tmp_path):
    """Such modules are imported while the host starts."""
    late = ("fabric", "invoke", "omegaconf", "yaml", "rich", "pydantic", "asyncio", "hydra")
    script = (
        "import sys, launcher\n"
        "from launcher.engine.engine import Engine\n"
        "from launcher.hosts.host_spec import HostSpec\n"
        "start = Engine.start\n"
        "def noted(engine):\n"
        f"    print(sorted(set({late!r}) & set(sys.modules)))\n"
        "    start(engine)\n"
        "Engine.start = noted\n"
        f"host = HostSpec('host', {spec.address!r}, ssh_config={spec.ssh_config!r})\n"
        f"got = launcher.run('math:hypot', {{}}, host=host, folder={str(tmp_path / 'run')!r})\n"
        "print(sorted({'fabric', 'omegaconf'} & set(sys.modules)))\n"
    )
    root = os.path.abspath(os.path.join(__file__, *[os.pardir] * 4))
    command = [sys.executable, "-c", script]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=60, check=False)
    assert answer.stdout.splitlines() == ["[]", "['fabric', 'omegaconf']"], answer.stderr


@pytest.mark.slow
def test_a_start_hook_may_bring_the_host_up(server, spec, tmp_path):
    """A failure before the hook does not count after it."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    config = tmp_path / "ssh_config"
    text = server.ssh_config.read_text()
    config.write_text(text.replace(f"Port {server.port}", f"Port {port}"))
    done = []

    def bring_up() -> None:
        wait_until(lambda: not _threads(), "the first attempt to fail")
        config.write_text(text)
        done.append("up")

    DO["start"] = bring_up
    job_return = launcher.run(
        twice, {"x": 4}, host=replace(spec, ssh_config=str(config)), callbacks=[Starter()], folder=tmp_path / "run"
    )
    assert done == ["up"]
    assert job_return.return_value == 8


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead ")]


@pytest.mark.parametrize("fresh", [600.0, 0.0])
def test_a_failed_login_is_reported_and_not_tried_again(server, spec, shown, tmp_path, monkeypatch, fresh):
    """An ssh agent may have asked its user for the key that was not accepted. How late the run has asked for it makes no difference."""
    monkeypatch.setattr(preconnect, "_FRESH", fresh)
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    transport = begin_transport(replace(spec, identity=str(other)))
    assert shown.wait(_PATIENCE)
    with pytest.raises(AuthenticationFailed):
        transport.open("true")
    assert server.logins == 1
    transport.close()


@pytest.mark.parametrize("how", ["nobody asked in time", "the host dropped it"])
def test_a_lost_early_connection_is_made_again(server, spec, shown, monkeypatch, how):
    """The set-up of a run may take any time."""
    if how == "nobody asked in time":
        monkeypatch.setattr(preconnect, "_KEPT", 0.0)
    transport = begin_transport(spec)
    assert shown.wait(_PATIENCE)
    if how == "nobody asked in time":
        wait_until(lambda: not _threads(), "the attempt to be given up")
    else:
        server.drop_connections()
        wait_until(lambda: not server._connections, "the link to be cut")
    assert _say(transport) == b"here\n"
    assert server.logins == 1
    transport.close()


class _Gone:
    """A transport whose host ends the connection at the first key, or was gone before and shows it only then."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.is_there = True

    def is_active(self) -> bool:
        return self.is_there

    def auth_publickey(self, user: str, key: Any) -> list[str]:
        self.is_there = False
        raise self.error


@pytest.mark.parametrize("error", [paramiko.AuthenticationException("saw EOF"), ConnectionResetError(104, "reset")])
@pytest.mark.parametrize("has_waited", [True, False])
def test_a_host_that_was_already_gone_has_not_refused_the_key(server, error, has_waited):
    """That may be noticed only when the first key is offered.

    If the connection was not kept waiting, it was ended because of that key.
    """
    target = ssh_config.resolve(server.alias, config_file=str(server.ssh_config))
    identity = KeyAuthentication("demo", target, lambda: has_waited)
    with pytest.raises(EOFError if has_waited else AuthenticationFailed):
        identity.authenticate(cast("Any", _Gone(error)))


def test_a_proxy_command_is_not_started_early(server, spec, shown, tmp_path):
    """The command may ask its user for something."""
    script = tmp_path / "proxy"
    script.write_text(
        f"#!{sys.executable}\nimport os, socket, sys, threading\nopen({str(tmp_path / 'started')!r}, 'w').close()\n"
        f"sock = socket.create_connection(('127.0.0.1', {server.port}))\n"
        "def out():\n    while data := sock.recv(65536): os.write(1, data)\n    os._exit(0)\n"
        "threading.Thread(target=out, daemon=True).start()\n"
        "while data := os.read(0, 65536): sock.sendall(data)\n"
    )
    script.chmod(0o755)
    config = tmp_path / "ssh_config"
    config.write_text(f"{server.ssh_config.read_text()}  ProxyCommand {script}\n")
    transport = begin_transport(replace(spec, ssh_config=str(config)))
    assert shown.wait(_PATIENCE)
    assert not (tmp_path / "started").exists()
    assert _say(transport) == b"here\n"
    assert (tmp_path / "started").exists()
    transport.close()


class TestWhichHosts:
    """The hosts that are connected to early."""

    class _Begun:
        def __init__(self, spec: HostSpec) -> None:
            self.spec = spec
            self.is_closed = False

        def wait_chosen(self, seconds: float) -> str:
            return "fabric"

        def close(self) -> None:
            self.is_closed = True

    @pytest.fixture
    def begun(self, monkeypatch: pytest.MonkeyPatch) -> list[_Begun]:
        """The connections that were begun."""
        made: list[TestWhichHosts._Begun] = []

        def begin(spec: HostSpec) -> TestWhichHosts._Begun:
            made.append(self._Begun(spec))
            return made[-1]

        monkeypatch.setattr(early_connect, "begin_transport", begin)
        return made

    def test_only_some_hosts_are_connected_to_early(self, begun):
        """A hundred hosts must not be a hundred waiting handshakes."""
        with EarlyConnections.begin([f"h{number}" for number in range(100)], LaunchConf()):
            assert len(begun) == 8

    @pytest.mark.parametrize("hosts", [None, ["local"], [{"address": "h", "host_keys": "accept-new"}]])
    def test_hosts_without_a_use_for_it_are_left_out(self, begun, hosts):
        """These are this machine, and a host whose unknown key would be written to a file."""
        with EarlyConnections.begin(hosts, LaunchConf()):
            assert not begun

    def test_a_hosts_file_that_is_a_pipe_is_not_read_early(self, begun, tmp_path):
        """A pipe can be read only once, and the run needs it."""
        os.mkfifo(tmp_path / "hosts")
        with EarlyConnections.begin(None, LaunchConf(hosts_file=str(tmp_path / "hosts"))):
            assert not begun

    def test_unused_connections_are_closed(self, begun):
        """This also holds if the run has other settings for the host."""
        with EarlyConnections.begin(["a", "b"], LaunchConf()) as early:
            a, b = begun
            assert early.pop(a.spec) is a
            assert early.pop(a.spec) is None
            assert early.pop(replace(b.spec, port=1)) is None
        assert (a.is_closed, b.is_closed) == (False, True)

    def test_a_detached_run_has_no_early_connections(self, begun, tmp_path, monkeypatch, capsys):
        """`--detach` sends the jobs and leaves. Without it, the host is connected to while the app is loaded."""
        monkeypatch.chdir(tmp_path)
        for more, count in (["--detach"], 0), ([], 1):
            assert main._main(["run", "nowhere.py", "--host", "h", *more]) == 2
            assert len(begun) == count
        assert "nowhere.py" in capsys.readouterr().err
