"""A setup line that fails makes its host unusable, with an error that names it. Other hosts go on."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events
from launcher.hosts.host_spec import HostSpec
from tests.start_hook_tasks import when_told

LINES = ("export MODE=fast", "echo cannot load that >&2; false", "export MODE=slow")
TOLD = f"set-up line 2 of 3 ({LINES[1]}) ended with exit status 1; it printed:\ncannot load that"


@pytest.fixture(autouse=True)
def _in_no_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_setup_line_that_fails_makes_its_host_unusable(any_host: HostSpec, tmp_path: Path) -> None:
    """The error has the host, the line and its output. Nothing ran."""
    seen: list[events.Event] = []
    spec = dataclasses.replace(any_host, setup=LINES)
    returned = launcher.run("builtins:str", {}, host=spec, folder=tmp_path / "out", observers=[seen.append])
    (unusable,) = [event for event in seen if isinstance(event, events.HostUnusable)]
    assert (unusable.host, unusable.phase, unusable.why) == (spec.name, "set up", TOLD)
    assert "|| true" in unusable.next_step
    assert returned.error is not None
    assert (returned.error.kind, returned.error.message) == ("host", f"no host can run it: {spec.name}: {TOLD}")
    assert not [event for event in seen if isinstance(event, events.AttemptStarted)]


@pytest.mark.slow
def test_other_hosts_go_on(any_host: HostSpec, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The host's jobs run elsewhere. No job is lost because of a wrong line on one host."""
    server: Any = request.getfixturevalue("demo_server")
    other = HostSpec("local", "local")
    if any_host.is_local:
        other = HostSpec(server.alias, server.alias, ssh_config=str(server.ssh_config))
    # The good host is in the middle of its first job until the other one has been given up.
    os.mkfifo(tmp_path / "told")
    told = os.open(tmp_path / "told", os.O_RDWR)
    unusable: list[str] = []

    def note(event: events.Event) -> None:
        if isinstance(event, events.HostUnusable):
            unusable.append(event.why)
            os.write(told, b".")

    hosts = [dataclasses.replace(any_host, setup=LINES, slots=4), dataclasses.replace(other, slots=1)]
    configs = [{"x": x, "told": str(tmp_path / "told")} for x in range(6)]
    returns = launcher.multirun(when_told, configs, hosts=hosts, folder=tmp_path / "out", observers=[note])
    os.close(told)
    assert [one.return_value for one in returns] == list(range(6))
    assert {one.host for one in returns} == {other.name}
    assert unusable == [TOLD]


@pytest.mark.slow
def test_lines_of_the_options_come_first_and_count(any_host: HostSpec, tmp_path: Path) -> None:
    """All lines are numbered together, in the order in which they run.

    A line that succeeds affects the next ones and the job.
    """
    spec = dataclasses.replace(any_host, setup=('test "$MODE" = fast || exit 9',))
    options: dict[str, Any] = {"host": spec, "folder": tmp_path / "out"}
    assert launcher.run("builtins:str", {}, setup=["export MODE=fast"], **options).error is None
    failed = launcher.run("builtins:str", {}, setup=["export MODE=slow", "true"], **options)
    assert failed.error is not None
    assert (
        'set-up line 3 of 3 (test "$MODE" = fast || exit 9) ended the shell with exit status 9' in failed.error.message
    )
