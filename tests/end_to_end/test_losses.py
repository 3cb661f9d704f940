"""A connection that is lost before the agent's welcome, at each stage, is a lost connection and not an unusable host."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
import pytest

import launcher
from benchmarks.cutting import CuttingRelay
from launcher import events
from launcher.agents import connection
from launcher.agents.connection import AgentConnection
from launcher.bootstrap import start
from launcher.demo.server import DemoServer
from launcher.engine import engine
from launcher.hosts.host_spec import HostSpec
from launcher.transports.ssh import connect, preconnect
from launcher.transports.ssh.link import Link

APP = Path(__file__).parents[1] / "apps" / "plain"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The imported test application, in its own project folder."""
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


@dataclass
class Way:
    """A host behind a relay, and the events of a run on it."""

    relay: CuttingRelay
    server: DemoServer
    spec: HostSpec
    monkeypatch: pytest.MonkeyPatch
    seen: list[events.Event] = field(default_factory=list)
    #: How often the stage was reached.
    reached: int = 0

    def at(self, owner: Any, name: str, act: Callable[[], None], times: int) -> None:
        """Do something the first times that a function is called."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.reached += 1
            if self.reached <= times:
                act()
            return original(*args, **kwargs)

        self.monkeypatch.setattr(owner, name, wrapped)

    def run(self, task: Any, **options: Any) -> Any:
        """Run one job there."""
        (one,) = launcher.multirun(task, [{"x": 4}], hosts=[self.spec], observers=[self.seen.append], **options)
        return one

    def of(self, kind: type) -> list[Any]:
        """Return the events of a kind."""
        return [event for event in self.seen if isinstance(event, kind)]


@pytest.fixture
def way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    """A way to a host, with short pauses between tries. However slow this machine is, what was tried early has just been tried."""
    monkeypatch.setattr(preconnect, "_FRESH", 600.0)
    monkeypatch.setattr(connection, "_MAX_BACKOFF", 0.1)
    monkeypatch.setattr(connect, "_FIRST_DELAY", 0.001)
    with DemoServer() as server, CuttingRelay(server.port) as relay:
        known, config = tmp_path / "known_hosts", tmp_path / "ssh_config"
        known.write_text(server.known_hosts.read_text().replace(f":{server.port} ", f":{relay.port} "))
        text = server.ssh_config.read_text().replace(str(server.known_hosts), str(known))
        config.write_text(text.replace(f"Port {server.port}", f"Port {relay.port}"))
        yield Way(relay, server, HostSpec("demo", "demo", ssh_config=str(config)), monkeypatch)


#: The function whose entry is the stage.
STAGES: dict[str, tuple[Any, str]] = {
    "after auth": (Link, "open_session"),
    "in stage-0": (start, "start_agent"),
    "in the middle of the bundle": (start._Start, "_send_bundle"),
    "just before the welcome": (AgentConnection, "_greeting"),
}
#: How it breaks there.
BREAKS: dict[str, Callable[[Way, str], None]] = {
    "ended": lambda way, stage: (
        way.relay.cut_after_sending(100_000) if stage == "in the middle of the bundle" else way.relay.cut()
    ),
    "reset": lambda way, stage: way.relay.cut(with_reset=True),
    "altered": lambda way, stage: way.relay.alter(),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_link_that_is_lost_before_the_welcome_is_made_again(way: Way, app: Any, stage: str, how: str) -> None:
    """It is lost twice in a row. The user is told, and the job runs once, in its first attempt."""
    way.at(*STAGES[stage], lambda: BREAKS[how](way, stage), times=2)
    one = way.run(app.train)
    assert one.error is None
    assert one.return_value["doubled"] == 8
    # What is altered behind the whole bundle does not bring it back to that stage.
    assert way.relay.connections >= (2 if (stage, how) == ("in the middle of the bundle", "altered") else 3)
    assert not way.of(events.HostUnusable)
    assert [event.attempt for event in way.of(events.JobAssigned)] == [1]
    assert any("lost before its agent was ready, and tried again" in event.message for event in way.of(events.Note))


@pytest.mark.slow
@pytest.mark.parametrize("size", [21, 60, 600], ids=["after the banner", "in kex", "later in kex"])
def test_a_link_that_is_lost_before_the_login_is_made_again(way: Way, app: Any, size: int) -> None:
    """The link ends without a message, as when sshd sheds load."""
    way.relay.cut_new_after(size, size, size)
    assert way.run(app.train).error is None
    assert way.relay.connections == 4


@pytest.mark.slow
def test_a_handshake_that_was_altered_is_made_again(way: Way, app: Any) -> None:
    """A wrong signature does not come from the host."""
    way.at(paramiko.Transport, "_send_kex_init", way.relay.alter, times=2)
    assert way.run(app.train).error is None
    assert way.reached >= 3


@pytest.mark.slow
def test_a_login_that_was_altered_is_made_again(way: Way, app: Any) -> None:
    """A wrong checksum says nothing about our key."""
    way.at(paramiko.Transport, "auth_publickey", way.relay.alter, times=2)
    assert way.run(app.train).error is None
    assert way.reached == 3


@pytest.mark.parametrize("how", ["ended", pytest.param("reset", marks=pytest.mark.slow)])
def test_a_host_that_ends_the_login_is_not_tried_again(way: Way, app: Any, how: str) -> None:
    """The end of a connection during authentication is an answer, and repeated tries could lock the user out.

    The exception is a connection that was kept waiting, which may have ended because of that. It is made again, once.
    """
    way.at(paramiko.Transport, "auth_publickey", lambda: BREAKS[how](way, ""), times=9)
    one = way.run(app.train)
    assert way.reached in (1, 2)
    (unusable,) = way.of(events.HostUnusable)
    assert unusable.phase == "authenticate"
    assert one.error is not None


@pytest.mark.slow
def test_a_host_that_sheds_load_after_a_loss_is_tried_again(way: Way, app: Any) -> None:
    """Seven refused connections count as one failed try."""

    def lose() -> None:
        way.relay.refused = 20
        way.relay.cut()

    way.at(start, "start_agent", lose, times=1)
    assert way.run(app.train).error is None
    assert way.relay.connections == 22


@pytest.mark.slow
def test_a_killed_connect_is_a_lost_link(way: Way, app: Any) -> None:
    """The process that carries our link does not belong to the set-up, so killing it says nothing about the host."""
    original = start.stage0_command
    commands = []

    def command(*args: Any, **kwargs: Any) -> str:
        commands.append(original(*args, **kwargs))
        return "kill -9 $$" if len(commands) == 1 else "sh -c 'kill -9 $$'" if len(commands) == 2 else commands[-1]

    way.monkeypatch.setattr(start, "stage0_command", command)
    assert way.run(app.train).error is None
    assert len(commands) == 3


@pytest.mark.slow
def test_a_lost_jump_host_is_a_lost_link(way: Way, app: Any, tmp_path: Path) -> None:
    """This also holds during authentication at the host behind it, because that host did not end the connection."""
    config = tmp_path / "through"
    with DemoServer("far") as far:
        known = tmp_path / "known_far"
        known.write_text(far.known_hosts.read_text())
        near = Path(way.spec.ssh_config or "").read_text()
        config.write_text(
            near
            + f"Host far\n  HostName {far.host}\n  Port {far.port}\n  User {far.user}\n  IdentityFile {far.identity}\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {known}\n  ProxyJump demo\n"
        )
        way.spec = HostSpec("far", "far", ssh_config=str(config))
        # The second time in each chain, it is the host's.
        calls = []
        original = paramiko.Transport.auth_publickey

        def auth(transport: Any, *args: Any) -> Any:
            calls.append(transport)
            if len(calls) == 2:
                way.relay.cut()
            return original(transport, *args)

        way.monkeypatch.setattr(paramiko.Transport, "auth_publickey", auth)
        assert way.run(app.train).error is None
        assert len(calls) == 4


def test_a_host_that_loses_every_link_is_given_up(way: Way, app: Any) -> None:
    """It is given up after `host_loss_timeout`, or at most two minutes.

    The message names it, the last error and the number of tries.
    """
    way.at(start, "start_agent", way.relay.cut, times=10_000)
    one = way.run(app.train, host_loss_timeout=0.3)
    (unusable,) = way.of(events.HostUnusable)
    assert "connection is gone" in unusable.why
    assert f"it was tried {way.reached} times" in unusable.why
    assert unusable.next_step
    assert one.error is not None
    assert one.error.kind == "host"


@pytest.mark.slow
def test_a_host_is_tried_three_times_at_least(way: Way, app: Any) -> None:
    """Where the machine is slow one try may take as long as there is time for all: it is no reason to give a host up."""
    way.at(start, "start_agent", way.relay.cut, times=2)
    assert way.run(app.train, host_loss_timeout=0.001).error is None
    assert way.reached == 3


@pytest.mark.parametrize(("timeout", "expected"), [(30.0, 30.0), (600.0, connection.WELCOME_PATIENCE), (0.0, 0.0)])
def test_the_limit_is_the_shorter_of_two(tmp_path: Path, timeout: float, expected: float) -> None:
    """It is the shorter of `host_loss_timeout` and two minutes."""
    made = engine.Engine(
        "r",
        tmp_path,
        [HostSpec("local", "local")],
        lambda spec: pytest.fail("nobody asked"),
        engine.Policies(host_loss_timeout=timeout),
    )
    assert made.connections["local"]._patience == expected
    made.close_journal()
