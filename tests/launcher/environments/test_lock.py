"""A source becomes a lock by uv, once; and is kept as it was."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from launcher.environments import lock as module
from launcher.environments.local_folders import local_folders
from launcher.environments.lock import Lock, compile_for, locks_from_bytes, locks_to_bytes, read_lock
from launcher.environments.source import Source
from launcher.errors import PackagesError
from remote_agent.protocol.specs.environment import HostFacts, PythonFacts
from tests.packages import lock_project, make_project, make_wheel

HOST = HostFacts("Linux", "x86_64", "6.1", "glibc 2.36", "", 0, [])
PYTHON = PythonFacts("/usr/bin/python3", "3.11.2", "cpython", "cp311", 64)


@pytest.mark.slow
def test_a_uv_lock_has_extras_and_groups(tmp_path: Path) -> None:
    """What is asked for is in it, and the project itself is not."""
    index = tmp_path / "index"
    for name in ("one", "two", "three", "dev"):
        make_wheel(index, name)
    more = '[project.optional-dependencies]\nmore = ["two"]\n[dependency-groups]\nextra = ["three"]\ndev = ["dev"]\n'
    source = Source("uv", lock_project(make_project(tmp_path / "p", index, ("one",), more=more)))
    plain, full = read_lock(source, (), ()), read_lock(source, ("more",), ("extra",))
    assert [name for name in ("one", "two", "three", "dev", "project") if f'name = "{name}"' in plain.text] == ["one"]
    assert [name for name in ("one", "two", "three") if f'name = "{name}"' in full.text] == ["one", "two", "three"]
    assert dict(plain.indexes) == {"made": index.as_uri()}
    with pytest.raises(PackagesError, match="gone"):
        read_lock(source, ("gone",), ())


def test_uv_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same files make the same lock, without uv."""
    make_wheel(tmp_path / "index", "one")
    path = lock_project(make_project(tmp_path / "p", tmp_path / "index", ("one",)))
    first = read_lock(Source("uv", path), (), ())
    monkeypatch.setattr(module, "run_uv", lambda *args, **more: pytest.fail("uv was asked again"))
    assert read_lock(Source("uv", path), (), ()) == first


def test_requirements_are_resolved_for_the_host_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what was kept, the file is not needed any more; without, one that has changed is refused."""
    make_wheel(tmp_path / "index", "one")
    file = tmp_path / "requirements.txt"
    file.write_text(f"--no-index\n--find-links {tmp_path / 'index'}\none\n")
    lock = read_lock(Source("requirements", file), (), ())
    made = compile_for(lock, HOST, PYTHON, tmp_path / "kept")
    assert 'name = "one"' in made.text
    file.write_text("other\n")
    assert compile_for(lock, HOST, PYTHON, tmp_path / "kept") == made
    with pytest.raises(PackagesError, match="has changed since the run began"):
        compile_for(lock, HOST, PYTHON, tmp_path / "empty")


def requirements(folder: Path, text: str) -> Lock:
    """The lock of a requirements file with this text."""
    file = folder / "requirements.txt"
    file.write_text(f"{text}\n")
    return read_lock(Source("requirements", file), (), ())


def test_a_resolution_is_used_again_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the content of all its files, for the same Python and platform. A file that was touched is resolved again."""
    asked: list[str] = []
    monkeypatch.setattr(module, "run_uv", lambda what, *args, **more: asked.append(what) or f"resolution {len(asked)}")
    included = tmp_path / "more.txt"
    included.write_text("one<2  # not the newest\n")
    lock = requirements(
        tmp_path, "--index-url https://index.test/simple\none[fast]>=0.1 ; python_version > '3'\n-c more.txt"
    )

    def resolved(facts: HostFacts = HOST, python: PythonFacts = PYTHON, kept: Path | None = None) -> str:
        return compile_for(lock, facts, python, kept).text

    assert [resolved(kept=tmp_path / name) for name in ("first", "second")] == ["resolution 1"] * 2
    assert len(list((tmp_path / "second").iterdir())) == 1
    assert resolved(python=PYTHON._replace(version="3.12.1")) == "resolution 2"
    assert resolved(HOST._replace(libc="glibc 2.28")) == "resolution 3"
    included.write_text("one\n")
    assert [resolved(), resolved()] == ["resolution 4"] * 2
    os.utime(lock.name, ns=(1, 1))
    assert [resolved(), resolved()] == ["resolution 5"] * 2
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 80000)
    assert resolved() == "resolution 5"
    monkeypatch.setattr(module.time, "time", lambda: now + 90000)
    assert resolved() == "resolution 6"


@pytest.mark.parametrize(
    "line",
    [
        "./local",
        "-e .",
        "local @ file:///p/local",
        "dist/one-1.0-py3-none-any.whl",
        "-r https://h/r",
        "--find-links wheels\none",
    ],
)
def test_what_lies_here_is_looked_at_each_time(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project or file that requirements name may have changed: what was resolved with it is not used again."""
    asked: list[str] = []
    monkeypatch.setattr(module, "run_uv", lambda what, *args, **more: asked.append(what) or "")
    lock = requirements(tmp_path, line)
    for _ in range(2):
        compile_for(lock, HOST, PYTHON, None)
    assert len(asked) == 2


def test_an_unlocked_script_is_resolved_again_when_it_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day, as requirements; one with a lock beside it is not."""
    asked: list[str] = []
    monkeypatch.setattr(module, "run_uv", lambda what, *args, **more: asked.append(what) or "")
    script = tmp_path / "app.py"
    script.write_text("# /// script\n# dependencies = []\n# ///\n")
    now = time.time()

    def read(at: float) -> int:
        monkeypatch.setattr(module.time, "time", lambda: now + at)
        read_lock(Source("script", script), (), ())
        return len(asked)

    assert [read(0), read(80000), read(90000)] == [1, 1, 2]
    (tmp_path / "app.py.lock").write_text("version = 1\n")
    assert [read(0), read(90000)] == [3, 3]


@pytest.mark.parametrize(
    ("system", "machine", "libc", "named"),
    [
        ("Linux", "x86_64", "glibc 2.36", "x86_64-manylinux_2_36"),
        ("Linux", "aarch64", "glibc 2.30", "aarch64-manylinux_2_28"),
        ("Linux", "x86_64", "glibc 2.99", "x86_64-manylinux_2_40"),
        ("Linux", "x86_64", "musl 1.2", "x86_64-unknown-linux-musl"),
        ("Darwin", "arm64", "macos 14.1", "aarch64-apple-darwin"),
    ],
)
def test_platforms_by_the_names_of_uv(
    system: str, machine: str, libc: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest glibc that uv knows and the host has."""
    asked: list[str] = []
    monkeypatch.setattr(module, "run_uv", lambda what, command, **more: asked.extend(command) or "")
    file = tmp_path / "requirements.txt"
    file.write_text("one\n")
    facts = HOST._replace(system=system, machine=machine, libc=libc)
    compile_for(Lock(str(file), "one\n", is_resolved=False), facts, PYTHON, None)
    assert asked[asked.index("--python-platform") + 1] == named


@pytest.mark.parametrize(("driver", "is_asked"), [("", False), ("550.54", True)])
def test_the_builds_of_a_driver_are_asked_for(
    driver: str, is_asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the version that the host says, which this machine need not have; each driver has a lock of its own."""
    asked: list[tuple[list[str], Any]] = []

    def said(what: str, command: list[str], **more: Any) -> str:
        asked.append((command, more["environment"]))
        return "# a lock"

    monkeypatch.setattr(module, "run_uv", said)
    file = tmp_path / "requirements.txt"
    file.write_text("torch\n")
    lock = Lock(str(file), "torch\n", is_resolved=False)
    compile_for(lock, HOST._replace(driver=driver), PYTHON, tmp_path / "kept")
    ((command, environment),) = asked
    assert ("--torch-backend" in command) == is_asked
    assert environment == ({"UV_CUDA_DRIVER_VERSION": driver} if is_asked else None)
    compile_for(lock, HOST._replace(driver="570.1"), PYTHON, tmp_path / "kept")
    assert len(asked) == 2


def test_kept_locks_are_read_back() -> None:
    """As they were; what is none is refused."""
    locks = {"gpu1": Lock("uv.lock", "text", is_resolved=True, extras=("a",), indexes=(("n", "u"),))}
    assert locks_from_bytes(locks_to_bytes(locks)) == locks
    assert locks_from_bytes(None) == {}
    for data in (b"[]", b"{}", b'{"version": 2, "locks": {}}', b'{"version": 1, "locks": {"h": {}}}', b"x"):
        with pytest.raises(ValueError):
            locks_from_bytes(data)


def test_a_path_of_a_uv_lock_is_kept(tmp_path: Path) -> None:
    """So that it can be put on `sys.path`, or refused. The project itself is left out."""
    inner = tmp_path / "p" / "libs" / "mylib"
    (inner / "src" / "mylib").mkdir(parents=True)
    built = '[build-system]\nrequires = ["uv_build"]\nbuild-backend = "uv_build"\n'
    (inner / "pyproject.toml").write_text(f'[project]\nname = "mylib"\nversion = "1"\n{built}')
    more = f'{built}[tool.uv.sources]\nmylib = {{path = "libs/mylib"}}\n'
    path = lock_project(make_project(tmp_path / "p", tmp_path / "index", ("mylib",), more=more))
    lock = read_lock(Source("uv", path), (), ())
    assert [one.path for one in local_folders(lock)] == [inner]
