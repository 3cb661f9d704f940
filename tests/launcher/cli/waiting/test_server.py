"""Who gets a fork of a process that waits. What such a fork is, `test_waiting.py` shows."""

from __future__ import annotations

import array
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("processes that wait need Linux", allow_module_level=True)

from launcher.cli.waiting import server
from launcher.cli.waiting.client import facts
from launcher.cli.waiting.server import WaitingCommand
from remote_agent.agent.zygotes.warm import NO_WARM
from remote_agent.system.waiting import forking
from remote_agent.system.waiting.forking import Refused
from remote_agent.system.waiting.warm_store import WarmStore


@pytest.fixture
def waits(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> WaitingCommand:
    """One that is this process, so that it has all in common with who asks."""
    monkeypatch.delenv(NO_WARM, raising=False)
    monkeypatch.setattr(server, "_open_files", lambda proc: {"0", "1", "2"})
    monkeypatch.setattr(os, "listdir", lambda path, real=os.listdir: ["1"] if path == "/proc/self/task" else real(path))
    return WaitingCommand(WarmStore(str(short_folder)), "command-x", 60.0, ["/a"], frozenset({"READ"}))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection: the command's, and the process's."""
    theirs, ours = socket.socketpair()
    ours.settimeout(10)
    with theirs, ours:
        yield theirs, ours


def request(**how: Any) -> tuple[Any, ...]:
    """What this process would ask for."""
    said = {
        "argv": ["launcher", "runs"],
        "original": ["p"],
        "path": ["/a"],
        "facts": facts(),
        "variables": dict(os.environb),
    }
    return tuple({**said, **how}.values())


def ask(sock: socket.socket, told: object, fds: int = 4) -> None:
    """Send a request with descriptors."""
    data = repr(told).encode()
    carried = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * fds))] if fds else []
    sock.sendmsg([b"%08x" % len(data) + data], carried)


Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(autouse=True)
def _not_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is as good as one that a shell has started."""
    monkeypatch.setattr(os, "getsid", lambda pid: 1)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"path": ["/b"]}, "sys.path"),
        ({"facts": ("3.1",)}, "another Python"),
        ({"variables": {**os.environb, b"READ": b"1"}}, "READ"),
        ({"variables": {**os.environb, b"LD_PRELOAD": b"x"}}, "LD_PRELOAD"),
        ({"variables": {**os.environb, b"HYDRA_REMOTE_LAUNCHER_NO_WARM": b"1"}}, "own"),
        ({"variables": {**os.environb, b"KRB5CCNAME": b"KEYRING:x"}}, "keyring"),
    ],
)
def test_what_differs_is_refused(waits: WaitingCommand, pair: Pair, how: dict[str, Any], why: str) -> None:
    """The fork would be another process than the command is. No descriptor of who has asked is kept."""
    theirs, ours = pair
    variables = how.get("variables", dict(os.environb))
    variables = {
        name: value for name, value in variables.items() if name != b"HYDRA_REMOTE_LAUNCHER_NO_WARM" or "own" in why
    }
    ask(theirs, request(**{"variables": variables, **{k: v for k, v in how.items() if k != "variables"}}))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Refused, match=why):
        waits.granted(ours)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_same_is_granted(waits: WaitingCommand, pair: Pair) -> None:
    """With its descriptors and its variables, of which most are its own affair."""
    theirs, ours = pair
    variables = {name: value for name, value in os.environb.items() if name != NO_WARM.encode()}
    ask(theirs, request(variables={**variables, b"SECRET": b"\xff"}))
    asked = waits.granted(ours)
    for fd in asked.fds:
        os.close(fd)
    assert (asked.pid, len(asked.fds)) == (os.getpid(), 4)
    assert asked.request.argv == ["launcher", "runs"]
    assert asked.request.variables[b"SECRET"] == b"\xff"


def test_an_import_that_reads_all_variables_serves_nobody(short_folder: Path) -> None:
    """Nobody has the same of all."""
    waits = WaitingCommand(WarmStore(str(short_folder)), "command-x", 60.0, [], None)
    assert "all variables" in waits.misfit_of({})


@pytest.mark.parametrize(
    "told", [(), None, ([], [], [], 1, {}), (["a"], [], [1], 1, {}), (["a"], [], [], 1, {"A": "1"})]
)
def test_what_is_no_request_is_refused(waits: WaitingCommand, pair: Pair, told: object) -> None:
    """Whatever it is."""
    theirs, ours = pair
    ask(theirs, told)
    with pytest.raises(Refused, match="something else"):
        waits.granted(ours)


def test_fewer_descriptors_are_refused(waits: WaitingCommand, pair: Pair) -> None:
    """One may be closed."""
    theirs, ours = pair
    ask(theirs, request(), fds=3)
    with pytest.raises(Refused, match="descriptors"):
        waits.granted(ours)


def test_another_user_is_refused(waits: WaitingCommand, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nobody else can enter the folder."""
    theirs, ours = pair
    monkeypatch.setattr(forking, "peer_of", lambda sock: (os.getpid(), os.geteuid() + 1))
    ask(theirs, request())
    with pytest.raises(Refused, match="another user"):
        waits.granted(ours)
