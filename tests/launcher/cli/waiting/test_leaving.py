"""When a command leaves a process that waits, and what that imports."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from launcher.cli.waiting import client, leaving
from remote_agent.agent.zygotes import warm
from remote_agent.agent.zygotes.warm import NO_WARM
from remote_agent.system.processes import birth
from remote_agent.system.waiting.warm_store import WarmRecord, WarmStore

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes that wait need Linux")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, short_folder: Path) -> list[str]:
    """The names of the processes that were started. This command counts as started by the console script."""
    names: list[str] = []
    monkeypatch.delenv(NO_WARM, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(short_folder))
    monkeypatch.setattr(warm, "SUBMITTERS", ())
    monkeypatch.setattr(leaving, "STARTED", {"path": [], "facts": ()})
    monkeypatch.setattr(leaving, "free_memory", lambda: 1.0)
    monkeypatch.setattr(client.os, "getsid", lambda pid: 1)
    monkeypatch.setattr(WarmStore, "start", lambda store, name, *rest, **more: names.append(name))
    return names


def _store(short_folder: Path) -> WarmStore:
    store = WarmStore(str(short_folder / "hydra-remote-launcher"))
    store.make()
    return store


def test_one_is_left_for_its_session(started: list[str]) -> None:
    """Its name says for which."""
    leaving.leave(60.0)
    (name,) = started
    assert name.startswith("command-1-")


@pytest.mark.parametrize(
    ("name", "value"), [(NO_WARM, "1"), ("SLURM_JOB_ID", "7"), ("KRB5CCNAME", "KEYRING:x"), ("_LAUNCHER_COMPLETE", "1")]
)
def test_none_is_left_where_hosts_leave_none(
    started: list[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Nor by a shell's completion."""
    monkeypatch.setenv(name, value)
    leaving.leave(60.0)
    assert started == []


def test_none_is_left_if_none_is_wanted(started: list[str]) -> None:
    """`--warm 0`."""
    leaving.leave(0.0)
    assert started == []


def test_none_is_left_by_another_script(started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is only for the command `launcher`."""
    monkeypatch.setattr(leaving, "STARTED", {})
    leaving.leave(60.0)
    assert started == []


def test_none_is_left_if_memory_is_short(started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As on hosts."""
    monkeypatch.setattr(leaving, "free_memory", lambda: 0.1)
    leaving.leave(60.0)
    assert started == []


@pytest.mark.parametrize("has_packages", [False, True])
def test_the_one_that_served_stays_if_it_has_all(
    started: list[str], monkeypatch: pytest.MonkeyPatch, short_folder: Path, has_packages: bool
) -> None:
    """A command that has imported Hydra leaves one that imports it."""
    store, name = _store(short_folder), "command-1-aa"
    store.write(WarmRecord(name, os.getpid(), birth(os.getpid()), "", "p", time.time(), 60.0, has_packages))
    Path(store.path(name, ".sock")).touch()
    monkeypatch.setitem(leaving.STARTED, "by", name)
    monkeypatch.setattr(WarmStore, "end", lambda self, record: None)
    leaving.leave(60.0)
    assert len(started) == (0 if has_packages else 1)


@pytest.mark.parametrize(
    ("age", "python", "has_packages", "stays"),
    [
        (1.0, sys.executable, True, True),
        (1.0, sys.executable, False, False),
        (1.0, "/another/python", True, False),
        (3600.0, sys.executable, True, False),
        (-3600.0, sys.executable, True, False),
    ],
)
def test_one_that_still_imports_is_left_in_peace(
    started: list[str],
    monkeypatch: pytest.MonkeyPatch,
    short_folder: Path,
    age: float,
    python: str,
    has_packages: bool,
    stays: bool,
) -> None:
    """Commands that follow each other faster than it imports would end each other's, and none would ever be served. One that would not
    serve them, or hangs, is replaced.
    """
    store, name = _store(short_folder), "command-1-aa"
    store.write(WarmRecord(name, os.getpid(), birth(os.getpid()), "", python, time.time() - age, 60.0, has_packages))
    ended: list[str] = []
    monkeypatch.setattr(WarmStore, "end", lambda self, record: ended.append(record.name))
    monkeypatch.setitem(sys.modules, "hydra", sys)
    leaving.leave(60.0)
    assert (len(started), ended) == ((0, []) if stays else (1, [name]))


def test_it_imports_what_is_ours_and_nothing_of_the_application() -> None:
    """Whatever the application is called, and whatever it has imported."""
    imported = [
        "os",
        "my_app",
        "torch",
        "hydra.main",
        "hydra_plugins.mine",
        "launcher.runs.index",
        "launcher.demo.demo",
        "launcher_app",
    ]
    found = leaving.modules_of(imported)
    assert [name for name in found if name in imported] == ["hydra.main", "launcher.runs.index"]
