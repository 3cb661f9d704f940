"""Folders and links of an output directory. Whatever a host sends stays in it."""

from __future__ import annotations

import errno
import os

import pytest

from launcher.results import output_folder
from launcher.results.output_folder import OutputFolder
from launcher.results.tree import FolderTree
from tests.launcher.results.refusals import reason
from tests.requirements import READS_PROC


class TestTree:
    """Folders, links, times."""

    def test_folders_come_with_their_times(self, folder):
        """Empty folders come, too."""
        folder.write("a/small", 0o644, b"x", 10**18)
        folder.write_chunk("a/large", 0o644, 2, 0, b"x", 7)
        folder.write_chunk("a/large", 0o644, 2, 1, b"x", 10**18 + 1)
        folder.add_folder("empty/dir", 5)
        folder.add_folder("empty", 6)
        folder.add_folder("a", 10**9)
        names = ("a/small", "a/large", "empty/dir", "empty", "a")
        assert [(folder.path / name).stat().st_mtime_ns for name in names] == [10**18, 10**18 + 1, 5, 6, 10**9]
        assert folder.refused == []

    @pytest.mark.parametrize("mtime", [1 << 63, -(1 << 63), 1 << 200])
    def test_a_time_that_no_disk_can_store_is_left_out(self, folder, mtime):
        """The folder is made without it."""
        folder.write("a", 0o644, b"x", mtime)
        folder.add_folder("b", mtime)
        assert folder.refused == []
        assert sorted(os.listdir(folder.path)) == ["a", "b"]

    def test_links_within_the_folder_are_made(self, folder):
        """To a file, to a folder, up and down again, to nothing, to another link."""
        folder.write("wandb/run-1/log", 0o644, b"log")
        for path, text in {
            "wandb/latest-run": "run-1",
            "log": "wandb/run-1/log",
            "wandb/run-1/up": "../run-1/log",
            "through": "wandb/latest-run/log",
            "dangling": "nowhere/at/all",
            "here": ".",
        }.items():
            folder.add_link(path, text)
            assert os.readlink(folder.path / path) == text
        assert folder.refused == []
        assert (folder.path / "through").read_bytes() == b"log"
        assert (folder.path / "wandb" / "run-1" / "up").read_bytes() == b"log"

    @pytest.mark.parametrize(
        "text",
        [
            *(
                "/etc/passwd",
                "..",
                "../x",
                "a/../../x",
                "a/..",
                "d/../../..",
                "",
                "x\0",
                "//x",
                "../../../x",
                "./../x",
                "\ud800",
            ),
            *(".launcher/journal.sqlite", "d/.Launcher", "x" * 5000, "/".join("d" * 65)),
        ],
    )
    def test_links_that_lead_out_are_refused(self, folder, text):
        """Absolute links, and links up too far, up again after a name, or into our own folder. Each is refused by name."""
        folder.write("d/fine", 0o644, b"x")
        folder.add_link("link", text)
        assert [path for path, _ in folder.refused] == ["link"]
        assert os.listdir(folder.path) == ["d"]

    def test_no_link_is_made_through_a_link_that_leads_out(self, folder, tmp_path):
        """A host cannot make such a link, and one that somebody else has made is not used."""
        (tmp_path / "secret").write_text("secret")
        folder.write("p/q/fine", 0o644, b"x")
        (folder.path / "theirs").symlink_to(tmp_path)
        folder.add_link("p/x", "../p")
        folder.add_link("p/q/up", "../x/../..")
        folder.add_link("read", "theirs/secret")
        folder.add_link("again", "p/x/q/../../..")
        folder.add_link("q", "p/q")
        (folder.path / "p" / "q" / "out").symlink_to(tmp_path)
        folder.add_link("deep", "q/out/secret")
        folder.add_link("straight", "p/q/out/secret")
        assert [path for path, _ in folder.refused] == ["p/q/up", "read", "again", "deep", "straight"]

    def test_nothing_is_written_through_a_link_of_the_host(self, folder, tmp_path):
        """Neither a file, nor a folder, nor another link, in whatever order they come."""
        outside = tmp_path / "run"
        folder.write("b/kept", 0o644, b"kept")
        folder.add_link("a", "b")
        folder.write("a/kept", 0o644, b"written through it")
        folder.write_chunk("a/kept", 0o644, 4, 0, b"long")
        folder.add_folder("a/new", 1)
        folder.add_link("a/link", "kept")
        folder.add_folder("a", 1)
        assert {path for path, _ in folder.refused} == {"a/kept", "a/new", "a/link", "a"}
        folder.add_link("f", "b/kept")
        folder.write("f", 0o644, b"instead of the link")
        assert (folder.path / "b" / "kept").read_bytes() == b"kept"
        assert not (folder.path / "f").is_symlink()
        assert os.listdir(folder.path / "b") == ["kept"]
        folder.add_link("b", "a")
        assert "a folder of that name" in reason(folder, "b")
        assert os.listdir(outside) == ["0"]

    def test_an_endless_chain_of_links_is_refused(self, folder):
        """It is followed only so far."""
        folder.write("x", 0o644, b"x")
        for number in range(60):
            folder.add_link(f"l{number}", f"l{number - 1}" if number else "x")
        assert [why for _, why in folder.refused] == ["a link that goes through too many other links"]
        folder.add_link("loop", "loop")
        folder.add_link("loop", "loop/x")
        assert os.readlink(folder.path / "loop") == "loop"

    def test_links_and_folders_count_like_files(self, tmp_path):
        """A host cannot make more of them than of files."""
        folder = OutputFolder(tmp_path / "o", max_files=3)
        for number in range(5):
            folder.add_link(f"l{number}", "x")
            folder.add_folder(f"f{number}")
        assert len(os.listdir(folder.path)) <= 6
        assert len(folder.refused) >= 4

    def test_too_few_descriptors_are_not_the_links_fault(self, folder, monkeypatch):
        """A link that could not be checked does not count as harmless."""
        folder.write("d/x", 0o644, b"x")

        def none_left(*args, **kwargs):
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(output_folder.os, "readlink", none_left)
        with pytest.raises(OSError, match="Too many open files"):
            folder.add_link("l", "d/x")
        assert os.listdir(folder.path) == ["d"]

    @READS_PROC
    def test_one_that_nobody_has_any_more_has_nothing_open(self, tmp_path):
        """Also if nobody has closed it."""
        before = len(os.listdir("/proc/self/fd"))
        tree = FolderTree(tmp_path / "o")
        tree.folder("a/b")
        assert len(os.listdir("/proc/self/fd")) == before + 3
        del tree
        assert len(os.listdir("/proc/self/fd")) == before

    @READS_PROC
    def test_checking_links_leaks_no_descriptor(self, folder):
        """This holds however deep they lead."""
        folder.write("/".join("abcdefgh") + "/x", 0o644, b"x")
        folder.add_link("first", "a/b/c/d/e/f/g/h/x")
        before = len(os.listdir("/proc/self/fd"))
        for number in range(20):
            folder.add_link(f"l{number}", "a/b/c/d/e/f/g/h/x")
        assert len(os.listdir("/proc/self/fd")) == before
