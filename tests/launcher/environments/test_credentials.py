"""Where credentials of indexes may be: each such place keeps a server's addresses here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.environments.credentials import GuardedServers, credentials_for
from launcher.environments.lock import Lock

INDEX = "https://packages.example.org/simple"
USER = "https://me:word@packages.example.org/simple"
NAME = "packages.example.org"


@pytest.fixture(autouse=True)
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "etc"))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "UV_CONFIG_FILE", "SSL_CLIENT_CERT"):
        monkeypatch.delenv(name, raising=False)


def write(path: Path, text: str) -> None:
    """Write a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def guarded(folder: Path, *, text: str = "", indexes: tuple[tuple[str, str], ...] = ()) -> GuardedServers:
    """What is known for the lock of a project."""
    (folder / "project").mkdir(exist_ok=True)
    lock = Lock(str(folder / "project" / "requirements.txt"), text, is_resolved=False, indexes=indexes)
    return GuardedServers.of(lock)


def test_nothing_is_set(tmp_path: Path) -> None:
    """Then no server is known to want any."""
    write(tmp_path / "project" / "pyproject.toml", f'[[tool.uv.index]]\nname = "x"\nurl = "{INDEX}"\n')
    assert guarded(tmp_path) == GuardedServers(frozenset(), is_certain=True)


_PLACES: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    "pyproject.toml": lambda folder, patch: write(
        folder / "project/pyproject.toml", f'[[tool.uv.index]]\nname = "x"\nurl = "{USER}"\n'
    ),
    "pyproject.toml above": lambda folder, patch: write(
        folder / "pyproject.toml", f'[[tool.uv.index]]\nname = "x"\nurl = "{USER}"\n'
    ),
    "a member's": lambda folder, patch: (
        write(folder / "project/pyproject.toml", '[tool.uv.workspace]\nmembers = ["packages/*"]\n'),
        write(folder / "project/packages/one/pyproject.toml", f'[tool.uv]\nextra-index-url = ["{USER}"]\n'),
    )[0],
    "uv.toml": lambda folder, patch: write(folder / "project/uv.toml", f'index-url = "{USER}"\n'),
    "the user's uv.toml": lambda folder, patch: write(folder / "home/.config/uv/uv.toml", f'find-links = ["{USER}"]\n'),
    "the system's uv.toml": lambda folder, patch: write(folder / "etc/uv/uv.toml", f'index-url = "{USER}"\n'),
    "a uv.toml by name": lambda folder, patch: (
        write(folder / "named.toml", f'index-url = "{USER}"\n'),
        patch.setenv("UV_CONFIG_FILE", str(folder / "named.toml")),
    )[0],
    "always authenticated": lambda folder, patch: write(
        folder / "project/uv.toml", f'[[index]]\nname = "x"\nurl = "{INDEX}"\nauthenticate = "always"\n'
    ),
    "uv auth": lambda folder, patch: write(
        folder / "home/.local/share/uv/credentials/credentials.toml", f'[[credential]]\nservice = "{INDEX}"\n'
    ),
    "netrc": lambda folder, patch: write(folder / "netrc", f"machine {NAME} login me password word\n"),
    "UV_INDEX": lambda folder, patch: patch.setenv("UV_INDEX", f"x={USER}"),
    "UV_FIND_LINKS": lambda folder, patch: patch.setenv("UV_FIND_LINKS", USER),
    "the variables of an index": lambda folder, patch: patch.setenv("UV_INDEX_MY_OWN_PASSWORD", "word"),
    "requirements": lambda folder, patch: write(folder / "project/requirements.txt", f"--index-url {USER}\none\n"),
    "included requirements": lambda folder, patch: (
        write(folder / "project/requirements.txt", "-r more/all.txt\n"),
        write(folder / "project/more/all.txt", f"--extra-index-url={USER}\none\n"),
    )[0],
}


@pytest.mark.parametrize("place", _PLACES)
def test_a_place_of_credentials(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server is known to want some, and no other."""
    _PLACES[place](tmp_path, monkeypatch)
    assert guarded(tmp_path, indexes=(("my-own", INDEX),)) == GuardedServers(frozenset({NAME}), is_certain=True)


_DOUBTS: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    "a keyring": lambda folder, patch: patch.setenv("UV_KEYRING_PROVIDER", "subprocess"),
    "a keyring in uv.toml": lambda folder, patch: write(
        folder / "project/uv.toml", 'keyring-provider = "subprocess"\n'
    ),
    "a keyring in pyproject.toml": lambda folder, patch: write(
        folder / "project/pyproject.toml", '[tool.uv]\nkeyring-provider = "subprocess"\n'
    ),
    "an index that nobody knows": lambda folder, patch: patch.setenv("UV_INDEX_OTHER_USERNAME", "me"),
    "any machine of netrc": lambda folder, patch: write(folder / "netrc", "default login me password word\n"),
    "a netrc that is none": lambda folder, patch: write(folder / "netrc", "nonsense\n"),
    "a file that is not TOML": lambda folder, patch: write(folder / "project/uv.toml", "["),
    "a client's certificate": lambda folder, patch: patch.setenv("SSL_CLIENT_CERT", "/c.pem"),
    "an included file that is a folder": lambda folder, patch: write(folder / "project/requirements.txt", "-r .\n"),
}


@pytest.mark.parametrize("doubt", _DOUBTS)
def test_what_leaves_it_open(doubt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any server may want credentials then."""
    _DOUBTS[doubt](tmp_path, monkeypatch)
    assert not guarded(tmp_path, indexes=(("my-own", INDEX),)).is_certain


def test_a_project_that_is_gone(tmp_path: Path) -> None:
    """Its settings cannot be read."""
    lock = Lock(str(tmp_path / "gone" / "uv.lock"), "", is_resolved=True)
    assert not GuardedServers.of(lock).is_certain


def test_credentials_of_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own, those of its index, or those of its machine."""
    url = "https://packages.example.org/one.whl"
    assert credentials_for(url, {}) is None
    assert credentials_for("https://a:b%40c@packages.example.org/one.whl", {}) == ("a", "b@c")
    monkeypatch.setenv("UV_INDEX_MY_OWN_PASSWORD", "word")
    assert credentials_for(url, {"my-own": INDEX}) == ("", "word")
    assert credentials_for("https://other.example.org/", {"my-own": INDEX}) is None
    write(tmp_path / "netrc", f"machine {NAME} login me password other\n")
    assert credentials_for(url, {}) == ("me", "other")
