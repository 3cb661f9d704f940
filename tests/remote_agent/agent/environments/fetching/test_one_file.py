"""One file is fetched: checked, resumed after a broken connection, and given up early rather than late."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_agent.agent.environments.fetching import one_file as fetching
from remote_agent.agent.environments.fetching.downloads import Download, Downloads
from remote_agent.agent.spool.code.blobs import BlobStore
from tests.file_server import FileServer, running_file_server

DATA = os.urandom(700_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_PAUSE", 0.0)


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server that has the file."""
    with running_file_server() as running:
        running.files["/a.whl"] = DATA
        yield running


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    """The store of the host."""
    return BlobStore(str(tmp_path / "blobs"))


def fetch(server: FileServer, blobs: BlobStore, size: int = len(DATA)) -> tuple[tuple[str, bool] | None, Downloads]:
    """Fetch the file."""
    one = Download(SHA256, size, f"{server.address}/a.whl", "a.whl")
    downloads = Downloads(blobs.folder, [one], is_named=True, tell=lambda sha256s, why: None)
    return fetching.fetch(downloads, one), downloads


def parts(blobs: BlobStore) -> list[int]:
    """The sizes of parts that are there."""
    return [path.stat().st_size for path in Path(blobs.folder).glob("part.*")]


def test_a_file_is_fetched(server: FileServer, blobs: BlobStore) -> None:
    """Its content is in the store, and is counted."""
    failure, downloads = fetch(server, blobs)
    assert failure is None
    assert blobs.read(SHA256) == DATA
    assert (downloads.fetched, downloads.there(SHA256)) == (len(DATA), len(DATA))


def test_a_connection_that_breaks_is_taken_up(server: FileServer, blobs: BlobStore) -> None:
    """Nothing comes twice."""
    server.cuts = [300_000, 200_000]
    failure, downloads = fetch(server, blobs)
    assert failure is None
    assert blobs.read(SHA256) == DATA
    assert downloads.fetched == len(DATA)
    assert [headers.get("range") for _, headers in server.asked] == [None, "bytes=300000-", "bytes=500000-"]


def test_a_server_that_sends_no_parts_sends_all(server: FileServer, blobs: BlobStore) -> None:
    """The part that was there is thrown away."""
    server.has_ranges = False
    server.cuts = [300_000]
    failure, downloads = fetch(server, blobs)
    assert failure is None
    assert blobs.read(SHA256) == DATA
    assert downloads.fetched == len(DATA) + 300_000


def test_a_connection_that_only_breaks_is_given_up(server: FileServer, blobs: BlobStore) -> None:
    """The part stays, and the controller goes on with it."""
    server.cuts = [100_000, 5, 5, 5, 5]
    failure, _ = fetch(server, blobs)
    assert failure is not None
    assert failure[1] is False
    assert len(server.asked) == 3
    assert blobs.resume(SHA256) == 100_010
    assert blobs.put_chunk(SHA256, len(DATA), 100_010, DATA[100_010:])


@pytest.mark.slow
def test_the_part_of_an_agent_that_was_killed_is_taken_up(server: FileServer, blobs: BlobStore) -> None:
    """Also where it was complete, and had no name yet."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for there in (200_000, len(DATA)):
        Path(blobs.folder, f"part.{process.pid}.{SHA256}").write_bytes(DATA[:there])
        failure, downloads = fetch(server, blobs)
        assert failure is None
        assert blobs.read(SHA256) == DATA
        assert downloads.fetched == len(DATA) - there
        Path(blobs.path(SHA256)).unlink()


@pytest.mark.parametrize("there", [200_000, len(DATA), len(DATA) + 5])
def test_a_part_that_was_altered_is_fetched_again(server: FileServer, blobs: BlobStore, there: int) -> None:
    """Whole, once."""
    Path(blobs.folder, f"part.{os.getpid()}.{SHA256}").write_bytes(b"x" * there)
    failure, _ = fetch(server, blobs)
    assert failure is None
    assert blobs.read(SHA256) == DATA


def test_content_that_does_not_match_is_thrown_away(server: FileServer, blobs: BlobStore) -> None:
    """Nothing of it is left, and it is not asked for again there."""
    server.files["/a.whl"] = DATA[:-1] + bytes([DATA[-1] ^ 1])
    failure, _ = fetch(server, blobs)
    assert failure == ("its content does not match the lock, and was thrown away", False)
    assert not blobs.has(SHA256)
    assert not parts(blobs)
    assert len(server.asked) == 1


@pytest.mark.parametrize("is_said", [True, False])
def test_no_more_comes_than_the_lock_says(server: FileServer, blobs: BlobStore, *, is_said: bool) -> None:
    """Whether the server says the size before, or sends without an end."""
    if not is_said:
        server.headers = {"Content-Length": ""}
    failure, downloads = fetch(server, blobs, 1000)
    assert failure is not None
    assert "1000" in failure[0]
    # What came before it was known to be too much.
    assert downloads.fetched <= 1000
    assert all(size <= 1000 for size in parts(blobs))


def test_a_server_that_nobody_reaches_is_asked_once(server: FileServer, blobs: BlobStore) -> None:
    """That holds for all its files: the controller has them."""
    with running_file_server() as gone:
        pass
    failure, _ = fetch(gone, blobs)
    assert failure == ("Connection refused", True)


def test_a_disk_that_is_full(server: FileServer, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told; what was there stays."""

    def full(*given: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(BlobStore, "put_chunk", full)
    failure, _ = fetch(server, blobs)
    assert failure is not None
    assert "No space left on device" in failure[0]


def test_a_slow_server_counts_as_broken(server: FileServer, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sends hardly anything, and goes on doing so."""
    monkeypatch.setattr(fetching, "_SLOWEST_WITHIN", -1.0)
    monkeypatch.setattr(fetching, "_SLOWEST", 1 << 30)
    failure, _ = fetch(server, blobs)
    assert failure is not None
    assert "bytes came within" in failure[0]


def test_what_nobody_needs_is_not_read(server: FileServer, blobs: BlobStore) -> None:
    """It ends where it is."""
    one = Download(SHA256, len(DATA), f"{server.address}/a.whl", "a.whl")
    downloads = Downloads(blobs.folder, [one], is_named=True, tell=lambda sha256s, why: None)
    downloads.stop()
    assert fetching.fetch(downloads, one) == ("it is not needed any more", False)
    assert not blobs.has(SHA256)
