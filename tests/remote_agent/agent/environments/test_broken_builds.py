"""A build that is cut at any step, or whose disk is full at any, is never used, and the next one succeeds."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from remote_agent.agent.environments import build as build_module
from remote_agent.agent.environments.build import Builder, BuildError
from remote_agent.agent.environments.store.store import EnvironmentStore
from remote_agent.agent.spool.code.blobs import BlobStore
from remote_agent.protocol.specs.environment import EnvironmentSpec
from remote_agent.system.private_files import SpoolError
from tests.remote_agent.agent.environments.sites import KEY, Site, script
from tests.remote_agent.agent.environments.steps import build
from tests.requirements import need_programs, need_root

pytestmark = pytest.mark.slow


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A host's cache."""
    return Site(tmp_path / "site")


def works(python: str | None) -> bool:
    """Whether an environment is there; if so it must be whole."""
    if python is None:
        return False
    subprocess.run([python, "-c", "import one, two; assert one.version == two.version == '1.0'"], check=True)
    return True


def left_in(cache: Path) -> list[str]:
    """Parts and locks."""
    return [path.name for path in (cache / "envs").iterdir() if path.name.startswith((".part", ".lock"))]


def copied(site: Site, folder: Path) -> Path:
    """The same cache, before anything is built; the same large files."""
    return Path(shutil.copytree(site.store.cache, folder, copy_function=os.link))


def test_a_builder_that_is_killed_at_any_step(site: Site, tmp_path: Path) -> None:
    """Before each change of the disk, and before each program: what is there is whole, or does not count; the next one builds it."""
    spec = site.spec()
    number = 0
    while True:
        number += 1
        cache = copied(site, tmp_path / f"cache{number}")
        command = [sys.executable, "-m", f"{__package__}.steps", str(cache), json.dumps(spec.to_json()), str(number)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.stdout == "done\n":
            break
        assert done.returncode == -9, done.stderr
        works(EnvironmentStore(str(cache), "now").python(KEY))
        assert works(build(str(cache), spec)), number
        assert not left_in(cache), number
        shutil.rmtree(cache)
    assert number > 15


@pytest.mark.parametrize("when", ["before", "while", "after"])
@pytest.mark.parametrize("step", ["venv", "pip"])
def test_uv_that_is_killed(step: str, when: str, site: Site) -> None:
    """Before it writes, while it writes and after it has written: nothing is published, and it is said; the next build succeeds."""
    spec = site.spec()
    path = Path(site.store.cache) / "uv-bin" / site.uv
    site.store.prepare()
    real = shutil.copy(site.blobs.path(site.uv), path.with_name("real"))
    Path(real).chmod(0o700)
    cuts = {
        "before": "kill -9 $$",
        # As soon as something of what it writes is there.
        "while": f'{real} "$@" & uv=$!; until ls -d {site.store.folder}/.part*/{"lib*" if step == "venv" else "lib/*/*/one*"}; do :; done; '
        "kill -9 $uv; kill -9 $$",
        "after": f'{real} "$@"; kill -9 $$',
    }
    text = f'if [ "$1" = {step} ]; then {cuts[when]}; fi >/dev/null 2>&1; exec {real} "$@"'
    spec = spec._replace(uv_size=Path(script(path, text)).stat().st_size)
    with pytest.raises(BuildError, match=rf"`uv {step}[a-z ]*` ended with signal 9"):
        Builder(site.store, site.blobs, spec).build()
    assert site.store.python(KEY) is None
    assert not left_in(Path(site.store.cache))
    path.unlink()
    assert works(site.build())


def failure(cache: Path, spec: EnvironmentSpec) -> Exception | None:
    """Why it cannot be built; None where it is."""
    try:
        build(str(cache), spec)
    except (BuildError, OSError, SpoolError) as error:
        return error
    return None


@contextmanager
def small_disk(path: Path, options: str) -> Iterator[None]:
    """A file system that is soon full."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "small", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.faults
def test_a_disk_that_is_full_at_any_step(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files first, as it can be set to one more each time; then of bytes: nothing is published, and the message has the next step."""
    need_root()
    need_programs("mount", "umount")
    monkeypatch.setattr(build_module, "room_lacking", lambda *args: "")
    spec = site.spec()
    large = Path(site.blobs.path(site.uv)).stat().st_size
    needs = sum(len(files) + len(folders) for _, folders, files in os.walk(site.store.cache)) + 3
    limits = [f"size=1g,nr_inodes={needs + more}" for more in range(0, 60, 3)]
    limits += [f"size={(2 * large) // 1024 + more}k" for more in (-(large // 2048), 64, 128, 160, 200, 260)]
    seen = set()
    for number, limit in enumerate(limits):
        disk = tmp_path / f"disk{number}"
        with small_disk(disk, limit):
            cache = Path(shutil.copytree(site.store.cache, disk / "cache"))
            error = failure(cache, spec)
            seen.add(error is None)
            if error is None:
                continue
            # Whatever the system says itself gets its next step from who tells it.
            is_told = (
                error.errno == errno.ENOSPC if isinstance(error, OSError) else "next: `launcher clean`" in str(error)
            )
            assert is_told, (limit, error)
            works(EnvironmentStore(str(cache), "now").python(KEY))
            subprocess.run(["mount", "-o", "remount,size=1g,nr_inodes=100k", str(disk)], check=True)
            for lock in (cache / "envs").glob(".lock.*"):
                lock.unlink()  # of this process, which lives
            assert failure(cache, spec) is None, limit
            assert works(EnvironmentStore(str(cache), "now").python(KEY)), limit
            assert not left_in(cache), limit
    assert seen == {True, False}


@pytest.mark.faults
@pytest.mark.parametrize("offset", ["-1d", "+1d"])
def test_a_clock_that_is_off_by_a_day(offset: str, site: Site) -> None:
    """Before or after what is there: it is built, shared with what was built under the right time, and found again."""
    need_programs("faketime")
    first = Path(site.build())
    spec = site.spec("d" * 64)
    command = [sys.executable, "-m", f"{__package__}.steps", site.store.cache, json.dumps(spec.to_json()), "0"]
    done = subprocess.run(["faketime", "-f", offset, *command], capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr
    python = site.store.python(spec.key)
    assert works(python)
    files = [next(one.parents[1].rglob("one.py")) for one in (first, Path(str(python)))]
    assert files[0].samefile(files[1])
    said = json.loads((Path(site.store.path(spec.key)) / "environment.json").read_text())
    assert abs(abs(said["built"] - time.time()) - 86_400) < 3600


@pytest.mark.faults
def test_another_users_folder_is_refused(site: Site) -> None:
    """Whoever owns it could change what we run; the message names the folder."""
    need_root()
    os.chown(site.store.folder, 65534, 65534)
    with pytest.raises(SpoolError, match="envs belongs to another user"):
        site.store.prepare()


def test_a_python_that_vanished(site: Site, tmp_path: Path) -> None:
    """The environment counts no more, and is built again when there is a Python again at that path."""
    python = tmp_path / "python3"
    python.symlink_to(os.path.realpath(sys.executable))
    spec = site.spec(python=str(python))
    assert works(build(site.store.cache, spec))
    made = Path(site.store.path(KEY)) / "bin" / "python"
    made.unlink()
    made.symlink_to(tmp_path / "gone")
    assert site.store.python(KEY) is None
    with pytest.raises(BuildError, match="gone/python3"):
        Builder(site.store, site.blobs, spec._replace(python="/gone/python3")).build()
    assert works(build(site.store.cache, spec))


def test_wheels_that_cannot_be_linked_are_copied(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without hard links."""

    def refuse(*args: object, **more: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(build_module.os, "link", refuse)
    assert works(site.build())


def test_a_build_of_another_machine_is_not_disturbed(site: Site) -> None:
    """In a folder that both have: what it has published is used, while jobs of it run there."""
    python = site.build()
    before = Path(python).stat().st_ino
    other = EnvironmentStore(site.store.cache, "their boot", "their machine")
    Builder(other, BlobStore(site.blobs.folder), site.spec()).build()
    assert Path(python).stat().st_ino == before
