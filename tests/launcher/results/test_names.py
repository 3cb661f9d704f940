"""File names that a host may not use."""

from __future__ import annotations

import os

import pytest

from tests.launcher.results.refusals import reason


class TestRefusing:
    """A refused file harms neither the job nor its other files."""

    @pytest.mark.parametrize(
        "path",
        [
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a/..",
            "./a",
            "a//b",
            "a/",
            "",
            ".",
            "..",
            "nul\0",
        ],
    )
    def test_a_path_that_leads_out_is_refused(self, folder, path):
        """Absolute paths, and paths with dots, empty parts or a NUL."""
        folder.write(path, 0o644, b"x")
        folder.write_chunk(path, 0o644, 1, 0, b"x")
        folder.write("fine", 0o644, b"x")
        assert "leads out" in reason(folder, path)
        assert sorted(os.listdir(folder.path)) == ["fine"]
        assert os.listdir(folder.path.parent.parent) == ["run"]

    @pytest.mark.parametrize(
        "path",
        [
            *(".launcher/journal.sqlite", ".Launcher/x", ".launcher", "a/.launcher/journal.sqlite", "a/b/.LAUNCHER"),
            *(".laun\u200bcher/x", "\ufeff.launcher/x", "a/.launcher\u2060"),
        ],
    )
    def test_the_name_of_our_own_folder_is_refused(self, folder, path):
        """It has the journal of a run and the streams, and a run may be in a job's folder. Some disks read other
        names as this one.
        """
        folder.write_stream("stdout", 0, b"mine")
        folder.write(path, 0o644, b"x")
        folder.add_folder(path, 1)
        folder.add_link(path, "x")
        assert [why for _, why in folder.refused] == ["the name .launcher is reserved for the launcher"] * 3
        assert os.listdir(folder.path / ".launcher") == ["stdout"]
        assert os.listdir(folder.path) == [".launcher"]

    @pytest.mark.parametrize("path", ["x" * 256, "/".join(["d"] * 65), "é" * 128, "\ud800", "a/\udc80b"])
    def test_a_name_that_no_disk_accepts_is_refused(self, folder, path):
        """Names that are too long in bytes, too deep, or not text."""
        folder.write(path, 0o644, b"x")
        assert len(folder.refused) == 1
        assert not folder.path.exists() or os.listdir(folder.path) == []
