"""Frames of files show each file as it was at one moment, even if it changes meanwhile."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote_agent.agent.link.result_frames import output_frames
from remote_agent.protocol.specs.held import HeldFile
from tests.examples import examples
from tests.remote_agent.agent.link.frames import collected, frames


class TestFiles:
    """The output directory."""

    def test_small_and_large_files(self, tmp_path):
        """With their modes, in folders; empty ones, too."""
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "small").write_bytes(b"1")
        (tmp_path / "empty").touch()
        (tmp_path / "large").write_bytes(os.urandom(700_000))
        (tmp_path / "run.sh").write_text("#!")
        (tmp_path / "run.sh").chmod(0o755)
        files, end = collected(tmp_path)
        assert files == {
            "a/small": b"1",
            "empty": b"",
            "large": (tmp_path / "large").read_bytes(),
            "run.sh": b"#!",
        }
        assert end["sizes"] == {"files": 4, "bytes": 700_003}
        assert end["refused"] == []

    @pytest.mark.parametrize("size", [1000, 600_000])
    def test_a_file_that_changes_while_it_is_read_is_read_again(self, tmp_path, monkeypatch, size):
        """So the copy shows one moment, even if the file system's clock stands still meanwhile."""
        path = tmp_path / "changes"
        path.write_bytes(b"x" * size)
        at = path.stat().st_mtime_ns
        whole, left = os.pread, [2]

        def read(fd: int, count: int, offset: int) -> bytes:
            data = whole(fd, count, offset)
            if left[0] and offset == 0:
                left[0] -= 1
                path.write_bytes(bytes([48 + left[0]]) * size)
                # As if within the same tick as when the job wrote it.
                os.utime(path, ns=(at, at))
            return data

        monkeypatch.setattr("remote_agent.agent.link.result_frames.os.pread", read)
        files, end = collected(tmp_path)
        assert files == {"changes": b"0" * size}
        assert end["refused"] == []
        assert end["noted"] == []

    @pytest.mark.parametrize("size", [1000, 600_000])
    def test_a_file_that_always_changes_is_sent_and_reported(self, tmp_path, monkeypatch, size):
        """It arrives, and the end mark names it."""
        path = tmp_path / "changes"
        path.write_bytes(b"x" * size)
        whole = os.pread

        def read(fd: int, count: int, offset: int) -> bytes:
            with path.open("r+b") as file:
                file.write(b"y")
            return whole(fd, count, offset)

        monkeypatch.setattr("remote_agent.agent.link.result_frames.os.pread", read)
        files, end = collected(tmp_path)
        assert len(files["changes"]) == size
        ((name, why),) = end["noted"]
        assert name == "changes"
        assert "may be inconsistent" in why

    def test_a_file_that_changes_its_size_while_it_is_sent(self, tmp_path):
        """Shorter or longer, its new content is sent. The piece that would complete the old content is not sent."""
        for change in (b"short", b"y" * 700_000, b""):
            (tmp_path / "changes").write_bytes(b"x" * 600_000)
            source = output_frames("0.1", {}, {}, str(tmp_path), True, {})
            made = [next(source)]
            (tmp_path / "changes").write_bytes(change)
            made += list(source)
            told = frames(iter(made))
            small = [item for frame in told if frame.header["t"] == "files" for item in frame.header["items"]]
            last = [frame.header for frame in told if frame.header["t"] == "chunk"][-1]
            if len(change) <= 1 << 16:
                assert [item[:3:2] for item in small] == [["changes", len(change)]]
                assert last["offset"] == 0
            else:
                assert last["size"] == len(change)
            assert told[-1].header["refused"] == []

    def test_a_file_whose_time_cannot_be_set_is_read_all_the_same(self, tmp_path, monkeypatch):
        """For example, another user's file."""
        (tmp_path / "theirs").write_text("x")

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr("remote_agent.agent.link.result_frames.os.utime", refuse)
        assert collected(tmp_path)[0] == {"theirs": b"x"}


@settings(
    max_examples=examples(30),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=20),
        st.binary(max_size=100),
        max_size=8,
    )
)
def test_every_regular_file_comes_back_unchanged(tmp_path_factory, content):
    """Whatever its name is, but for that of the folder of our own."""
    folder = tmp_path_factory.mktemp("files")
    content = {name: data for name, data in content.items() if name.lower() not in (".", "..", ".launcher")}
    for name, data in content.items():
        (folder / name).write_bytes(data)
    assert collected(folder)[0] == content


class TestRest:
    """Files of which the controller holds the first bytes."""

    @staticmethod
    def sent(folder: Path, **changed: Any) -> list[tuple[str, bytes]]:
        """What is sent if the controller holds the first kilobyte of a file."""
        data = (folder / "file").read_bytes()[:1000]
        known = HeldFile("file", len(data), hashlib.sha256(data).hexdigest(), is_executable=False)._replace(**changed)
        source = output_frames("0.1", {}, {}, str(folder), True, {}, held={"file": known})
        return [
            (one.header["t"], one.payload) for one in frames(source) if one.header["t"] in ("rest", "files", "chunk")
        ]

    @pytest.mark.parametrize("size", [1000, 1001, 700_000])
    def test_only_the_rest_is_sent(self, tmp_path: Path, size: int) -> None:
        """One empty part, if there is none, so that the file is known to be complete. Its time is as before."""
        data = os.urandom(size)
        (tmp_path / "file").write_bytes(data)
        at = (tmp_path / "file").stat().st_mtime_ns
        found = self.sent(tmp_path)
        assert {name for name, _ in found} == {"rest"}
        assert b"".join(part for _, part in found) == data[1000:]
        assert (tmp_path / "file").stat().st_mtime_ns == at

    @pytest.mark.parametrize(
        "changed", [{"sha256": "0" * 64}, {"size": 999}, {"size": 3000}, {"is_executable": True}], ids=str
    )
    def test_another_file_is_sent_as_a_whole(self, tmp_path: Path, changed: dict[str, Any]) -> None:
        """Other bytes, a longer one, or one that may be run."""
        (tmp_path / "file").write_bytes(os.urandom(2000))
        assert self.sent(tmp_path, **changed) == [("files", (tmp_path / "file").read_bytes())]

    def test_a_file_that_changes_meanwhile_is_sent_as_a_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also if only bytes change that the controller holds: the last part of the rest is not sent."""
        path = tmp_path / "file"
        path.write_bytes(b"x" * 2000)
        digest, left = hashlib.sha256(b"x" * 1000).hexdigest(), [1]
        whole = os.pread

        def read(fd: int, count: int, offset: int) -> bytes:
            data = whole(fd, count, offset)
            if offset == 1000 and left:
                left.pop()
                with open(path, "r+b") as file:
                    file.write(b"new")
            return data

        monkeypatch.setattr("remote_agent.agent.link.file_frames.os.pread", read)
        assert self.sent(tmp_path, sha256=digest) == [("files", b"new" + b"x" * 1997)]

    def test_a_long_comparison_pauses(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """So the agent does other things meanwhile."""
        monkeypatch.setattr("remote_agent.agent.link.file_frames._COMPARED", 100)
        (tmp_path / "file").write_bytes(b"x" * 1000)
        known = HeldFile("file", 1000, hashlib.sha256(b"x" * 1000).hexdigest(), is_executable=False)
        made = list(output_frames("0.1", {}, {}, str(tmp_path), True, {}, held={"file": known}))
        assert made.count(b"") == 9
