"""Which host of a run gets which packages."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from launcher.code.files.snapshot import take
from launcher.environments.lock import Lock
from launcher.errors import PackagesError
from launcher.hosts.host_spec import HostSpec
from launcher.hosts.inventory import load_hosts
from launcher.options import LaunchConf
from launcher.setup.environments import locks_of, roots_of, source_of, way_to_have
from launcher.setup.kinds.run_setup import RunSetup


def test_a_host_says_it_for_itself(tmp_path: Path) -> None:
    """`none` too; what it does not say, the options say."""
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"{name}\n")
    hosts = load_hosts(
        {"one": {}, "two": {"environment": str(tmp_path / "b.txt")}, "three": {"environment": "none"}}, "h"
    )
    locks = locks_of(hosts, LaunchConf(environment=str(tmp_path / "a.txt")), None, None)
    assert {host: Path(lock.name).name for host, lock in locks.items()} == {"one": "a.txt", "two": "b.txt"}
    assert source_of(locks["one"], tmp_path, LaunchConf()).lock == locks["one"]


def test_a_missing_package_has_a_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command line that brings what the project has; with a lock, how to add it there."""
    (tmp_path / "app.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["/venv/bin/launcher", "run", "app.py", "x=1"])
    setup = RunSetup.make("RUN", "builtins:str", [{}], hosts=["local"], callbacks=(), folder=tmp_path, options=None)
    setup = dataclasses.replace(setup, root=tmp_path / "app.py")
    assert "--environment FILE" in way_to_have(setup, None)
    (tmp_path / "uv.lock").write_text("")
    assert "uv.lock along (launcher run --environment auto app.py x=1)" in way_to_have(setup, None)
    monkeypatch.setattr("sys.argv", ["script.py"])
    assert "environment='auto' in Python" in way_to_have(setup, None)
    assert "uv add" in way_to_have(setup, Lock("uv.lock", "", is_resolved=True))


def test_extras_without_an_environment_are_refused() -> None:
    """They would do nothing."""
    with pytest.raises(PackagesError, match="choose one"):
        locks_of([HostSpec("local", "local")], LaunchConf(extras=["x"]), None, None)


def test_modules_of_a_local_package_come_with_the_code(tmp_path: Path) -> None:
    """By the source root of its folder. Outside of the code that is sent, it is refused by name, with the next step."""
    inner, outer = tmp_path / "project" / "libs" / "mylib", tmp_path / "outer"
    for folder in (inner, outer):
        (folder / "src" / "mylib").mkdir(parents=True)
        (folder / "src" / "mylib" / "__init__.py").write_text("")
    snapshot = take(tmp_path / "project")

    def lock(path: str) -> Lock:
        return Lock(str(tmp_path / "project" / "requirements.txt"), f"-e {path}\n", is_resolved=False)

    assert roots_of(lock("./libs/mylib"), True, snapshot) == ["libs/mylib/src"]
    assert roots_of(lock("./libs/mylib"), False, None) == [str(inner / "src")]
    assert roots_of(lock("../outer"), False, None) == [str(outer / "src")]
    for is_sent in (snapshot, None):
        with pytest.raises(
            PackagesError, match=r"outer, which is .*\n    next: move it into the project.*uv build --wheel"
        ):
            roots_of(lock("../outer"), True, is_sent)
