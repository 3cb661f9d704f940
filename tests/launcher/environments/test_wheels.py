"""Files come from where the lock says, are what it says, and credentials go to their index alone."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from launcher.environments import wheels as module
from launcher.environments.select import Chosen
from launcher.environments.uv import Steps
from launcher.environments.wheels import WheelCache
from launcher.errors import PackagesError
from tests.packages import make_sdist

DATA = b"a wheel" * 100
SHA256 = hashlib.sha256(DATA).hexdigest()


def chosen(url: str, sha256: str = SHA256, *, file: str = "one-1.0-py3-none-any.whl") -> Chosen:
    """A file of that address."""
    return Chosen("one", "1.0", file, url, sha256, None, file.endswith(".whl"))


@contextmanager
def index(*, needs: str = "", passes_on_to: str = "", fails: int = 0) -> Iterator[tuple[str, list[str | None]]]:
    """An index; gives its address, and the Authorization of each request."""
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers["Authorization"]
            asked.append(given)
            wanted = f"Basic {base64.b64encode(needs.encode()).decode()}" if needs else None
            if len(asked) <= fails:
                self.send_error(503)
            elif wanted is not None and given != wanted:
                self.send_error(401)
            elif passes_on_to:
                self.send_response(302)
                self.send_header("Location", passes_on_to)
                self.end_headers()
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(DATA)))
                self.end_headers()
                self.wfile.write(DATA)

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/one-1.0-py3-none-any.whl", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("UV_INDEX_URL", "PIP_INDEX_URL", "UV_INDEX", "PIP_EXTRA_INDEX_URL", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_a_file_is_fetched_once(tmp_path: Path) -> None:
    """The second time it is here; a server that is busy for a moment is asked again."""
    cache = WheelCache({}, tmp_path / "cache")
    with index(fails=1) as (url, asked):
        assert cache.fetch(chosen(url)).read_bytes() == DATA
        assert cache.fetch(chosen(url)) == cache.path(SHA256)
    assert len(asked) == 2


def test_another_content_is_refused(tmp_path: Path) -> None:
    """By name, and it is not kept."""
    cache = WheelCache({}, tmp_path / "cache")
    with index() as (url, _), pytest.raises(PackagesError, match=r"one-1\.0.*the lock says 0000"):
        cache.fetch(chosen(url, "0" * 64))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("way", ["url", "netrc", "named", "index"])
def test_credentials_are_found(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the address, in ~/.netrc, and where uv and pip have them."""
    with index(needs="me:s3 cret") as (url, asked):
        indexes = {}
        if way == "url":
            url = url.replace("//", "//me:s3%20cret@")
        elif way == "netrc":
            (tmp_path / "netrc").write_text('machine 127.0.0.1 login me password "s3 cret"\n')
            (tmp_path / "netrc").chmod(0o600)
        elif way == "named":
            indexes = {"my-own": url.rpartition("/")[0]}
            monkeypatch.setenv("UV_INDEX_MY_OWN_USERNAME", "me")
            monkeypatch.setenv("UV_INDEX_MY_OWN_PASSWORD", "s3 cret")
        else:
            monkeypatch.setenv("PIP_INDEX_URL", url.rpartition("/")[0].replace("//", "//me:s3%20cret@"))
        assert WheelCache(indexes, tmp_path / "cache").fetch(chosen(url)).read_bytes() == DATA
    assert len(asked) == 1


def test_credentials_are_not_passed_on(tmp_path: Path) -> None:
    """An index that sends elsewhere for its files does not send our password there."""
    with index() as (other, heard), index(needs="me:secret", passes_on_to=other) as (url, _):
        WheelCache({}, tmp_path / "cache").fetch(chosen(url.replace("//", "//me:secret@")))
    assert heard == [None]


def test_a_refusal_says_what_to_do_and_no_secret(tmp_path: Path) -> None:
    """Where credentials are missing or wrong."""
    with index(needs="me:right") as (url, asked), pytest.raises(PackagesError, match="netrc") as refused:
        WheelCache({}, tmp_path / "cache").fetch(chosen(url.replace("//", "//me:wr0ng@")))
    assert "wr0ng" not in str(refused.value)
    assert len(asked) == 1


def test_an_sdist_becomes_a_wheel_once(tmp_path: Path) -> None:
    """The second time the same wheel is taken; one for this machine alone is refused by name."""
    sdist = make_sdist(tmp_path, "one")
    cache = WheelCache({}, tmp_path / "cache")
    source = chosen(sdist.as_uri(), hashlib.sha256(sdist.read_bytes()).hexdigest(), file=sdist.name)
    built = cache.wheel_of(source)
    assert (built.file, built.is_wheel) == ("one-1.0-py3-none-any.whl", True)
    assert hashlib.sha256(cache.fetch(built).read_bytes()).hexdigest() == built.sha256
    sdist.unlink()
    assert cache.wheel_of(source) == built
    native = make_sdist(tmp_path, "two", tag="cp311-cp311-linux_x86_64")
    named = chosen(native.as_uri(), hashlib.sha256(native.read_bytes()).hexdigest(), file=native.name)
    with pytest.raises(PackagesError, match="fits only this machine"):
        cache.wheel_of(named)


@pytest.mark.parametrize("kind", ["gztar", pytest.param("zip", marks=pytest.mark.slow)])
def test_a_package_in_a_folder_of_an_archive(kind: str, tmp_path: Path) -> None:
    """Of one archive, each folder gives its own wheel; a folder that is not there is named."""
    for name in ("one", "two"):
        shutil.unpack_archive(make_sdist(tmp_path, name), tmp_path / "made")
        (tmp_path / "made" / f"{name}-1.0").rename(tmp_path / "made" / name)
        for path in (tmp_path / "made" / name).iterdir():
            os.utime(path)  # a zip knows no time before 1980
    (tmp_path / "top").mkdir()
    (tmp_path / "made").rename(tmp_path / "top" / "repository-1f2e")
    archive = Path(shutil.make_archive(str(tmp_path / "repository"), kind, tmp_path / "top"))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    cache = WheelCache({}, tmp_path / "cache")
    whole = chosen(archive.as_uri(), digest, file=archive.name)
    for name in ("one", "two"):
        built = cache.wheel_of(replace(whole, name=name, folder=name))
        assert (built.file, built.folder) == (f"{name}-1.0-py3-none-any.whl", "")
    with pytest.raises(PackagesError, match="has no folder three"):
        cache.wheel_of(replace(whole, folder="three"))


def test_a_file_that_was_altered_here_is_fetched_again(tmp_path: Path) -> None:
    """Where there is a reason to look; one that was built here is removed, and it is said what to do."""
    cache = WheelCache({}, tmp_path / "cache")
    with index() as (url, asked):
        path = cache.fetch(chosen(url))
        assert cache.fetch(chosen(url), is_doubtful=True) == path
        assert len(asked) == 1
        path.write_bytes(bytes([DATA[0] ^ 1]) + DATA[1:])
        assert cache.fetch(chosen(url), is_doubtful=True).read_bytes() == DATA
        assert len(asked) == 2
    path.write_bytes(b"altered")
    with pytest.raises(PackagesError, match=r"(?s)altered in .*next: start the run again"):
        cache.fetch(chosen(path.as_uri()), is_doubtful=True)
    assert not path.exists()


def test_an_index_that_sends_hardly_anything_counts_as_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it goes on: it is given up after as many tries as one that is silent."""
    now = iter(range(0, 10_000, 45))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(now)))
    monkeypatch.setattr(module, "_PIECE", 1)
    with index() as (url, asked), pytest.raises(PackagesError, match="only 2 bytes came within 60 s"):
        WheelCache({}, tmp_path / "cache").fetch(chosen(url))
    assert len(asked) == 3


def test_a_run_that_is_over_fetches_nothing_more(tmp_path: Path) -> None:
    """What had begun ends with the next piece."""
    steps = Steps()
    steps.stop()
    with index() as (url, _), pytest.raises(PackagesError, match="the run is over"):
        WheelCache({}, tmp_path / "cache", steps).fetch(chosen(url))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_where_nothing_may_be_built_an_sdist_is_named(tmp_path: Path) -> None:
    """Its build code is not run. What was built before counts."""
    planted = tmp_path / "planted"
    folder = tmp_path / "index"
    sdist = make_sdist(folder, "tiny", before=f"open({str(planted)!r}, 'w')")
    digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    chosen = Chosen("tiny", "1.0", sdist.name, sdist.as_uri(), digest, None, is_wheel=False)
    steps = Steps(may_build=False)
    with pytest.raises(PackagesError, match=r"tiny \(tiny-1.0.tar.gz\) is no wheel.*\n    next: "):
        WheelCache({}, steps=steps).wheel_of(chosen)
    assert not planted.exists()
    built = WheelCache({}).wheel_of(chosen)
    assert planted.exists()
    assert WheelCache({}, steps=steps).wheel_of(chosen) == built
