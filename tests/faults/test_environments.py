"""Environments on real OpenSSH hosts: links that are lost, builders that are killed, disks that fill. Hosts that are not broken carry on."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import launcher
from benchmarks.proxy import Proxy, running_proxy
from launcher import events
from launcher.environments.uv import uv_program
from launcher.hosts.host_spec import HostSpec
from tests.controllers import wait_agents_ended
from tests.faults.injection import small_disk, through
from tests.hosts.openssh import OpenSshHost, running_openssh_host
from tests.packages import lock_project, make_project, make_wheel

pytestmark = [pytest.mark.openssh, pytest.mark.faults]

TASK = "tests.environment_tasks:versions"
MEGABYTE = 1_000_000
#: What may be on its way when a link is lost, and is sent again: windows of SSH, sockets, and the proxy.
ON_ITS_WAY = 80 * MEGABYTE


@pytest.fixture
def host(tmp_path: Path) -> Iterator[OpenSshHost]:
    """A host for this test alone, because it will be broken."""
    with running_openssh_host(tmp_path / "host") as running:
        yield running


def locked(folder: Path, *names: str, size: int = 0) -> Path:
    """The lock of a project that needs packages of this size each, of contents that nobody has."""
    for name in names:
        files: dict[str, str | bytes] = {f"{name}.py": "version = '1.0'\n"}
        if size:
            files[f"{name}.bin"] = os.urandom(size)
        make_wheel(folder / "index", name, files=files)
    return lock_project(make_project(folder / "project", folder / "index", names))


@contextmanager
def cutting_proxy(host: OpenSshHost, after: int) -> Iterator[Proxy]:
    """A proxy that has the host lose its sessions, once, when this many bytes were sent to it."""
    with running_proxy(host.port) as proxy:
        cuts: list[int] = []

        def count(size: int) -> None:
            proxy.sent += size
            if proxy.sent >= after and not cuts:
                cuts.append(proxy.sent)
                assert host.kill_sessions()

        proxy.count_sent = count  # type: ignore[method-assign]
        yield proxy
        assert cuts


def test_a_link_lost_at_two_thirds_goes_on(host: OpenSshHost, tmp_path: Path) -> None:
    """Of 300 MB what is there is not sent again."""
    lock = locked(tmp_path, "one", "two", "three", size=100 * MEGABYTE)
    total = 300 * MEGABYTE + Path(uv_program()).stat().st_size
    seen: list[events.Event] = []
    with cutting_proxy(host, after=2 * total // 3) as proxy:
        returned = launcher.run(
            TASK,
            {"modules": ["one", "two", "three"]},
            host=through(host, proxy.port, tmp_path),
            environment=str(lock),
            folder=tmp_path / "out",
            observers=[seen.append],
        )
    assert returned.error is None, returned.error
    assert [one for one in seen if isinstance(one, events.HostUnknown)]
    assert total <= proxy.sent < total + ON_ITS_WAY


def test_eight_runs_at_once_of_which_the_builder_is_killed(host: OpenSshHost, tmp_path: Path) -> None:
    """Another one builds it, once, of the files that are there; all eight have their result."""
    hang = "import os; p = os.path.expanduser('~/stuck'); os.path.exists(p) and open(p).read()\n"
    make_wheel(tmp_path / "index", "one", files={"one.py": "version = '1.0'\n", "one.pth": hang})
    lock = lock_project(make_project(tmp_path / "project", tmp_path / "index", ("one",)))
    stuck = host.path(f"/home/{host.user}/stuck")
    os.mkfifo(stuck)
    os.chown(stuck, host.uid, host.uid)
    spec = host.spec()
    command = [sys.executable, "-c", ONE_OF_MANY, spec.address, str(spec.ssh_config), str(lock), str(tmp_path)]
    runs = [subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True) for number in range(8)]
    try:
        builder = threading.Thread(target=kill_builder, args=(host, stuck), daemon=True)
        builder.start()
        said = [json.loads(run.communicate(timeout=240)[0].splitlines()[-1]) for run in runs]
        builder.join(60)
    finally:
        for run in runs:
            run.kill()
            run.wait()
    assert not builder.is_alive()
    assert [one["error"] for one in said] == [None] * 8
    assert len({one["key"] for one in said}) == 1
    wait_agents_ended(host.home / ".local" / "state" / "hydra-remote-launcher")
    envs = host.path(f"/home/{host.user}/.cache/hydra-remote-launcher/envs")
    assert [path.name for path in envs.iterdir() if path.name != ".use"] == [said[0]["key"]]
    # The one that was killed, its successor, and nobody else.
    assert sum("building" in one["states"] for one in said) <= 2


def kill_builder(host: OpenSshHost, stuck: Path) -> None:
    """Kill the agent that builds, when it has got as far as that."""
    # It can be opened when the Python of the first build tries to read it.
    writer = os.open(stuck, os.O_WRONLY)
    lock = next(host.path(f"/home/{host.user}/.cache/hydra-remote-launcher/envs").glob(".lock.*"))
    pid = json.loads(lock.read_text())["pid"]
    stuck.unlink()
    assert host.run(f"kill -9 {pid}").returncode == 0
    os.close(writer)


ONE_OF_MANY = """
import json, sys
import launcher
from launcher import events
address, config, lock, folder, number = sys.argv[1:]
seen = []
returned = launcher.run(
    "tests.environment_tasks:versions", {"modules": ["one"]},
    host={"name": address, "address": address, "ssh_config": config},
    environment=lock, folder=f"{folder}/out{number}", observers=[seen.append],
)
ready = [one for one in seen if isinstance(one, events.EnvironmentReady)]
states = [one.state for one in seen if isinstance(one, events.EnvironmentChanged)]
error = returned.error and returned.error.message
print(json.dumps({"key": ready[0].key if ready else None, "states": states, "error": error}))
"""


def test_a_disk_that_fills_while_files_arrive(host: OpenSshHost, tmp_path: Path) -> None:
    """That host is not used, with phase and next step; another one carries on. When there is room, it goes on where it stopped."""
    lock = locked(tmp_path, "one", "two", size=30 * MEGABYTE)
    cache = f"/home/{host.user}/.cache/hydra-remote-launcher"
    small_disk(host, cache, "size=420m")
    spec = host.spec()
    other = HostSpec("other", "local", workdir=str(tmp_path / "other"))
    seen: list[events.Event] = []

    def fill(event: events.Event) -> None:
        seen.append(event)
        if isinstance(event, events.EnvironmentChanged) and (event.host, event.state) == (spec.name, "sending"):
            host.run(f"cat /dev/zero >{cache}/fill")

    results = launcher.multirun(
        TASK,
        [{"modules": ["one"]}] * 3,
        hosts=[spec, other],
        environment=str(lock),
        folder=tmp_path / "out",
        observers=[fill],
    )
    assert [one.error for one in results] == [None] * 3
    assert {one.host for one in results} == {"other"}
    (unusable,) = [one for one in seen if isinstance(one, events.HostUnusable)]
    # The code arrives at the same time, and may be what finds no room.
    assert (unusable.host, unusable.phase) in {(spec.name, "environment"), (spec.name, "store")}
    assert "No space left on device" in unusable.why
    assert "launcher clean" in unusable.next_step
    assert host.run(f"rm {cache}/fill && mount -o remount,size=1g {cache}").returncode == 0
    returned = launcher.run(
        TASK, {"modules": ["one"]}, host=dataclasses.replace(spec), environment=str(lock), folder=tmp_path / "again"
    )
    assert returned.error is None, returned.error
