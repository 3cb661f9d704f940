"""Content by hash. It is as its name says, or is refused."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from remote_agent.agent.spool.code import blobs
from remote_agent.agent.spool.code.blobs import BlobStore
from remote_agent.protocol.fields import is_sha256
from remote_agent.system.private_files import SpoolError
from tests.requirements import READS_PROC


def sha(data: bytes) -> str:
    """The name of a content."""
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    """An empty store."""
    return BlobStore(str(tmp_path / "blobs"))


class TestStore:
    """Blobs."""

    def test_a_blob_comes_whole_or_in_pieces(self, store):
        """It exists when its last piece has come, with the content that its name says."""
        data = os.urandom(1000)
        assert not store.has(sha(data))
        for offset in range(0, 1000, 300):
            whole = store.put_chunk(sha(data), 1000, offset, data[offset : offset + 300])
        assert whole
        assert store.read(sha(data)) == data
        store.put(sha(b""), b"")
        assert store.read(sha(b"")) == b""
        assert Path(store.path(sha(data))).stat().st_mode & 0o077 == 0

    def test_an_existing_blob_is_not_written_again(self, store):
        """A second sender of the same content changes nothing."""
        store.put(sha(b"abc"), b"abc")
        assert not store.put_chunk(sha(b"abc"), 3, 0, b"xx")
        assert store.put_chunk(sha(b"abc"), 3, 2, b"x")
        assert store.read(sha(b"abc")) == b"abc"

    def test_content_that_does_not_match_its_name_is_refused(self, store, tmp_path):
        """It leaves nothing."""
        with pytest.raises(SpoolError, match="does not match its name"):
            store.put(sha(b"right"), b"wrong")
        assert not store.has(sha(b"right"))
        assert os.listdir(tmp_path / "blobs") == []

    @pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64, "0" * 63, "g" * 64, 5, None])
    def test_invalid_names_are_refused(self, store, name):
        """They never become paths."""
        assert not is_sha256(name)
        assert not store.has(name)
        with pytest.raises(SpoolError, match="named"):
            store.put_chunk(name, 1, 0, b"x")
        with pytest.raises(SpoolError, match="named"):
            store.path(name)

    @pytest.mark.parametrize(
        "pieces", [[(1, b"b")], [(0, b"a"), (2, b"c")], [(0, b"abcd")], [(0, b"a"), (0, b"ab"), (1, b"b")]]
    )
    def test_pieces_out_of_order_are_refused(self, store, pieces):
        """A new beginning is accepted."""
        with pytest.raises(SpoolError, match="byte"):
            for offset, data in pieces:
                store.put_chunk(sha(b"abc"), 3, offset, data)
        assert store.put_chunk(sha(b"abc"), 3, 0, b"abc")

    @READS_PROC
    def test_a_broken_link_leaves_nothing_open(self, store, tmp_path):
        """A blob that came in part begins again, and its file is removed."""
        before = len(os.listdir("/proc/self/fd"))
        store.put_chunk(sha(b"abc"), 3, 0, b"a")
        store.drop_partial()
        assert len(os.listdir("/proc/self/fd")) == before
        assert os.listdir(tmp_path / "blobs") == []
        with pytest.raises(SpoolError, match="begins at byte 1"):
            store.put_chunk(sha(b"abc"), 3, 1, b"bc")


def test_a_blob_goes_on_where_a_link_was_lost(tmp_path):
    """If it is kept. Other blobs come again from the start."""
    store = BlobStore(str(tmp_path / "blobs"))
    kept, dropped = b"k" * 1000, b"d" * 1000
    names = [hashlib.sha256(data).hexdigest() for data in (kept, dropped)]
    for name, data in zip(names, (kept, dropped), strict=True):
        store.put_chunk(name, 1000, 0, data[:600])
    store.drop_partial(keep={names[0]})
    assert [store.resume(name) for name in names] == [600, 0]
    assert store.put_chunk(names[0], 1000, 600, kept[600:])
    assert store.read(names[0]) == kept


def test_a_blob_goes_on_where_an_agent_died(tmp_path):
    """Its part is used. The part of a living agent is not."""
    data = b"k" * 1000
    name = hashlib.sha256(data).hexdigest()
    store = BlobStore(str(tmp_path / "blobs"))
    alive = tmp_path / "blobs" / f"part.1.{name}"
    alive.write_bytes(data[:900])
    assert store.resume(name) == 0
    (tmp_path / "blobs" / f"part.{2**22 + 1}.{name}").write_bytes(data[:700])
    assert store.resume(name) == 700
    assert store.put_chunk(name, 1000, 700, data[700:])
    assert store.read(name) == data


def test_a_blob_goes_on_after_the_disk_was_full(tmp_path, monkeypatch):
    """From what was whole: a part of a piece that was written does not count."""
    store = BlobStore(str(tmp_path / "blobs"))
    data = bytes(range(256)) * 40
    sha256 = hashlib.sha256(data).hexdigest()
    store.put_chunk(sha256, len(data), 0, data[:1000])
    write = os.write
    monkeypatch.setattr(blobs.os, "write", lambda fd, view: write(fd, view[:100]) if len(view) > 8900 else full())
    with pytest.raises(OSError, match="No space"):
        store.put_chunk(sha256, len(data), 1000, data[1000:])
    monkeypatch.undo()
    assert store.resume(sha256) == 1000
    assert store.put_chunk(sha256, len(data), 1000, data[1000:])
    assert store.read(sha256) == data


def test_two_stores_of_a_process_go_on_with_a_part_in_turn(tmp_path):
    """Each leaves it before the other takes it."""
    one, other = BlobStore(str(tmp_path / "blobs")), BlobStore(str(tmp_path / "blobs"))
    data = bytes(range(256)) * 4
    sha256 = hashlib.sha256(data).hexdigest()
    for at in range(0, len(data), 256):
        assert one.resume(sha256) == at
        one.put_chunk(sha256, len(data), at, data[at : at + 256])
        one.leave(sha256)
        one, other = other, one
    assert one.read(sha256) == data


@READS_PROC
def test_the_part_of_a_process_that_nobody_waited_for_is_taken_up(tmp_path):
    """It is dead, though its number is still taken."""
    store = BlobStore(str(tmp_path / "blobs"))
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    sha256 = hashlib.sha256(b"0123456789").hexdigest()
    (tmp_path / "blobs" / f"part.{process.pid}.{sha256}").write_bytes(b"01234")
    assert store.resume(sha256) == 5
    process.wait()


def full():
    """What a disk says that takes nothing more."""
    raise OSError(errno.ENOSPC, "No space left on device")
