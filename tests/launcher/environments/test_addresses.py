"""Which addresses a host may get: what the user allows, and nothing that wants a credential."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from launcher.environments.addresses import Addresses
from launcher.environments.lock import Lock
from launcher.environments.select import Chosen

URL = "https://packages.example.org/files/one-1.0-py3-none-any.whl"
INDEX = "https://packages.example.org/simple"
ONE = Chosen("one", "1.0", "one-1.0-py3-none-any.whl", URL, "a" * 64, 5, is_wheel=True, index=INDEX)


@pytest.fixture(autouse=True)
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "UV_CONFIG_FILE", "SSL_CLIENT_CERT"):
        monkeypatch.delenv(name, raising=False)


def addresses(allowed: bool | tuple[str, ...], folder: Path, file: Chosen = ONE) -> list[str]:
    """What a host gets."""
    lock = Lock(str(folder / "uv.lock"), "", is_resolved=True)
    return list(Addresses(allowed, lock).of([file]).values())


def test_off_by_default(tmp_path: Path) -> None:
    """A host sees no address."""
    assert addresses(False, tmp_path) == []
    assert addresses((), tmp_path) == []


def test_a_public_address(tmp_path: Path) -> None:
    """Without what is only for this machine."""
    assert addresses(True, tmp_path) == [URL]
    assert addresses(True, tmp_path, replace(ONE, url=f"{URL}#sha256=5")) == [URL]
    assert addresses(True, tmp_path, replace(ONE, index="")) == [URL]


@pytest.mark.parametrize(
    "change",
    [
        {"url": "https://me:word@packages.example.org/one.whl"},
        {"url": f"{URL}?signature=5"},
        {"url": "http://packages.example.org/one.whl"},
        {"url": "http://127.0.0.1/one.whl"},
        {"url": "file:///one.whl"},
        {"is_wheel": False},
        {"index": "https://me@packages.example.org/simple"},
        {"index": "https://packages.example.org/simple?token=5"},
    ],
)
def test_what_may_be_secret(tmp_path: Path, change: dict[str, object]) -> None:
    """Or is nothing that a host could fetch."""
    assert addresses(True, tmp_path, replace(ONE, **change)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("url", [URL, "https://cdn.example.org/one.whl"])
def test_a_server_or_an_index_that_wants_credentials(tmp_path: Path, url: str) -> None:
    """Also if the file is on another server: its address is part of what the index tells. Naming it does not change that."""
    (tmp_path / "netrc").write_text("machine packages.example.org login me password word\n")
    file = replace(ONE, url=url)
    assert addresses(True, tmp_path, file) == []
    assert addresses((url,), tmp_path, file) == []


def test_where_it_is_not_known_only_what_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A keyring may have a credential for any server."""
    monkeypatch.setenv("UV_KEYRING_PROVIDER", "subprocess")
    assert addresses(True, tmp_path) == []
    assert addresses(("https://packages.example.org/",), tmp_path) == [URL]


@pytest.mark.parametrize(
    ("prefix", "is_allowed"),
    [
        ("https://packages.example.org", True),
        ("https://PACKAGES.example.org/", True),
        ("https://packages.example.org/files", True),
        ("https://packages.example.org/files/", True),
        (URL, True),
        ("https://packages.example.org/file", False),
        ("https://packages.example.org:8443/", False),
        ("https://packages.example.or", False),
        ("https://example.org/", False),
        ("http://127.0.0.1/", False),
    ],
)
def test_a_beginning_ends_at_a_name(tmp_path: Path, prefix: str, *, is_allowed: bool) -> None:
    """`https://a.org` does not allow `https://a.org.example.com`."""
    assert addresses((prefix,), tmp_path) == ([URL] if is_allowed else [])


def test_loopback_only_if_it_is_named(tmp_path: Path) -> None:
    """A mirror on the host itself needs no TLS."""
    file = replace(ONE, url="http://127.0.0.1:8000/one.whl", index="")
    assert addresses(("http://127.0.0.1:8000/",), tmp_path, file) == ["http://127.0.0.1:8000/one.whl"]
    assert addresses(("http://127.0.0.1:8001/",), tmp_path, file) == []


def test_more_than_a_message_holds(tmp_path: Path) -> None:
    """The largest files have addresses; the others are sent."""
    files = [
        replace(ONE, sha256=f"{number:064}", size=number, url=f"{URL}/{'a' * 1000}/{number}") for number in range(600)
    ]
    found = Addresses(True, Lock(str(tmp_path / "uv.lock"), "", is_resolved=True)).of(files)
    assert 400 < len(found) < 500
    assert list(found) == [f"{number:064}" for number in range(599, 599 - len(found), -1)]
