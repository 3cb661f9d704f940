"""The facts about a host, and where our files can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_agent.system import host
from remote_agent.system.private_files import SpoolError


def test_different_names_have_different_folders():
    """Even if they become the same file name."""
    assert host.slug("a/b") != host.slug("a_b")
    assert "/" not in host.slug("../../etc")
    assert not host.slug(".hidden").startswith(".")


def test_folders_are_made_below_the_workdir_and_are_private(tmp_path: Path):
    """Nothing is anywhere else."""
    made = host.folders("r1", "h", str(tmp_path / "work"))
    assert Path(made.spool).is_relative_to(tmp_path / "work")
    assert Path(made.spool).stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_written_is_refused_with_the_next_step(tmp_path: Path):
    """The message names the folder and `workdir`."""
    (tmp_path / "work").touch()
    with pytest.raises(SpoolError, match=rf"{tmp_path}.*'workdir'"):
        host.folders("r1", "h", str(tmp_path / "work"))


def test_the_boot_id_stays_while_the_machine_is_up():
    """It tells processes of before a reboot from later ones."""
    assert host.boot_id() == host.boot_id()
    assert host.boot_id()


@pytest.mark.parametrize("given", ["", "relative/folder"])
def test_a_base_folder_that_is_not_absolute_is_ignored(given, tmp_path, monkeypatch):
    """As in the XDG Base Directory Specification. An agent must find what another one left, wherever it was started."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("XDG_STATE_HOME", given)
    name = "hydra-remote-launcher"
    assert host.roots(None) == (str(tmp_path / ".cache" / name), str(tmp_path / ".local" / "state" / name))
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    assert host.roots(None) == (f"/c/{name}", f"/s/{name}")
