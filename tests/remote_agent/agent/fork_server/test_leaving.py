"""What an agent leaves for the agent of the next run, and stage-0's way to it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.bootstrap.start import stage0_command
from remote_agent.agent.fork_server import leaving
from remote_agent.agent.fork_server.leaving import leave_fork_server, prefix_of
from remote_agent.agent.zygotes.warm import NO_WARM
from remote_agent.protocol import wire
from remote_agent.system.processes import birth, is_alive
from remote_agent.system.waiting.warm_store import WarmRecord, WarmStore
from tests.remote_agent.agents import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="fork servers need Linux")

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing forbids fork servers here, even if this machine has a batch system."""
    monkeypatch.delenv(NO_WARM, raising=False)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "sleep"):
        (programs / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(programs))


@pytest.fixture
def store(short_folder: Path) -> Iterator[WarmStore]:
    """The store of a host's cache folder. What waits there in the end is ended."""
    made = WarmStore(str(short_folder))
    made.make()
    yield made
    for record in made.records():
        if record.pid != os.getpid():
            made.end(record)


@pytest.mark.parametrize("name", ["idle", "variable", "memory", "python"])
def test_none_is_left(name: str, store: WarmStore, short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with warm interpreters: where the user or the host wants none, and when memory is short."""
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **more: pytest.fail("one was started"))
    if name == "variable":
        monkeypatch.setenv(NO_WARM, "1")
    elif name == "memory":
        monkeypatch.setattr(leaving, "free_memory", lambda: 0.19)
    elif name == "python":
        monkeypatch.setattr(sys, "executable", "")
    leave_fork_server(str(short_folder), str(ROOT), 0.0 if name == "idle" else 60.0)
    assert not store.records()


def test_none_is_left_on_a_full_disk(store: WarmStore, short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a process nor a file of it."""
    started = []

    def write(self: WarmStore, record: WarmRecord) -> None:
        started.append(record)
        raise OSError("no space")

    monkeypatch.setattr(WarmStore, "write", write)
    leave_fork_server(str(short_folder), str(ROOT), 60.0)
    assert not is_alive(started[0].pid, started[0].started)


@contextlib.contextmanager
def _sleeping(store: WarmStore, name: str, since: float) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        store.write(WarmRecord(name, process.pid, birth(process.pid), "", "python", since, 600.0))
        yield process
        process.kill()


@pytest.mark.slow
def test_at_most_two_are_on_a_host(store: WarmStore, short_folder: Path) -> None:
    """The oldest goes. A warm interpreter does not count."""
    now = time.time()
    with (
        _sleeping(store, "agent-a-1", now - 3) as oldest,
        _sleeping(store, "agent-b-1", now - 2) as other,
        _sleeping(store, "0" * 32 + "-1", now - 9) as interpreter,
    ):
        leave_fork_server(str(short_folder), str(ROOT), 60.0)
        assert oldest.wait(60)
        assert other.poll() is interpreter.poll() is None
        assert len(store.records()) == 3


def _prefix_in_stage0(sha256: str, python: str) -> str:
    """What stage-0 looks for: it makes the name by itself, because it has imported nothing then."""
    text = (ROOT / "launcher" / "bootstrap" / "stage0.py").read_text()
    (found,) = re.findall(r"^    name = (.*)$", text, re.MULTILINE)

    class Sys:
        executable = python

    return str(eval(found, {"SHA256": sha256, "sys": Sys, "os": os, "zlib": zlib}))


@pytest.mark.parametrize("path", ["/usr/bin/python3", "/opt/a b/\udce4\u20ac/python"])
def test_stage_0_looks_for_the_name_that_agents_give(path: str) -> None:
    """Of this bundle and this Python, whatever its path."""
    sha256 = "0123456789abcdef" * 4
    name = prefix_of(f"/x/agents/{sha256}", path)
    assert name == _prefix_in_stage0(sha256, path)
    assert name not in {prefix_of(f"/x/agents/{'f' * 64}", path), prefix_of(f"/x/agents/{sha256}", path + "3")}


class Host:
    """A host's folder with the agent's files under a bundle's name; stage-0 runs here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sha256 = "ab" * 32
        agents = folder / "cache" / "agents"
        agents.mkdir(parents=True, mode=0o700)
        for made in (folder, folder / "cache", agents):
            made.chmod(0o700)
        self.bundle = agents / self.sha256
        self.bundle.mkdir(mode=0o700)
        (self.bundle / "remote_agent").symlink_to(ROOT / "remote_agent")
        self.store = WarmStore(str(folder / "cache"))

    @contextlib.contextmanager
    def connected(self, run: str, *more: str) -> Iterator[int]:
        """Run stage-0 as sshd does. Gives the process of the run's agent, and ends the link afterwards."""
        role = ["connect", "--run", run, "--host", "h", "--workdir", str(self.folder), *more]
        line = stage0_command(self.sha256, 1, role, sys.executable, str(self.folder))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        # Without `env`, it would also get what the readline library sets here behind Python's back.
        with subprocess.Popen(["/bin/sh", "-c", line], env=dict(os.environ), **pipes) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                assert process.stdout.read(len(wire.PREAMBLE)) == wire.PREAMBLE
                paths = wait_until(
                    lambda: list((self.folder / "state" / "runs" / run).glob("*/agent.json")), "an agent"
                )
                agent = int(json.loads(paths[0].read_text())["pid"])
                yield agent
                process.stdin.close()
                assert process.wait(60) == 0
            finally:
                process.kill()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(agent, signal.SIGKILL)

    def left(self) -> WarmRecord:
        """Leave a fork server, and wait until it waits."""
        before = {one.name for one in self.store.records()}
        leave_fork_server(str(self.folder / "cache"), str(self.bundle), 60.0)
        (new,) = [one for one in self.store.records() if one.name not in before]
        wait_until(lambda: self.store.is_waiting(new), "a fork server")
        return new


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host. What waits there in the end is ended."""
    made = Host(tmp_path / "host")
    yield made
    for record in made.store.records():
        made.store.end(record)


def _is_forked(agent: int) -> bool:
    """Whether an agent was forked from a fork server, by the command line that it has."""
    return b"fork_server" in Path(f"/proc/{agent}/cmdline").read_bytes()


@pytest.mark.slow
def test_agents_are_forked_from_the_one_that_waits(host: Host) -> None:
    """It serves one run after another. A run that wants to start cold does."""
    with host.connected("r0") as agent:
        assert not _is_forked(agent)
    host.left()
    for run in ("r1", "r2"):
        with host.connected(run) as agent:
            assert _is_forked(agent)
    with host.connected("r3", "--cold", "yes") as agent:
        assert not _is_forked(agent)


@pytest.mark.slow
def test_a_run_outlives_its_fork_server(host: Host) -> None:
    """Neither the link nor the agent needs it."""
    record = host.left()
    with host.connected("r1") as agent:
        host.store.end(record)
        wait_until(lambda: not is_alive(record.pid, record.started), "its end")
        assert _is_forked(agent)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["variable", "limit", "stopped", "killed"])
def test_a_misfit_is_a_cold_start(how: str, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent starts all the same, once."""
    record = host.left()
    if how == "variable":
        monkeypatch.setenv("LD_BIND_NOW", "1")
    elif how == "limit":
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.prlimit(record.pid, resource.RLIMIT_NOFILE, (soft - 1, hard))
    else:
        os.kill(record.pid, signal.SIGSTOP if how == "stopped" else signal.SIGKILL)
    with host.connected("r1") as agent:
        assert not _is_forked(agent)
        if how == "stopped":
            os.kill(record.pid, signal.SIGCONT)
            log = Path(host.store.path(record.name, ".log"))
            wait_until(lambda: "no process was forked" in log.read_text(), "its word")
