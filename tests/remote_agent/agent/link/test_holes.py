"""A file is sent without its holes, and never without anything else."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.results.output_folder import OutputFolder
from remote_agent.agent.link import holes
from remote_agent.agent.link.holes import LEAST, has_hole, ranges
from remote_agent.agent.link.result_frames import output_frames
from remote_agent.agent.link.sync_frames import sync_pieces
from remote_agent.protocol import wire
from remote_agent.protocol.specs.held import HeldFile
from tests.examples import examples
from tests.remote_agent.agent.link.frames import frames

GIB = 1 << 30


def sparse(path: Path, size: int, written: dict[int, bytes]) -> Path:
    """Make a file of this size that has only some bytes."""
    with path.open("wb") as file:
        for offset, data in written.items():
            file.seek(offset)
            file.write(data)
        file.truncate(size)
    return path


def sent(folder: Path, **more: Any) -> list[wire.Frame]:
    """What is sent of a folder to a controller that understands holes."""
    return frames(output_frames("0.1", {}, {}, str(folder), True, {}, **{"skips_holes": True, **more}))


def received(folder: Path, told: list[wire.Frame]) -> OutputFolder:
    """An output directory that has got these frames."""
    output = OutputFolder(folder)
    for frame in told:
        head = frame.header
        if head["t"] == "chunk":
            output.write_chunk(
                head["path"], head["mode"], head["size"], head["offset"], frame.payload, head["mtime"], head["hole"]
            )
    output.close()
    return output


@pytest.mark.parametrize("at", [0, 4096, GIB, 2 * GIB - 4096], ids=["first", "early", "middle", "last"])
def test_a_sparse_file_comes_sparse(tmp_path: Path, at: int) -> None:
    """Two gigabytes with four kilobytes of content cost that much on the way and here."""
    (tmp_path / "host").mkdir()
    path = sparse(tmp_path / "host" / "data.mdb", 2 * GIB, {at: b"x" * 4096})
    told = sent(tmp_path / "host")
    assert sum(len(frame.payload) for frame in told) < 4 * LEAST
    assert received(tmp_path / "here", told).refused == []
    copy = tmp_path / "here" / "data.mdb"
    assert copy.stat().st_size == 2 * GIB
    assert copy.stat().st_blocks * 512 < 4 * LEAST
    assert copy.stat().st_mtime_ns == path.stat().st_mtime_ns
    with copy.open("rb") as file:
        file.seek(at)
        assert file.read(4097).rstrip(b"\0") == b"x" * 4096


def test_a_file_of_nothing_but_a_hole(tmp_path: Path) -> None:
    """Its size comes."""
    (tmp_path / "host").mkdir()
    sparse(tmp_path / "host" / "empty.img", GIB, {})
    received(tmp_path / "here", sent(tmp_path / "host"))
    assert (tmp_path / "here" / "empty.img").stat().st_size == GIB
    assert (tmp_path / "here" / "empty.img").stat().st_blocks * 512 < LEAST


def test_an_earlier_controller_gets_all_bytes(tmp_path: Path) -> None:
    """It would refuse a chunk that does not follow the one before."""
    sparse(tmp_path / "file", 1 << 20, {1 << 19: b"x"})
    told = [frame for frame in sent(tmp_path, skips_holes=False) if frame.header["t"] == "chunk"]
    assert b"".join(frame.payload for frame in told) == (tmp_path / "file").read_bytes()
    assert {frame.header["hole"] for frame in told} == {0}


def test_a_dense_file_has_no_more_frames(tmp_path: Path) -> None:
    """Nor more bytes."""
    (tmp_path / "file").write_bytes(os.urandom(3 * wire.CHUNK + 1))
    assert len(sent(tmp_path)) == len(sent(tmp_path, skips_holes=False)) == 5


@pytest.mark.parametrize("error", [errno.EINVAL, None], ids=["file system", "system"])
def test_where_holes_are_not_known_all_bytes_are_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int | None
) -> None:
    """A file system or a system that does not know them."""
    path = sparse(tmp_path / "file", 1 << 20, {})

    def seek(*args: Any) -> int:
        raise OSError(error, "Invalid argument")

    if error is None:
        monkeypatch.setattr(holes, "_DATA", None)
        monkeypatch.setattr(holes, "_HOLE", None)
    else:
        monkeypatch.setattr("remote_agent.agent.link.holes.os.lseek", seek)
    with path.open("rb") as file:
        assert not has_hole(file.fileno(), 1 << 20)
        assert [one[:2] for one in ranges(file.fileno(), 1 << 20, True)] == [(0, at * wire.CHUNK) for at in range(4)]


def test_a_file_with_holes_is_not_sent_as_a_rest(tmp_path: Path) -> None:
    """The rest of a log that was made longer by a gigabyte would be a gigabyte."""
    sparse(tmp_path / "file", GIB, {0: b"x" * 1000})
    held = HeldFile("file", 1000, "0" * 64, is_executable=False)
    told = sent(tmp_path, held={"file": held})
    assert {frame.header["t"] for frame in told} == {"chunk", "files_end", "tree"} - {"tree"}


def test_a_file_with_large_holes_does_not_come_early(tmp_path: Path) -> None:
    """Not even if a pattern names it. It comes at the end."""
    sparse(tmp_path / "file", GIB, {0: b"x" * 1000})
    (tmp_path / "log").write_text("x")
    assert [piece.path for piece in sync_pieces("0.1", str(tmp_path), True, ["*"], {})] == ["log"]


@settings(
    max_examples=examples(30),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.dictionaries(st.integers(0, 300), st.integers(1, 5000), max_size=12),
    st.integers(LEAST + 1, 310 * 4096),
)
def test_any_file_comes_as_it_is(tmp_path_factory: pytest.TempPathFactory, written: dict[int, int], size: int) -> None:
    """Wherever it has holes. What is sent follows what was sent before, and nothing of a hole is longer than it is there."""
    folder = tmp_path_factory.mktemp("holes")
    (folder / "host").mkdir()
    path = sparse(folder / "host" / "file", size, {at * 4096: b"x" * length for at, length in written.items()})
    told = sent(folder / "host")
    assert received(folder / "here", told).refused == []
    assert (folder / "here" / "file").read_bytes() == path.read_bytes()
    done = 0
    for head, data in [(one.header, one.payload) for one in told if one.header["t"] == "chunk"]:
        assert head["offset"] - head["hole"] == done
        assert len(data) <= wire.CHUNK
        assert not head["hole"] or head["hole"] >= LEAST
        done = head["offset"] + len(data)
    assert done == size
