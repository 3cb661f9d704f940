"""Private files and folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote_agent.system.private_files import (
    SpoolError,
    check_parent,
    make_private_folder,
    open_private,
    told_replaceable,
)


def test_a_folder_is_made_private(tmp_path: Path):
    """And so are its parents."""
    made = Path(make_private_folder(str(tmp_path / "a" / "b")))
    assert made.stat().st_mode & 0o777 == 0o700
    assert make_private_folder(str(made)) == str(made)


@pytest.mark.parametrize(
    ("what", "why"), [("link", "not a private folder"), ("file", "not a private folder"), ("open", "by others")]
)
def test_a_folder_that_is_not_private_is_refused(tmp_path: Path, what: str, why: str):
    """A link, a file, or a folder to which others may write."""
    path = tmp_path / "taken"
    if what == "link":
        (tmp_path / "elsewhere").mkdir()
        path.symlink_to(tmp_path / "elsewhere")
    elif what == "file":
        path.touch()
    else:
        path.mkdir()
        path.chmod(0o777)
    with pytest.raises(SpoolError, match=why):
        make_private_folder(str(path))


def test_a_file_is_private_and_no_link_is_followed(tmp_path: Path):
    """Whatever the umask is."""
    before = os.umask(0)
    try:
        os.close(open_private(str(tmp_path / "file"), os.O_WRONLY | os.O_CREAT))
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(OSError, match="symbolic links"):
        open_private(str(tmp_path / "link"), os.O_RDONLY)


def test_a_parent_that_everybody_may_write_to_is_refused(tmp_path: Path):
    """Anybody could replace its content. The sticky bit prevents that."""
    parent = tmp_path / "parent"
    parent.mkdir()
    parent.chmod(0o777)
    with pytest.raises(SpoolError, match="everybody"):
        check_parent(str(parent / "ours"))
    parent.chmod(0o1777)
    check_parent(str(parent / "ours"))


class TestReplaceable:
    """Folders further up, through which another user could replace ours."""

    def test_one_that_everybody_may_write_to_is_told_once(self, tmp_path: Path) -> None:
        """With its name and its owner, however many of our folders are below it. The sticky bit prevents that."""
        ours = tmp_path / "open" / "x" / "ours"
        ours.mkdir(parents=True)
        assert told_replaceable([str(ours)]) == []
        (tmp_path / "open").chmod(0o777)
        (told,) = told_replaceable([str(ours), str(ours.parent / "other")])
        assert f"everybody can write to {tmp_path / 'open'} (its owner is " in told
        (tmp_path / "open").chmod(0o1777)
        assert told_replaceable([str(ours)]) == []

    def test_a_folder_that_cannot_be_examined_is_not_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is known of it."""

        def stat(path: str) -> os.stat_result:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("remote_agent.system.private_files.os.stat", stat)
        assert told_replaceable(["/a/b"]) == []
