"""A package from git is built here, of exactly the commit that the lock has."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from launcher.environments.git import check_out, git_address
from launcher.environments.lock import Lock
from launcher.environments.select import choose
from launcher.environments.uv import Steps
from launcher.environments.wheels import WheelCache
from launcher.errors import PackagesError
from remote_agent.protocol.specs.environment import HostFacts, PythonFacts
from tests.packages import make_sdist
from tests.remote_agent.agent.environments.sites import Lives, script

FACTS = HostFacts("Linux", "x86_64", "6.1", "glibc 2.36", "", 0, [])
PYTHON = PythonFacts("/usr/bin/python3", "3.11.2", "cpython", "cp311", 64)


def git(folder: Path, *arguments: str) -> str:
    """Run git; returns what it printed."""
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> tuple[str, str]:
    """The address of one with a package in its folder `python`, and the commit before its last."""
    folder = tmp_path / "repository"
    with tarfile.open(make_sdist(tmp_path, "one", "3.0")) as archive:
        archive.extractall(folder, filter="data")
    (folder / "one-3.0").rename(folder / "python")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "it builds")
    commit = git(folder, "rev-parse", "HEAD")
    (folder / "python" / "backend.py").write_text("raise RuntimeError('a later commit')")
    git(folder, "commit", "--quiet", "-a", "-m", "it does not build")
    return folder.as_uri(), commit


def lock_of(url: str, commit: str, subdirectory: str = "python") -> Lock:
    """A lock as uv writes it for a package from git."""
    vcs = f'vcs = {{type = "git", url = "{url}", commit-id = "{commit}", subdirectory = "{subdirectory}"}}'
    text = f'lock-version = "1.0"\ncreated-by = "t"\n[[packages]]\nname = "one"\n{vcs}\n'
    return Lock("/p/pylock.toml", text, is_resolved=True)


def test_a_commit_becomes_a_wheel_once(repository: tuple[str, str], tmp_path: Path) -> None:
    """The commit of the lock, not the newest; the second time the repository is not asked."""
    (chosen,) = choose(lock_of(*repository), FACTS, PYTHON)
    cache = WheelCache({}, tmp_path / "cache")
    built = cache.wheel_of(chosen)
    assert (built.name, built.version, built.file, built.is_wheel) == ("one", "3.0", "one-3.0-py3-none-any.whl", True)
    (tmp_path / "repository").rename(tmp_path / "gone")
    assert cache.wheel_of(chosen) == built
    assert cache.fetch(built).is_file()


@pytest.mark.slow
def test_a_commit_that_is_not_there_is_told(repository: tuple[str, str], tmp_path: Path) -> None:
    """With git's words."""
    (chosen,) = choose(lock_of(repository[0], "a" * 40), FACTS, PYTHON)
    with pytest.raises(PackagesError, match=r"(?s)one \(aaaaaaaaaaaa of git\): `git checkout` ended with .*aaaa"):
        WheelCache({}, tmp_path / "cache").wheel_of(chosen)


@pytest.mark.slow
def test_a_folder_that_is_not_there_is_told(repository: tuple[str, str], tmp_path: Path) -> None:
    """By its name."""
    (chosen,) = choose(lock_of(*repository, subdirectory="rust"), FACTS, PYTHON)
    with pytest.raises(PackagesError, match="has no folder rust"):
        WheelCache({}, tmp_path / "cache").wheel_of(chosen)


@pytest.mark.parametrize(
    ("url", "commit", "folder"),
    [
        ("ext::sh -c id", "a" * 40, None), ("--upload-pack=id", "a" * 40, None), ("https://g.test/x", "main", None),
        ("https://g.test/x", "--help", None), ("https://g.test/x", "a" * 40, "../x"), ("https://g.test/x", "a" * 40, "/etc"),
    ],
)  # fmt: skip
def test_what_is_no_commit_is_refused(url: str, commit: str, folder: str | None) -> None:
    """Nothing of it is read as an option, runs a program, or leads elsewhere."""
    with pytest.raises(PackagesError):
        git_address(url, commit, folder)


@pytest.mark.slow
def test_a_server_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with a message, and nothing of git is left."""
    lives = Lives(tmp_path / "lives")
    script(tmp_path / "bin" / "git", f'if [ "$1" = fetch ]; then\n{lives.hanging()}\nfi')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    address = git_address("https://g.test/x", "a" * 40, None)
    with pytest.raises(PackagesError, match=r"(?s)`git fetch` did not end within .*environment_timeout"):
        check_out(address, "one", tmp_path / "x", Steps(1.0))
    lives.wait_ended()


def test_without_git_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is needed here alone."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackagesError, match="no git on this machine"):
        check_out(git_address("https://g.test/x", "a" * 40, None), "one", tmp_path / "x", Steps())
