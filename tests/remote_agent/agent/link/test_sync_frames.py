"""What of the files of a running job is new since the last look."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from remote_agent.agent.link import sync_frames
from remote_agent.agent.link.sync_frames import SentFile, sync_pieces
from remote_agent.protocol import wire


class Looks:
    """Looks at a folder, each of which arrives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sent: dict[str, SentFile] = {}

    def look(self, outputs: bool | list[str] = True, only: Sequence[str] = ()) -> list[tuple[str, int, int, bytes]]:
        """Return (path, base, size, bytes) of each file that has something new."""
        found: dict[str, tuple[str, int, int, bytes]] = {}
        for piece in sync_pieces("0.1", str(self._folder), outputs, list(only), dict(self._sent)):
            (frame,) = wire.Decoder().feed(piece.frame)
            header: Any = frame.header
            before = found.get(piece.path, ("", 0, 0, b""))[3]
            assert header["offset"] == header["base"] + len(before)
            found[piece.path] = (piece.path, header["base"], header["size"], before + frame.payload)
            if piece.sent is not None:
                self._sent[piece.path] = piece.sent
        return list(found.values())


@pytest.fixture
def looks(tmp_path: Path) -> Looks:
    """Of the test's folder."""
    return Looks(tmp_path)


def test_a_file_comes_once_and_then_what_is_new(tmp_path: Path, looks: Looks) -> None:
    """In pieces of at most 64 KiB."""
    (tmp_path / "log").write_bytes(b"a" * 200_000)
    assert looks.look() == [("log", 0, 200_000, b"a" * 200_000)]
    assert looks.look() == []
    with open(tmp_path / "log", "ab") as file:
        file.write(b"b" * 100_000)
    assert looks.look() == [("log", 200_000, 300_000, b"b" * 100_000)]
    pieces = list(sync_pieces("0.1", str(tmp_path), True, [], {}))
    assert max(len(piece.frame) for piece in pieces) < (1 << 16) + 400
    assert [piece.sent is not None for piece in pieces] == [False, False, False, False, True]


def test_an_empty_file_comes_too(tmp_path: Path, looks: Looks) -> None:
    """And then its first bytes."""
    (tmp_path / "log").touch()
    assert looks.look() == [("log", 0, 0, b"")]
    (tmp_path / "log").write_text("x")
    assert looks.look() == [("log", 0, 1, b"x")]


@pytest.mark.parametrize("how", ["rewritten", "longer", "truncated", "replaced", "same length"])
def test_a_file_that_has_not_only_grown_comes_as_a_whole(tmp_path: Path, looks: Looks, how: str) -> None:
    """However it was changed."""
    path = tmp_path / "best"
    path.write_bytes(b"one two")
    looks.look()
    content = {"rewritten": b"1", "longer": b"two three four", "truncated": b"one", "replaced": b"one two three"}
    new = content.get(how, b"two one")
    if how == "replaced":
        path.rename(tmp_path / "old")
    path.write_bytes(new)
    if how == "same length":
        os.utime(path, ns=(1, 1))
    assert ("best", 0, len(new), new) in looks.look()


def test_only_what_comes_back_and_is_asked_for_comes(tmp_path: Path, looks: Looks) -> None:
    """Both patterns hold. Links, devices and our own folder do not come."""
    for name in ("a.log", "b.log", "a.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link.log").symlink_to("a.log")
    os.mkfifo(tmp_path / "fifo.log")
    (tmp_path / ".launcher").mkdir()
    (tmp_path / ".launcher" / "x.log").write_text("x")
    assert [one[0] for one in looks.look(["a.*", ".launcher/*"], ["*.log"])] == ["a.log"]


def test_a_large_file_comes_if_it_is_named(tmp_path: Path, looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are not begun. One that was begun grows on."""
    monkeypatch.setattr(sync_frames, "MAX_UNNAMED", 5)
    (tmp_path / "model").write_bytes(b"larger")
    (tmp_path / "log").write_bytes(b"small")
    assert [one[0] for one in looks.look()] == ["log"]
    with open(tmp_path / "log", "ab") as file:
        file.write(b" and more")
    assert looks.look() == [("log", 5, 14, b" and more")]
    assert [one[0] for one in looks.look(only=["model"])] == ["model"]


def test_no_more_files_than_a_cap_are_looked_at(tmp_path: Path, looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others come when the job has ended."""
    monkeypatch.setattr(sync_frames, "MAX_FILES", 3)
    for number in range(5):
        (tmp_path / str(number)).touch()
    assert [one[0] for one in looks.look()] == ["0", "1", "2"]


def test_a_file_that_becomes_shorter_while_it_is_read_is_not_complete(tmp_path: Path) -> None:
    """So it comes anew at the next look."""
    (tmp_path / "log").write_bytes(b"a" * 200_000)
    source = sync_pieces("0.1", str(tmp_path), True, [], {})
    next(source)
    os.truncate(tmp_path / "log", 70_000)
    assert [piece.sent for piece in source] == [None]


def test_a_folder_that_is_not_there_yet_is_no_error(tmp_path: Path) -> None:
    """The job has not made it."""
    assert list(sync_pieces("0.1", str(tmp_path / "none"), True, [], {})) == []
