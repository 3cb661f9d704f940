"""Content by hash, and the tree that is made from it. Content and paths are as their names say, or are refused."""

from __future__ import annotations

import errno
import gc
import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote_agent.agent.spool import blobs
from remote_agent.agent.spool.blobs import BlobStore, Manifest, materialise, read_manifest
from remote_agent.protocol.fields import is_sha256
from remote_agent.system.private_files import SpoolError
from tests.requirements import READS_PROC


def sha(data: bytes) -> str:
    """The name of a content."""
    return hashlib.sha256(data).hexdigest()


def packed(**content: Any) -> bytes:
    """A manifest as a controller writes it."""
    return zlib.compress(json.dumps({"version": 1, "files": [], "links": [], **content}).encode())


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


class TestManifest:
    """The list of a snapshot's files."""

    def test_a_manifest_can_be_read(self):
        """Files and links."""
        manifest = read_manifest(
            packed(files=[["a/b", 0o755, 3, "0" * 64]], links=[["a/l", "b"], ["x/y/z", "../../a/b"]])
        )
        assert manifest == Manifest([("a/b", 0o755, 3, "0" * 64)], [("a/l", "b"), ("x/y/z", "../../a/b")])

    @pytest.mark.parametrize("path", ["/abs", "../out", "a/../../out", "a//b", "", ".", "a/.", "nul\0"])
    def test_a_manifest_with_a_path_that_leads_out_is_refused(self, path):
        """As a file and as a link."""
        with pytest.raises(SpoolError, match="names"):
            read_manifest(packed(files=[[path, 0o644, 1, "0" * 64]]))
        with pytest.raises(SpoolError, match="names"):
            read_manifest(packed(links=[[path, "x"]]))

    @pytest.mark.parametrize("target", ["/etc/passwd", "../x", "a/../../x", "../../x"])
    def test_a_manifest_with_a_link_that_leads_out_is_refused(self, target):
        """However it is written."""
        with pytest.raises(SpoolError, match="leads out"):
            read_manifest(packed(links=[["link", target]]))

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"not zlib",
            zlib.compress(b"not json"),
            zlib.compress(b"[]"),
            packed(version=2),
            packed(files=[["a"]]),
            packed(files=5),
            packed(files=[["a", "x", 1, "y"]]),
        ],
    )
    def test_an_invalid_manifest_is_refused(self, data):
        """With a typed error."""
        with pytest.raises(SpoolError):
            read_manifest(data)

    def test_a_manifest_that_unpacks_to_too_much_is_refused(self, monkeypatch):
        """A bomb of a few bytes does not fill the memory."""
        monkeypatch.setattr("remote_agent.agent.spool.blobs._MAX_MANIFEST", 1000)
        with pytest.raises(SpoolError, match="over 1000 bytes"):
            read_manifest(zlib.compress(b" " * 100_000))


class TestTree:
    """The tree of a snapshot."""

    def tree(self, store: BlobStore, files: dict[str, bytes], links: list[tuple[str, str]] | None = None) -> Manifest:
        """A manifest whose contents are in the store."""
        for data in files.values():
            store.put(sha(data), data)
        entries = [
            (path, 0o755 if path.endswith(".sh") else 0o644, len(data), sha(data)) for path, data in files.items()
        ]
        return Manifest(entries, links or [])

    def test_a_tree_is_written(self, store, tmp_path):
        """Files in folders, executables, links; private, whatever the umask is."""
        manifest = self.tree(store, {"a/b/c.py": b"c", "run.sh": b"#!", "empty": b""}, [("a/link", "b/c.py")])
        before = os.umask(0)
        try:
            materialise(store, manifest, str(tmp_path / "code"))
        finally:
            os.umask(before)
        code = tmp_path / "code"
        assert (code / "a" / "b" / "c.py").read_bytes() == b"c"
        assert (code / "a" / "link").read_bytes() == b"c"
        assert (code / "run.sh").stat().st_mode & 0o777 == 0o700
        assert (code / "empty").stat().st_mode & 0o777 == 0o600
        assert (code / "a").stat().st_mode & 0o777 == 0o700

    @READS_PROC
    def test_a_tree_may_have_many_folders(self, store, tmp_path):
        """More than there are open descriptors, in any order."""
        files = {f"d{number % 250}/e{number}/f": b"x" for number in range(600)}
        gc.collect()  # what other tests left open
        before = len(os.listdir("/proc/self/fd"))
        materialise(store, self.tree(store, files), str(tmp_path / "code"))
        assert len(os.listdir("/proc/self/fd")) == before
        assert len([path for path in (tmp_path / "code").rglob("f") if path.is_file()]) == 600

    def test_a_tree_is_complete_or_missing(self, store, tmp_path):
        """If a content is missing, there is no tree. When it has come, the tree is made."""
        manifest = self.tree(store, {"a": b"a", "b": b"b"})
        os.unlink(store.path(sha(b"b")))
        with pytest.raises(SpoolError, match="content of b is missing"):
            materialise(store, manifest, str(tmp_path / "code"))
        assert not (tmp_path / "code").exists()
        store.put(sha(b"b"), b"b")
        materialise(store, manifest, str(tmp_path / "code"))
        assert (tmp_path / "code" / "b").read_bytes() == b"b"
        assert sorted(os.listdir(tmp_path)) == ["blobs", "code"]

    def test_content_that_was_altered_is_not_used(self, store, tmp_path):
        """It is removed from the cache, so that it is requested again."""
        manifest = self.tree(store, {"a": b"right"})
        Path(store.path(sha(b"right"))).write_bytes(b"wrong")
        with pytest.raises(SpoolError, match="altered"):
            materialise(store, manifest, str(tmp_path / "code"))
        assert not store.has(sha(b"right"))

    def test_an_existing_tree_is_not_changed(self, store, tmp_path):
        """A job may have written to it."""
        manifest = self.tree(store, {"a": b"a"})
        materialise(store, manifest, str(tmp_path / "code"))
        (tmp_path / "code" / "a").write_bytes(b"by a job")
        materialise(store, manifest, str(tmp_path / "code"))
        assert (tmp_path / "code" / "a").read_bytes() == b"by a job"


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "a/b", "../x", "/x", "l", "l/x", "a/../../x"]), st.binary(max_size=3)),
        max_size=5,
    ),
    st.lists(
        st.tuples(st.sampled_from(["l", "a", "m"]), st.sampled_from(["a", "..", "../outside", "/tmp", "l/../.."])),
        max_size=3,
    ),
)
def test_no_snapshot_writes_outside_its_tree(tmp_path_factory, files, links):
    """Fuzz: whatever the manifest says, through whatever links, it is refused or stays inside."""
    root = tmp_path_factory.mktemp("tree")
    (root / "outside").mkdir()
    store = BlobStore(str(root / "blobs"))
    entries = []
    for path, data in files:
        store.put(sha(data), data)
        entries.append([path, 0o644, len(data), sha(data)])
    try:
        materialise(
            store, read_manifest(packed(files=entries, links=[list(link) for link in links])), str(root / "code")
        )
    except (SpoolError, OSError):
        assert not (root / "code").exists()
    assert os.listdir(root / "outside") == []
    assert {path.name for path in root.iterdir()} <= {"outside", "blobs", "code", f"code.part.{os.getpid()}"}
    for path in (root / "code").rglob("*"):
        assert path.is_symlink() or path.resolve().is_relative_to(root / "code")


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


def full():
    """What a disk says that takes nothing more."""
    raise OSError(errno.ENOSPC, "No space left on device")
