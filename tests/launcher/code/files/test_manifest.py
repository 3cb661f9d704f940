"""The manifest of a snapshot, in parts and in one piece."""

from __future__ import annotations

import hashlib
import json
import random
import zlib

import pytest

from launcher.code.files.manifest import SnapshotFile, in_one_piece, in_parts, stored, unstored
from launcher.errors import CodeError
from remote_agent.agent.spool.code.blobs import BlobStore
from remote_agent.agent.spool.code.manifest import ManifestReader

LINKS = (("link", "pkg/module_1.py"), ("pkg/other", "../app.py"))


def project(count: int) -> list[SnapshotFile]:
    """So many files."""
    return [
        SnapshotFile(f"pkg{number % 20}/module_{number}.py", 0o644, number, hashlib.sha256(b"%d" % number).hexdigest())
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 3000])
def test_an_agent_reads_the_parts(tmp_path, count):
    """Every file and every link, once. The order of the files does not matter."""
    files = project(count)
    root, parts = in_parts(files, LINKS)
    store = BlobStore(str(tmp_path / "blobs"))
    for name, data in parts.items():
        store.put(name, data)
    manifest = ManifestReader(root).read(store)
    assert sorted(manifest.files) == sorted(files)
    assert sorted(manifest.links) == sorted(LINKS)
    random.Random(1).shuffle(files)
    assert in_parts(files, LINKS) == (root, parts)


@pytest.mark.parametrize(
    "edit",
    [
        lambda files: files.__setitem__(7, files[7]._replace(sha256="0" * 64)),
        lambda files: files.__setitem__(7, files[7]._replace(mode=0o755)),
        lambda files: files.append(SnapshotFile("new.py", 0o644, 1, "0" * 64)),
        lambda files: files.pop(7),
    ],
)
@pytest.mark.parametrize("count", [2_000, pytest.param(50_000, marks=pytest.mark.slow)])
def test_an_edit_changes_few_parts_however_many_files_there_are(count, edit):
    """One leaf, and the parts above it: a few kilobytes for 2,000 files and for 50,000."""
    files = project(count)
    _, before = in_parts(files, ())
    edit(files)
    _, after = in_parts(files, ())
    new = [data for name, data in after.items() if name not in before]
    assert len(new) <= 5
    assert sum(map(len, new)) < 10_000


def test_names_that_are_not_text_travel():
    """As the journal has them, too."""
    files = [SnapshotFile("na\udcefve.py", 0o644, 1, "0" * 64)]
    root, parts = in_parts(files, ())
    assert json.loads(parts[root])["files"] == [["na\udcefve.py", 0o644, 1, "0" * 64]]
    assert unstored(stored(in_one_piece(files, ()))).files == tuple(files)


def test_what_an_earlier_launcher_stored_stays_whole():
    """Its hosts know the manifest by the hash of those bytes."""
    data = zlib.compress(
        json.dumps({"version": 1, "files": [["a", 0o644, 1, "0" * 64]], "links": [["l", "a"]]}).encode()
    )
    assert unstored(data) == ((SnapshotFile("a", 0o644, 1, "0" * 64),), (("l", "a"),), data)
    assert unstored(stored(in_one_piece(project(3), LINKS))) == (tuple(project(3)), LINKS, None)


def test_what_a_newer_launcher_stored_is_refused():
    """By its version."""
    with pytest.raises(CodeError, match="version 3"):
        unstored(zlib.compress(json.dumps({"version": 3, "files": [], "links": []}).encode()))
