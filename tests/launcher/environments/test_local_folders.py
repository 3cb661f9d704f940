"""Folders of this machine that a lock names as packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.environments.local_folders import LocalFolder, check_all_are_named, local_folders
from launcher.environments.lock import Lock
from launcher.errors import PackagesError

PROJECT = '[project]\nname = "mylib"\nversion = "1"\n'


def library(folder: Path, layout: str = "src", pyproject: str = PROJECT) -> Path:
    """A package `mylib` in a folder of this name."""
    package = folder / "libs" / "mylib" / layout / "mylib"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    top = folder / "libs" / "mylib"
    (top / "pyproject.toml").write_text(pyproject)
    return top


@pytest.mark.parametrize(
    "line",
    [
        "./libs/mylib",
        "libs/mylib  # ours",
        "-e ./libs/mylib",
        "--editable=libs/mylib",
        "./libs/mylib[fast]",
        "mylib @ ./libs/mylib ; python_version > '3'",
        "mylib[fast] @ file:{libs}/mylib",
        "-r more.txt",
    ],
)
def test_requirements_name_folders(tmp_path: Path, line: str) -> None:
    """In each way that uv reads, also in files that are included; an index answers the others."""
    folder = library(tmp_path)
    (tmp_path / "more.txt").write_text("./libs/mylib\n")
    file = tmp_path / "requirements.txt"
    file.write_text(f"one==1.0\n{line.format(libs=tmp_path / 'libs')}\n--no-index\n")
    lock = Lock(str(file), file.read_text(), is_resolved=False)
    assert local_folders(lock) == [LocalFolder(folder, str(file))]


def pylock(folder: Path, *paths: str) -> Lock:
    """A lock of folders."""
    packages = "".join(
        f'[[packages]]\nname = "p{n}"\ndirectory = {{path = "{path}"}}\n' for n, path in enumerate(paths)
    )
    return Lock(str(folder / "pylock.toml"), f'lock-version = "1.0"\n{packages}', is_resolved=True)


def test_a_lock_names_folders(tmp_path: Path) -> None:
    """Relative to itself. One that is not there is refused by name."""
    (folder,) = local_folders(pylock(tmp_path, "libs/mylib"))
    assert folder.path == tmp_path / "libs" / "mylib"
    with pytest.raises(PackagesError, match="libs/mylib, which is not there"):
        folder.source_root()


@pytest.mark.parametrize(("layout", "root"), [("src", "src"), (".", ".")])
def test_the_source_root_holds_the_package(tmp_path: Path, layout: str, root: str) -> None:
    """A layout with src/, or a flat one."""
    folder = library(tmp_path, layout)
    assert LocalFolder(folder, "x/requirements.txt").source_root() == folder / root


@pytest.mark.parametrize(
    ("pyproject", "setup", "told"),
    [
        (f'{PROJECT}[build-system]\nbuild-backend = "maturin"\n', "", "build-backend maturin"),
        (f'{PROJECT}[build-system]\nbackend-path = ["."]\nbuild-backend = "hatchling"\n', "", "backend-path"),
        (f"{PROJECT}[tool.hatch.build.hooks.vcs]\nversion-file = 'v.py'\n", "", "tool.hatch.build.hooks"),
        (PROJECT, "setup(ext_modules=[Extension('a', ['a.c'])])", "ext_modules in setup.py"),
        ("no toml", "", "is not TOML"),
    ],
)
def test_a_folder_with_a_build_step_is_refused(tmp_path: Path, pyproject: str, setup: str, told: str) -> None:
    """By name, unless it is the project itself, whose code is sent as always."""
    folder = library(tmp_path, pyproject=pyproject)
    (folder / "setup.py").write_text(setup)
    with pytest.raises(PackagesError, match=told) as refused:
        LocalFolder(folder, str(tmp_path / "requirements.txt")).source_root()
    assert "libs/mylib" in str(refused.value)
    assert LocalFolder(folder, str(folder / "requirements.txt")).source_root() == folder / "src"


def test_a_folder_without_modules_is_refused(tmp_path: Path) -> None:
    """What a build would find elsewhere is not guessed."""
    (tmp_path / "lib" / "python" / "mylib").mkdir(parents=True)
    (tmp_path / "lib" / "setup.py").write_text("")
    with pytest.raises(PackagesError, match=r"has no package in src/.*\n.*uv build --wheel"):
        LocalFolder(tmp_path / "lib", str(tmp_path / "requirements.txt")).source_root()
    assert LocalFolder(tmp_path / "lib", str(tmp_path / "lib" / "requirements.txt")).source_root() == tmp_path / "lib"


def test_a_folder_that_only_another_package_needs_is_refused(tmp_path: Path) -> None:
    """The code was sent without its source root."""
    library(tmp_path)
    (tmp_path / "other").mkdir()
    file = tmp_path / "requirements.txt"
    file.write_text("./libs/mylib\n")
    lock = Lock(str(file), file.read_text(), is_resolved=False)
    check_all_are_named(pylock(tmp_path, "libs/mylib"), lock)
    with pytest.raises(PackagesError, match=r"add the line `-e .*/other` to it"):
        check_all_are_named(pylock(tmp_path, "libs/mylib", "other"), lock)
