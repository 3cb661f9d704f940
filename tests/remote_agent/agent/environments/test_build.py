"""An environment is built of wheels that are here, as a whole or not at all."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from remote_agent.agent.environments import build as module
from remote_agent.agent.environments.build import Builder, BuildError, room_lacking
from remote_agent.agent.environments.store.store import EnvironmentStore
from tests.remote_agent.agent.environments.sites import KEY, Site, script


def test_it_has_exactly_its_wheels(site: Site) -> None:
    """And a second one of the same wheels shares their files."""
    python = site.build()
    said = subprocess.run(
        [python, "-c", "import one, two; print(one.__file__)"], capture_output=True, text=True, check=True
    )
    other = site.build("d" * 64)
    files = [Path(said.stdout.strip()), *Path(other).parents[1].rglob("one.py")]
    assert len(files) == 2
    assert files[0].samefile(files[1])
    assert not site.parts()


def test_a_wheel_that_was_altered_is_refused_and_removed(site: Site) -> None:
    """By name, so that it is asked for again."""
    path = Path(site.blobs.path(site.wheels[1].sha256))
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)
    with pytest.raises(BuildError, match=r"two-1\.0-py3-none-any\.whl") as refused:
        site.build()
    assert refused.value.altered == ["two-1.0-py3-none-any.whl"]
    assert not path.exists()
    assert site.store.python(KEY) is None
    assert not site.parts()


def test_what_uv_says_is_told(site: Site) -> None:
    """Where its Python is none."""
    with pytest.raises(BuildError, match=r"`uv venv` ended with exit status \d+; it printed:\n.*gone"):
        Builder(site.store, site.blobs, site.spec(python="/gone/python3")).build()
    assert not site.parts()


def test_room_is_looked_for_first(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do, before anything is written."""
    assert room_lacking(site.store, site.spec(), 0) == ""
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: module.shutil._ntuple_diskusage(10, 10, 1 << 20))
    assert "launcher clean" in room_lacking(site.store, site.spec(), 0)
    with pytest.raises(BuildError, match="1 MiB free"):
        site.build()


def test_it_is_stopped(site: Site) -> None:
    """A run that ends builds nothing more."""
    builder = Builder(site.store, site.blobs, site.spec())
    builder.stop()
    with pytest.raises(BuildError, match="the run ended"):
        builder.build()
    assert site.store.python(KEY) is None
    assert not site.parts()


@pytest.mark.slow
def test_parts_of_one_that_died_are_removed(site: Site) -> None:
    """They were never used."""
    part = Path(site.store.folder) / f".part.{KEY[:16]}.dead"
    part.mkdir()
    (part / "environment.json").write_text("{}")
    site.build()
    assert not site.parts()


@pytest.mark.slow
def test_one_that_power_cut_short_is_built_again(site: Site) -> None:
    """With nothing of what was written in that life of the machine."""
    python = Path(site.build())
    (module_file,) = python.parents[1].rglob("one.py")
    with module_file.open("r+b") as file:
        file.truncate(0)  # and so is uv's own copy, which is the same file
    site.store = EnvironmentStore(site.store.cache, "after")
    assert site.store.python(KEY) is None
    again = site.build()
    subprocess.run([again, "-c", "import one; assert one.version == '1.0'"], check=True)


@pytest.mark.slow
def test_what_uv_kept_before_power_was_cut_is_not_used_for_others(site: Site) -> None:
    """Also where the environment that it was written for was never published, or is not wanted again."""
    python = Path(site.build())
    (module_file,) = python.parents[1].rglob("one.py")
    with module_file.open("r+b") as file:
        file.truncate(0)
    shutil.rmtree(python.parents[1])
    site.store = EnvironmentStore(site.store.cache, "after")
    other = site.build("d" * 64)
    subprocess.run([other, "-c", "import one; assert one.version == '1.0'"], check=True)


@pytest.mark.slow
def test_what_is_on_the_disk_is_shared_after_power_was_cut(site: Site) -> None:
    """A second environment is made of links again."""
    first = Path(site.build())
    site.store.sync(KEY)
    site.store = EnvironmentStore(site.store.cache, "after")
    other = Path(site.build("d" * 64))
    files = [next(python.parents[1].rglob("one.py")) for python in (first, other)]
    assert files[0].samefile(files[1])


def test_what_was_cleaned_up_meanwhile_is_asked_for_again(site: Site) -> None:
    """It arrived, and was removed before it was used."""
    Path(site.blobs.path(site.wheels[0].sha256)).unlink()
    with pytest.raises(BuildError, match=r"gone since they arrived: one-1\.0") as refused:
        site.build()
    assert refused.value.altered


@pytest.mark.parametrize(
    "said",
    [
        "error: failed to write: Disk quota exceeded (os error 122)",
        "to ../../archive-v0/Iiab: No space left on device (os\n  error 28)",
        "OSError: [Errno 28] No space left on device",
    ],
)
def test_a_quota_is_told_as_a_full_disk_is(said: str, site: Site) -> None:
    """By its number, for the disk itself has room."""
    program = script(Path(site.store.cache) / "uv-bin" / site.uv, f"echo '{said}'; exit 2")
    spec = site.spec()._replace(uv_size=Path(program).stat().st_size)
    with pytest.raises(BuildError, match=r"(?s)(?:os\s+error (?:122|28)|Errno 28).*next: `launcher clean`"):
        Builder(site.store, site.blobs, spec).build()
