"""The manifest of a snapshot: its paths and links stay within the tree, or it is refused."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from remote_agent.agent.spool.code.blobs import BlobStore
from remote_agent.agent.spool.code.manifest import Manifest, ManifestError, ManifestReader
from remote_agent.system.private_files import SpoolError


def packed(**content: Any) -> bytes:
    """A manifest as a controller writes it."""
    return zlib.compress(json.dumps({"version": 1, "files": [], "links": [], **content}).encode())


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    """An empty store."""
    return BlobStore(str(tmp_path / "blobs"))


def put(store: BlobStore, data: bytes) -> str:
    """Store a content. Returns its name."""
    name = hashlib.sha256(data).hexdigest()
    store.put(name, data)
    return name


def part(store: BlobStore, **content: Any) -> str:
    """Store a part of a manifest. Returns its name."""
    return put(store, json.dumps({"version": 2, **content}).encode())


def read(store: BlobStore, root: str) -> Manifest | None:
    """Read a manifest that is here."""
    return ManifestReader(root).read(store)


class TestManifest:
    """The list of a snapshot's files."""

    def test_a_manifest_can_be_read(self, store):
        """Files and links."""
        root = put(store, packed(files=[["a/b", 0o755, 3, "0" * 64]], links=[["a/l", "b"], ["x/y/z", "../../a/b"]]))
        manifest = read(store, root)
        assert manifest == Manifest([("a/b", 0o755, 3, "0" * 64)], [("a/l", "b"), ("x/y/z", "../../a/b")])

    @pytest.mark.parametrize("path", ["/abs", "../out", "a/../../out", "a//b", "", ".", "a/.", "nul\0"])
    def test_a_manifest_with_a_path_that_leads_out_is_refused(self, store, path):
        """As a file and as a link."""
        with pytest.raises(SpoolError, match="names"):
            read(store, put(store, packed(files=[[path, 0o644, 1, "0" * 64]])))
        with pytest.raises(SpoolError, match="names"):
            read(store, put(store, packed(links=[[path, "x"]])))

    @pytest.mark.parametrize("target", ["/etc/passwd", "../x", "a/../../x", "../../x"])
    def test_a_manifest_with_a_link_that_leads_out_is_refused(self, store, target):
        """However it is written."""
        with pytest.raises(SpoolError, match="leads out"):
            read(store, put(store, packed(links=[["link", target]])))

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
    def test_an_invalid_manifest_is_refused(self, store, data):
        """With a typed error."""
        with pytest.raises(SpoolError):
            read(store, put(store, data))

    def test_a_manifest_that_unpacks_to_too_much_is_refused(self, store, monkeypatch):
        """A bomb of a few bytes does not fill the memory."""
        monkeypatch.setattr("remote_agent.agent.spool.code.manifest._MAX_MANIFEST", 1000)
        with pytest.raises(SpoolError, match="over 1000 bytes"):
            read(store, put(store, zlib.compress(b" " * 100_000)))


class TestParts:
    """A manifest in parts."""

    FILE = ("a", 0o644, 1, "0" * 64)

    def test_parts_are_read_as_they_come(self, store):
        """Each one once. What is missing is named, level by level."""
        leaf = json.dumps({"version": 2, "files": [["a", 0o644, 1, "0" * 64]], "links": []}).encode()
        other = json.dumps({"version": 2, "files": [], "links": [["l", "a"]]}).encode()
        names = [hashlib.sha256(data).hexdigest() for data in (leaf, other)]
        root = json.dumps({"version": 2, "parts": names}).encode()
        reader = ManifestReader(hashlib.sha256(root).hexdigest())
        assert reader.read(store) is None
        assert reader.waiting == [hashlib.sha256(root).hexdigest()]
        put(store, root)
        put(store, other)
        assert reader.read(store) is None
        assert reader.waiting == [names[0]]
        put(store, leaf)
        assert reader.read(store) == Manifest([self.FILE], [("l", "a")])

    @pytest.mark.parametrize(
        "content",
        [
            {"version": 3},
            {"version": 1},
            {"parts": 5},
            {"parts": ["../../etc/passwd"]},
            {"parts": [None]},
            {"files": [["../x", 0o644, 1, "0" * 64]]},
            {"files": [["x", 0o644, 1, "../../x"]]},
            {"links": [["x", "/etc"]]},
        ],
    )
    def test_an_invalid_part_is_refused(self, store, content):
        """With a typed error."""
        below = part(store, **content)
        with pytest.raises(ManifestError):
            read(store, part(store, parts=[below]))

    def test_parts_that_repeat_do_not_fill_the_memory(self, store, monkeypatch):
        """Each is small, and names the one below ten times."""
        monkeypatch.setattr("remote_agent.agent.spool.code.manifest._MAX_MANIFEST", 100_000)
        name = part(store, files=[])
        for _ in range(30):
            name = part(store, parts=[name] * 10)
        with pytest.raises(ManifestError, match="over 100000 bytes"):
            read(store, name)

    def test_an_altered_part_is_removed_and_named_again(self, store):
        """It is not read."""
        below = part(store, files=[self.FILE], links=[])
        reader = ManifestReader(part(store, parts=[below]))
        Path(store.path(below)).write_bytes(b"{}")
        with pytest.raises(SpoolError, match="altered"):
            reader.read(store)
        assert reader.read(store) is None
        assert reader.waiting == [below]
        part(store, files=[self.FILE], links=[])
        assert reader.read(store) == Manifest([self.FILE], [])
