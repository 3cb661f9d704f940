"""Files on a shared disk: whole or not there, and the first one wins, also where the disk reports a failure of what has succeeded."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_agent.slurm.shared_disk.shared_files import FileOperations, SharedFiles, seal, unseal


class Failing(FileOperations):
    """The disk, whose next request fails before or after it was done."""

    def __init__(self) -> None:
        self.before = self.after = False

    def _around(self, do: Callable[[], None]) -> None:
        if self.before:
            raise OSError(errno.EIO, "failed before")
        do()
        if self.after:
            raise FileExistsError(errno.EEXIST, "sent twice")

    def link(self, path: str, other: str) -> None:
        self._around(lambda: super(Failing, self).link(path, other))

    def rename(self, path: str, other: str) -> None:
        self._around(lambda: super(Failing, self).rename(path, other))


def test_content_is_whole_or_not_there(tmp_path: Path):
    """Every file that is cut off, or in which zeros stand for what has not arrived, counts as not there."""
    files = SharedFiles(str(tmp_path), "one")
    whole = seal(b"content")
    assert unseal(whole) == b"content"
    for size in range(len(whole)):
        assert unseal(whole[:size]) is None
        assert unseal(whole[:size] + bytes(len(whole) - size)) is None
    assert files.read("absent") is None
    (tmp_path / "short").write_bytes(whole[:-1])
    assert files.read("short") is None


def test_the_first_offer_wins(tmp_path: Path):
    """A second one, from anybody, changes nothing, and its maker is told so. The same content counts as ours: it may be our own, sent twice."""
    one, other = SharedFiles(str(tmp_path), "one"), SharedFiles(str(tmp_path), "other")
    assert one.offer(b"first", "name")
    assert not other.offer(b"second", "name")
    assert one.offer(b"first", "name")
    assert one.read("name") == b"first"
    assert one.names() == ["name"]
    assert os.listdir(tmp_path) == ["name"]


def test_after_an_error_the_content_decides(tmp_path: Path):
    """A request that was sent twice has failed though it was done. One that was not done is reported, and may be made again."""
    disk = Failing()
    files = SharedFiles(str(tmp_path), "one", disk)
    disk.after = True
    assert files.offer(b"x", "offered")
    files.write(b"x", "written")
    disk.after, disk.before = False, True
    with pytest.raises(OSError, match="failed before"):
        files.offer(b"y", "later")
    with pytest.raises(OSError, match="failed before"):
        files.write(b"y", "written")
    disk.before = False
    assert files.offer(b"y", "later")
    assert files.read("written") == b"x"
    assert sorted(os.listdir(tmp_path)) == ["later", "offered", "written"]


def test_files_and_folders_are_private(tmp_path: Path):
    """Nobody else may read them, whatever the umask is."""
    before = os.umask(0)
    try:
        files = SharedFiles(str(tmp_path), "one")
        files.make_folder("folder")
        files.offer(b"x", "folder", "offered")
        files.write(b"x", "folder", "written")
    finally:
        os.umask(before)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700
    for name in ("offered", "written"):
        assert (tmp_path / "folder" / name).stat().st_mode & 0o777 == 0o600
