"""What a user or a disk did to the files that uv has unpacked does not get into another environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from remote_agent.agent.environments.store.unpacked import altered_files
from tests.remote_agent.agent.environments.sites import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A host's cache."""
    return Site(tmp_path)


def module_of(python: str) -> Path:
    """The file of the package `one` in an environment."""
    (file,) = Path(python).parents[1].rglob("one.py")
    return file


def alter(file: Path, how: str) -> None:
    """Change the content of a file that environments share."""
    text = file.read_text()
    if how == "edited":
        with file.open("a") as opened:
            opened.write("raise SystemExit('edited')\n")
    elif how == "truncated":
        with file.open("r+b") as opened:
            opened.truncate(0)
    else:
        with file.open("r+") as opened:
            opened.write(text.replace("1.0", "9.9"))
    later = file.stat().st_mtime + 3600
    os.utime(file, (later, later))


@pytest.mark.slow
def test_the_next_environment_has_what_its_wheels_have(site: Site) -> None:
    """Its files are unpacked again; the environment in which it was done stays as it is."""
    first = module_of(site.build())
    alter(first, "of the same size")
    altered = first.read_text()
    other = site.build("d" * 64)
    subprocess.run([other, "-c", "import one; assert one.version == '1.0'"], check=True)
    assert first.read_text() == altered
    third = site.build("e" * 64)
    assert module_of(third).samefile(module_of(other))
    assert not site.parts()


def test_which_files_are_altered(site: Site) -> None:
    """Those whose content is another one. Not one that was written again with the same content, or that Python has compiled."""
    python = site.build()
    assert not altered_files(str(Path(python).parents[1]))
    subprocess.run([python, "-c", "import one, two"], check=True)
    file = module_of(python)
    os.utime(file, (file.stat().st_mtime + 3600,) * 2)
    assert not altered_files(str(Path(python).parents[1]))
    for how in ("edited", "truncated", "of the same size"):
        text = file.read_text()
        alter(file, how)
        assert altered_files(str(Path(python).parents[1])) == ["one.py"]
        file.write_text(text)
    assert not altered_files(str(Path(python).parents[1]))
    file.unlink()
    assert altered_files(str(Path(python).parents[1])) == ["one.py"]
