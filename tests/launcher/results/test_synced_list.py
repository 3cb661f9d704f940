"""The list of files that came while their job ran."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.results.synced_list import SyncedList
from launcher.results.tree import FolderTree


def reopened(folder: Path) -> SyncedList:
    """The list as another controller reads it."""
    return SyncedList(FolderTree(folder))


def test_another_controller_reads_what_was_listed(tmp_path: Path) -> None:
    """Files with the inodes that they may have, and folders."""
    made = reopened(tmp_path)
    made.add_folder("d")
    made.add("d/log", 1, None)
    made.add("d/log", 2, 1)
    made.close()
    found = reopened(tmp_path)
    assert found.inodes == {"d/log": {1, 2}}
    assert found.folders == {"d"}
    assert len(found) == 2


def test_nothing_is_made_by_reading(tmp_path: Path) -> None:
    """A job without such files has no list."""
    found = reopened(tmp_path / "job")
    assert not found.is_there
    found.remove()
    assert not (tmp_path / "job").exists()


def test_it_goes_with_all_that_it_said(tmp_path: Path) -> None:
    """When all files of the job have come."""
    made = reopened(tmp_path)
    made.add("log", 1, None)
    made.remove()
    assert list((tmp_path / ".launcher").iterdir()) == []
    assert not len(made)


@pytest.mark.parametrize(
    "line", [b'{"path": "../x", "inode": 1}', b'{"path": "x", "inode": true}', b'{"folder": "/"}', b"[", b"[" * 100_000]
)
def test_a_line_that_makes_no_sense_counts_as_none(tmp_path: Path, line: bytes) -> None:
    """The others do."""
    made = reopened(tmp_path)
    made.add("log", 1, None)
    made.close()
    with open(tmp_path / ".launcher" / "synced", "ab") as file:
        file.write(line)
    again = reopened(tmp_path)
    again.add("other", 2, None)
    again.close()
    found = reopened(tmp_path)
    assert found.inodes == {"log": {1}, "other": {2}}
    assert not found.folders
