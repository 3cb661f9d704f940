"""A Python that cannot run jobs on a host makes that host unusable, by name; the others carry on."""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events
from launcher.hosts.host_spec import HostSpec
from launcher.transports.base import Transport
from tests.start_hook_tasks import when_told

#: Says that it is 3.6, and runs what it is given.
OLD = """#!/usr/bin/env python3
import sys
sys.version_info = (3, 6, 15)
del sys.argv[0]
exec(open(sys.argv[0]).read())
"""

#: What lies there, its mode, and what is told of it.
PYTHONS = {
    "missing": (None, 0, "cannot start {path}: No such file or directory"),
    "not executable": (b"#!/bin/sh\n", 0o644, "cannot start {path}: Permission denied"),
    "of another architecture": (b"\x7fELF\x02\x01\x01" + bytes(57), 0o755, "cannot start {path}: Exec format error"),
    "without its interpreter": (b"#!/no/such/interpreter\n", 0o755, "cannot start {path}: No such file or directory"),
    "silent": (b"#!/bin/sh\nexit 0\n", 0o755, "the job environment's Python did not start: (nothing)"),
    "broken": (
        b"#!/bin/sh\necho no GLIBC >&2\nexit 1\n",
        0o755,
        "the job environment's Python did not start: no GLIBC",
    ),
    "too old": (OLD.encode(), 0o755, "the job environment's Python is 3.6"),
}


@pytest.fixture(autouse=True)
def _in_no_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def python_of(name: str, folder: str, transport: Transport) -> tuple[str, str]:
    """The path of such a Python on the host, and what is told of it."""
    path = f"{folder}/a-python"
    content, mode, told = PYTHONS[name]
    if content is not None:
        channel = transport.open(
            f"echo {base64.b64encode(content).decode()} | base64 -d > {path}; chmod {mode:o} {path}"
        )
        while channel.recv(4096):
            pass
        channel.close()
    return path, told.format(path=path)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ("broken", "too old") else pytest.mark.slow) for name in PYTHONS]
)
def test_a_python_that_cannot_run_jobs_makes_its_host_unusable(
    name: str, any_host: HostSpec, transport: Transport, host_folder: Callable[[], str], tmp_path: Path
) -> None:
    """The event names host, phase and the next step; the job that no host can run says so."""
    path, told = python_of(name, host_folder(), transport)
    seen: list[events.Event] = []
    returned = launcher.run(
        "builtins:str", {}, host=any_host, python=path, folder=tmp_path / "out", observers=[seen.append]
    )
    (unusable,) = [event for event in seen if isinstance(event, events.HostUnusable)]
    assert (unusable.host, unusable.phase) == (any_host.name, "set up")
    assert unusable.why.startswith(told)
    assert "--python PATH" in unusable.next_step
    assert returned.error is not None
    assert returned.error.kind == "host"
    assert returned.error.message.startswith(f"no host can run it: {any_host.name}: {told}")


@pytest.mark.slow
def test_other_hosts_carry_on_without_a_python_of_one(
    any_host: HostSpec, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """What the host had been given runs elsewhere, as with a set-up line that fails."""
    server: Any = request.getfixturevalue("demo_server")
    other = HostSpec("local", "local")
    if any_host.is_local:
        other = HostSpec(server.alias, server.alias, ssh_config=str(server.ssh_config))
    os.mkfifo(tmp_path / "told")
    told = os.open(tmp_path / "told", os.O_RDWR)
    unusable: list[str] = []

    def note(event: events.Event) -> None:
        if isinstance(event, events.HostUnusable):
            unusable.append(event.host)
            os.write(told, b".")

    hosts = [dataclasses.replace(any_host, python="/no/such/python", slots=4), dataclasses.replace(other, slots=1)]
    configs = [{"x": x, "told": str(tmp_path / "told")} for x in range(6)]
    returns = launcher.multirun(when_told, configs, hosts=hosts, folder=tmp_path / "out", observers=[note])
    os.close(told)
    assert [one.return_value for one in returns] == list(range(6))
    assert {one.host for one in returns} == {other.name}
    assert unusable == [any_host.name]


@pytest.mark.slow
def test_an_import_that_ends_the_process_is_the_applications_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python ran: the job fails with kind `import`, and the host stays usable."""
    (tmp_path / "leaves.py").write_text(
        "import os\nif 'ON_A_HOST' in os.environ:\n    print('cannot go on', flush=True)\n    os._exit(3)\n"
        "def task(cfg): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    seen: list[events.Event] = []
    options: dict[str, Any] = {"folder": tmp_path / "out", "env": {"ON_A_HOST": "1"}, "observers": [seen.append]}
    returned = launcher.run("leaves:task", {}, host="local", **options)
    assert not [event for event in seen if isinstance(event, events.HostUnusable)]
    assert returned.error is not None
    assert returned.error.kind == "import"
    assert returned.error.message.startswith("preparing the application ended the process: cannot go on")
