"""The ring by which a job tells its agent what it reports."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote_agent.shared.report_ring import MAX_RECORD, STOP, RingReader, RingWriter, has_mark, is_ring, mark


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """The folder of an attempt, which is not there yet."""
    return str(tmp_path / "reports" / "3.1")


def _reader(folder: str) -> RingReader:
    (name,) = filter(is_ring, os.listdir(folder))
    return RingReader(os.path.join(folder, name))


def test_records_are_read_once_and_in_order(folder: str) -> None:
    """A reader goes on behind what it has read, and so does another one that begins there."""
    ring = RingWriter(folder)
    reader = _reader(folder)
    assert reader.read() == []
    ring.write(b"a")
    ring.write(b"b")
    assert reader.read() == [(1, b"a"), (2, b"b")]
    assert reader.read() == []
    ring.write(b"c" * MAX_RECORD)
    later = RingReader(reader.path, reader.number)
    assert later.read() == reader.read() == [(3, b"c" * MAX_RECORD)]


def test_the_last_records_are_there_however_many_were_written(folder: str) -> None:
    """The file does not grow beyond its ring, and a reader that was away finds the last ones."""
    ring = RingWriter(folder)
    reader = _reader(folder)
    for number in range(1, 1001):
        ring.write(b"%d" % number)
    found = reader.read()
    assert found[-1] == (1000, b"1000")
    assert [number for number, _ in found] == list(range(1001 - len(found), 1001))
    assert os.stat(reader.path).st_size <= 300_000


def test_a_record_that_is_not_whole_counts_as_not_there(folder: str) -> None:
    """A reader that comes in the middle of a write gets the record the next time."""
    ring = RingWriter(folder)
    ring.write(b"first")
    ring.write(b"second")
    reader = _reader(folder)
    with open(reader.path, "r+b") as file:
        content = file.read()
        at = content.index(b"second")
        file.seek(at)
        file.write(b"torn..")
    assert reader.read() == [(1, b"first")]
    with open(reader.path, "r+b") as file:
        file.write(content)
    assert reader.read() == [(2, b"second")]


@pytest.mark.parametrize(
    "content", [b"", b"RLRR", b"x" * 5000, b"RLRR\0\0\0\2" + b"\0" * 2040 + b"\0" * 7 + b"\1" * 2000]
)
def test_what_is_no_ring_of_this_version_has_no_records(folder: str, content: bytes) -> None:
    """An application may write anything into the folder."""
    os.makedirs(folder)
    Path(folder, "x").write_bytes(content)
    assert _reader(folder).read() == []


def test_a_ring_that_the_application_has_closed_is_known(folder: str) -> None:
    """Its number may be another file's by then, and nothing is written there."""
    ring = RingWriter(folder)
    assert ring.is_whole
    os.close(ring.fd)
    assert not ring.is_whole
    other = os.open(folder, os.O_RDONLY)
    try:
        os.dup2(other, ring.fd)
        assert not ring.is_whole
        ring.close()
        os.fstat(ring.fd)  # still the application's
    finally:
        os.close(ring.fd)
        if other != ring.fd:
            os.close(other)


def test_a_mark_is_there_once_it_is_made(folder: str) -> None:
    """Made twice, it is the same. It is no ring."""
    assert not has_mark(folder, STOP)
    mark(folder, STOP)
    mark(folder, STOP)
    assert has_mark(folder, STOP)
    assert not list(filter(is_ring, os.listdir(folder)))
