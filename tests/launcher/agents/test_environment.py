"""Sending a host its environment: a file goes on where it stopped, and nothing goes over a link that is gone."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.agents.environment import EnvironmentSender, file_frames
from launcher.errors import LauncherError
from remote_agent.protocol import wire
from remote_agent.protocol.specs.environment import EnvironmentSpec, HostFacts

HASH = "a" * 64
FACTS = HostFacts("Linux", "x86_64", "6.1", "glibc 2.36", "", 0, [])


class Source:
    """An environment with one file."""

    def __init__(self, file: Path, error: Exception | None = None) -> None:
        self.file = file
        self.error = error
        self.fetched: list[tuple[str, bool]] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.spec = EnvironmentSpec(HASH, "/usr/bin/python3", [], HASH, 3, HASH, 60.0)

    def plan(self, facts: HostFacts, named: str | None = None, downloads: bool | tuple[str, ...] = False) -> Source:
        """Return itself, or raise the error."""
        self.may_go_on.wait(60)
        if self.error is not None:
            raise self.error
        return self

    def stop(self) -> None:
        """Do nothing."""

    def addresses(self, allowed: bool | tuple[str, ...]) -> dict[str, str]:
        """Return one, which says what was allowed."""
        return {HASH: f"https://packages.example.org/{allowed}"}

    def fetch(self, sha256: str, *, is_doubtful: bool = False) -> Path:
        """Return the file."""
        self.fetched.append((sha256, is_doubtful))
        return self.file


def frames(item: Iterator[bytes] | bytes) -> list[wire.Frame]:
    """The frames of an item of the queue."""
    decoder = wire.Decoder()
    data = item if isinstance(item, bytes) else b"".join(item)
    return decoder.feed(data)


@pytest.mark.parametrize("offset", [0, 5, wire.CHUNK, wire.CHUNK * 2])
def test_a_file_goes_on_where_it_stopped(offset: int, tmp_path: Path) -> None:
    """It is sent in chunks."""
    data = bytes(range(256)) * (wire.CHUNK // 128)
    file = tmp_path / "file"
    file.write_bytes(data)
    sent = frames(file_frames(HASH, file, offset))
    assert b"".join(frame.payload for frame in sent) == data[offset:]
    assert [frame.header["offset"] for frame in sent][:1] == [offset]
    assert {frame.header["size"] for frame in sent} == {len(data)}


def test_the_description_is_sent_before_the_files(tmp_path: Path) -> None:
    """Files that are more than half there come first."""
    file = tmp_path / "file"
    file.write_bytes(b"content")
    put: queue.Queue[Iterator[bytes] | bytes] = queue.Queue()
    sender = EnvironmentSender("h", Source(file), put.put)
    sender.describe(FACTS)
    (told,) = frames(put.get(timeout=60))
    assert (told.header["t"], json.loads(told.payload)["key"]) == ("environment", HASH)
    sender.send([("b" * 64, 0), ("c" * 64, 4)])
    sent = [frames(put.get(timeout=60))[0] for _ in range(2)]
    assert [(one.header["sha256"][0], one.payload) for one in sent] == [("c", b"ent"), ("b", b"content")]


@pytest.mark.parametrize("downloads", [False, True, ("https://packages.example.org/",)])
def test_addresses_are_sent_only_if_the_user_allows_it(downloads: bool | tuple[str, ...], tmp_path: Path) -> None:
    """And whether the user has named them."""
    put: queue.Queue[Iterator[bytes] | bytes] = queue.Queue()
    EnvironmentSender("h", Source(tmp_path), put.put, downloads=downloads).describe(FACTS)
    (frame,) = frames(put.get(timeout=60))
    assert frame.header["addresses"] == ({HASH: f"https://packages.example.org/{downloads}"} if downloads else {})
    assert frame.header["named"] is isinstance(downloads, tuple)
    assert frame.header["fetch_python"] is bool(downloads)


@pytest.mark.parametrize(
    ("error", "told"), [(LauncherError("no wheel"), "no wheel"), (ZeroDivisionError("x"), "ZeroDivisionError: x")]
)
def test_the_host_learns_that_a_file_cannot_be_fetched(error: Exception, told: str, tmp_path: Path) -> None:
    """The host then fails the jobs that wait for it."""
    put: queue.Queue[Iterator[bytes] | bytes] = queue.Queue()
    EnvironmentSender("h", Source(tmp_path, error), put.put).describe(FACTS)
    (frame,) = frames(put.get(timeout=60))
    assert frame.header["t"] == "withheld"
    assert frame.header["environment"] is True
    assert told in frame.header["message"]


def test_nothing_is_sent_over_a_link_that_is_gone(tmp_path: Path) -> None:
    """This holds even if the answer is known later."""
    put: queue.Queue[Iterator[bytes] | bytes] = queue.Queue()
    source = Source(tmp_path)
    source.may_go_on.clear()
    sender = EnvironmentSender("h", source, put.put)
    sender.describe(FACTS)
    sender.close()
    source.may_go_on.set()
    for thread in threading.enumerate():
        if thread.name == "environment-h":
            thread.join(60)
    assert put.empty()


def test_what_is_asked_for_again_is_looked_at(tmp_path: Path) -> None:
    """From its first byte: what arrived was not what its name says. What goes on where it stopped is not."""
    file = tmp_path / "file"
    file.write_bytes(b"content")
    put: queue.Queue[Iterator[bytes] | bytes] = queue.Queue()
    source = Source(file)
    sender = EnvironmentSender("h", source, put.put)
    sender.describe(FACTS)
    put.get(timeout=60)
    for offset in (0, 3, 0):
        sender.send([(HASH, offset)])
        put.get(timeout=60)
    assert source.fetched == [(HASH, False), (HASH, False), (HASH, True)]
