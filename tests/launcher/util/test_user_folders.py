"""Folders of the user, as the XDG Base Directory Specification says."""

from pathlib import Path

import pytest

from launcher.bootstrap.bundle import build_bundle
from launcher.runs.index import index_folder
from launcher.util.user_folders import cache_folder, make_user_folder, state_folder, write_user_file


def test_they_are_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of the project's name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert cache_folder() == tmp_path / "cache" / "hydra-remote-launcher"
    assert state_folder() == tmp_path / "state" / "hydra-remote-launcher"


@pytest.mark.parametrize("given", ["", "relative/folder"])
def test_a_path_that_is_not_absolute_is_ignored(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything of ours then lies in the home folder, wherever the command was started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("XDG_STATE_HOME", given)
    assert cache_folder() == tmp_path / "home" / ".cache" / "hydra-remote-launcher"
    assert index_folder() == tmp_path / "home" / ".local" / "state" / "hydra-remote-launcher" / "index"
    build_bundle()
    assert not (tmp_path / "relative").exists()
    assert list((cache_folder() / "bundles").glob("*.zip"))


def test_every_folder_on_the_way_is_the_users_alone(tmp_path: Path) -> None:
    """Whatever the umask."""
    make_user_folder(tmp_path / "a" / "b")
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o700, 0o700]


class TestWriteUserFile:
    """A file is either complete or as it was before."""

    def test_it_is_the_users_alone(self, tmp_path: Path) -> None:
        """Its folder, too."""
        write_user_file(tmp_path / "a" / "file", b"data")
        assert (tmp_path / "a" / "file").read_bytes() == b"data"
        assert (tmp_path / "a" / "file").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700

    def test_it_replaces_what_was_there(self, tmp_path: Path) -> None:
        """Nothing else is left."""
        write_user_file(tmp_path / "file", b"before")
        write_user_file(tmp_path / "file", b"now")
        assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("file", b"now")]

    def test_what_cannot_be_written_leaves_nothing(self, tmp_path: Path) -> None:
        """A folder has the name, so the new file cannot take its place."""
        (tmp_path / "file").mkdir()
        with pytest.raises(OSError, match="directory"):
            write_user_file(tmp_path / "file", b"data")
        assert [one.name for one in tmp_path.iterdir()] == ["file"]
