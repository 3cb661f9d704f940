"""Which files, links and folders of an output directory come back. The rest is reported by name."""

from __future__ import annotations

import os
from typing import Any

from remote_agent.agent.link.output_tree import wanted
from remote_agent.agent.link.result_frames import output_frames
from tests.remote_agent.agent.link.frames import collected, frames, tree


class TestFiles:
    """The output directory."""

    def test_what_cannot_be_sent_is_named(self, tmp_path):
        """Links out, devices, pipes, names that are not text, and our own folder."""
        inside = tmp_path / "out"
        inside.mkdir()
        (tmp_path / "secret").write_text("secret")
        (inside / "fine").write_text("fine")
        (inside / "out-link").symlink_to("../secret")
        (inside / "absolute").symlink_to(tmp_path / "secret")
        (inside / "through").symlink_to("out-link")
        (inside / "no-text").symlink_to(os.fsdecode(b"bad\xff"))
        (inside / "deep" / ".launcher").mkdir(parents=True)
        (inside / "deep" / ".launcher" / "journal.sqlite").write_text("x")
        (inside / "own").symlink_to("deep/.launcher/journal.sqlite")
        os.mkfifo(inside / "pipe")
        (inside / os.fsdecode(b"bad\xff")).write_text("x")
        files, end = collected(inside)
        assert files == {"fine": b"fine"}
        assert tree(inside)[0] == {}
        refused = dict(end["refused"])
        assert refused.pop("deep/.launcher").startswith("a reserved name")
        assert refused == {
            "out-link": "a link out of the output directory",
            "absolute": "a link out of the output directory",
            "through": "a link out of the output directory",
            "own": "a link out of the output directory",
            "no-text": "a link to a name that is not UTF-8",
            "pipe": "not a regular file",
            "bad\\udcff": "its name is not UTF-8",
        }

    def test_links_within_the_folder_stay_links(self, tmp_path):
        """To files, folders and nothing. If a link would lead out elsewhere (it is absolute, or passes through
        another link), the shortest path is sent.
        """
        (tmp_path / "run-1" / "logs").mkdir(parents=True)
        (tmp_path / "run-1" / "logs" / "debug.log").write_text("log")
        (tmp_path / "deep" / "er").mkdir(parents=True)
        for name, text in {
            "latest-run": "run-1",
            "debug.log": "./run-1//logs/debug.log",
            "deep/er/up": "../../run-1",
            "absolute": str(tmp_path / "run-1" / "logs"),
            "by-another": "latest-run/logs/../logs",
            "dangling": "nowhere",
            "self": ".",
            "loop": "loop",
        }.items():
            (tmp_path / name).symlink_to(text)
        links, _ = tree(tmp_path)
        assert links == {
            "latest-run": "run-1",
            "debug.log": "run-1/logs/debug.log",
            "deep/er/up": "../../run-1",
            "absolute": "run-1/logs",
            "by-another": "run-1/logs",
            "dangling": "nowhere",
            "self": ".",
            "loop": "loop",
        }
        assert collected(tmp_path)[1]["refused"] == []

    def test_a_link_to_a_file_that_was_not_chosen_comes_as_the_file(self, tmp_path):
        """A link to a folder that does not come is named. A link to a chosen file stays a link."""
        (tmp_path / "ckpt").mkdir()
        (tmp_path / "ckpt" / "3.pt").write_text("three")
        (tmp_path / "other").mkdir()
        (tmp_path / "last.pt").symlink_to("ckpt/3.pt")
        (tmp_path / "last").symlink_to("other")
        files, end = collected(tmp_path, patterns=["last*"])
        assert files == {"last.pt": b"three"}
        assert end["refused"] == [["last", "a link to other, which is not sent back"]]
        assert tree(tmp_path, patterns=["*.pt"])[0] == {"last.pt": "ckpt/3.pt"}
        assert tree(tmp_path, patterns=["last*", "ckpt/*"])[0] == {"last.pt": "ckpt/3.pt"}

    def test_folders_and_times_come_back(self, tmp_path):
        """Empty folders, too, the deepest first. Times come to the nanosecond, of small and large files, even when
        they are sent again.
        """
        (tmp_path / "empty" / "dir").mkdir(parents=True)
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "small").write_text("x")
        (tmp_path / "large").write_bytes(bytes(700_000))
        times = {
            "a/small": 1_000_000_000_000_000_000,
            "large": 1_234_567_890_123_456_789,
            "empty/dir": 5,
            "empty": 6,
            "a": 7,
        }
        for name, at in times.items():
            os.utime(tmp_path / name, ns=(at, at))
        for _ in range(2):
            made = frames(output_frames("0.1", {}, {}, str(tmp_path), True, {}))
            told = {frame.header["path"]: frame.header["mtime"] for frame in made if frame.header["t"] == "chunk"}
            for frame in made:
                told.update({item[0]: item[3] for item in frame.header.get("items", [])})
            folders = [entry for frame in made for entry in frame.header.get("folders", [])]
            assert told == {name: times[name] for name in ("a/small", "large")}
            assert dict(folders) == {name: times[name] for name in ("empty/dir", "empty", "a")}
            assert [path for path, _ in folders].index("empty/dir") < [path for path, _ in folders].index("empty")
            assert made[-1].header["t"] == "files_end"
            assert {os.stat(tmp_path / name).st_mtime_ns for name in told} == set(told.values())

    def test_an_unreadable_file_is_named(self, tmp_path, monkeypatch):
        """The others come all the same."""
        whole = os.open

        def refuse(path: str, *args: Any, **kwargs: Any) -> int:
            if str(path).endswith("closed"):
                raise PermissionError(13, "Permission denied")
            return whole(path, *args, **kwargs)

        for name, size in (("closed", 1), ("fine", 1), ("large-closed", 600_000)):
            (tmp_path / name).write_bytes(bytes(size))
        monkeypatch.setattr("remote_agent.agent.link.result_frames.os.open", refuse)
        files, end = collected(tmp_path)
        assert set(files) == {"fine"}
        assert end["refused"] == [["closed", "Permission denied"], ["large-closed", "Permission denied"]]

    def test_patterns_choose_files(self, tmp_path):
        """By name and by folder. True means all, False none."""
        for name in ("a.txt", "b.bin", "ckpt/1", "ckpt/deep/2", "other/3"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("x")
        assert set(collected(tmp_path, patterns=["*.txt", "ckpt/"])[0]) == {"a.txt", "ckpt/1", "ckpt/deep/2"}
        assert set(collected(tmp_path, patterns=False)[0]) == set()
        assert wanted("anything", True)
        assert not wanted("anything", [])

    def test_a_pattern_that_matches_nothing_is_reported(self, tmp_path):
        """By its position in the list. Without patterns, or without our own folder, there is nothing to report."""
        (tmp_path / "ckpt").mkdir()
        for name in ("a.json", "ckpt/1"):
            (tmp_path / name).write_text("x")
        patterns = ["*.jsn", "ckpt", "*.json", "*/1", "none/"]
        files, end = collected(tmp_path, patterns=patterns)
        assert set(files) == {"a.json", "ckpt/1"}
        assert end["unmatched"] == [0, 4]
        assert collected(tmp_path / "nowhere", patterns=["*"])[1]["unmatched"] == [0]
        for folder, more in ((tmp_path, True), (tmp_path, False), (None, ["*"]), (tmp_path, ["*"]), (tmp_path, [])):
            assert collected(folder, patterns=more)[1]["unmatched"] == []
