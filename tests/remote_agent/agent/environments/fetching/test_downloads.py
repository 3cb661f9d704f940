"""Files are fetched by several threads; each is reported once."""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_agent.agent.environments.fetching.downloads import STOPPED, Download, Downloads
from remote_agent.agent.spool.code.blobs import BlobStore
from tests.file_server import FileServer, running_file_server
from tests.remote_agent.agents import wait_until

LIMIT = 60.0


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server of ten files."""
    with running_file_server() as running:
        for number in range(10):
            running.files[f"/{number}.whl"] = bytes([number]) * (1000 + number)
        yield running


def wanted(server: FileServer) -> list[Download]:
    """All its files."""
    return [
        Download(hashlib.sha256(data).hexdigest(), len(data), server.address + path, path[1:])
        for path, data in server.files.items()
    ]


class Told:
    """What is reported, from any thread."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[list[str], str]] = queue.Queue()

    def __call__(self, sha256s: list[str], why: str) -> None:
        self._queue.put((sha256s, why))

    def wait(self, count: int) -> dict[str, str]:
        """Return the report of each of so many files. None comes twice."""
        found: dict[str, str] = {}
        while len(found) < count:
            sha256s, why = self._queue.get(timeout=LIMIT)
            assert not set(sha256s) & set(found)
            found.update(dict.fromkeys(sha256s, why))
        assert self._queue.empty()
        return found


def test_all_come(server: FileServer, tmp_path: Path) -> None:
    """Each is complete when it is reported; the largest is begun first."""
    files, told = wanted(server), Told()
    downloads = Downloads(str(tmp_path / "blobs"), files, is_named=True, tell=told)
    server.hold.clear()
    downloads.start()
    wait_until(lambda: len(server.asked) == 4, "four files at once")
    assert {path for path, _ in server.asked} == {f"/{number}.whl" for number in range(6, 10)}
    server.hold.set()
    assert told.wait(10) == dict.fromkeys((one.sha256 for one in files), "")
    assert all(BlobStore(str(tmp_path / "blobs")).has(one.sha256) for one in files)
    assert downloads.fetched == sum(one.size for one in files)


def test_of_a_server_that_wants_credentials_all_files_are_given_back(server: FileServer, tmp_path: Path) -> None:
    """Its files are reported with the same reason, and it is not asked for each; other servers go on."""
    files, told = wanted(server), Told()
    server.status = dict.fromkeys(server.files, 401)
    with running_file_server() as other:
        other.files["/small.whl"] = b"x"
        files += wanted(other)
        downloads = Downloads(str(tmp_path / "blobs"), files, is_named=True, tell=told)
        downloads.start()
        found = told.wait(11)
    why = f"packages cannot be fetched from {files[0].server}: status 401"
    assert [found[one.sha256] for one in files] == [why] * 10 + [""]
    assert len(server.asked) <= 4


def test_a_file_that_is_not_there_says_nothing_of_the_others(server: FileServer, tmp_path: Path) -> None:
    """It is named."""
    files, told = wanted(server), Told()
    server.status["/3.whl"] = 404
    Downloads(str(tmp_path / "blobs"), files, is_named=True, tell=told).start()
    found = told.wait(10)
    assert [why for why in found.values() if why] == [f"3.whl was not fetched from {files[3].server}: status 404"]


def test_what_is_stopped_is_reported_as_that(server: FileServer, tmp_path: Path) -> None:
    """What was under way, and what was not begun."""
    files, told = wanted(server), Told()
    server.hold.clear()
    downloads = Downloads(str(tmp_path / "blobs"), files, is_named=True, tell=told)
    downloads.start()
    wait_until(lambda: len(server.asked) == 4, "four files at once")
    downloads.stop()
    server.hold.set()
    found = told.wait(10)
    # What came in one piece may be complete.
    assert {found[one.sha256] for one in files[6:]} <= {STOPPED, ""}
    assert {found[one.sha256] for one in files[:6]} == {STOPPED}


def test_an_address_that_is_none(tmp_path: Path) -> None:
    """It is refused, and nothing breaks."""
    told = Told()
    one = Download("a" * 64, 5, "https://[x", "a.whl")
    Downloads(str(tmp_path / "blobs"), [one], is_named=True, tell=told).start()
    assert "its address is not https" in told.wait(1)["a" * 64]
