"""Frames of what jobs leave: output files, links, folders, streams and long results."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote_agent.agent.link.outbox import Piece, Slice
from remote_agent.agent.link.result_frames import as_written, output_frames, result_frames, stream_frames, wanted
from remote_agent.shared import wire
from remote_agent.shared.result_parts import NO_PARTS, Part


def frames(source: Iterator[Piece]) -> list[wire.Frame]:
    """All frames of a source."""
    return wire.Decoder().feed(b"".join(map(joined, source)))


def joined(piece: Piece) -> bytes:
    """One frame in one piece."""
    return piece if isinstance(piece, bytes) else b"".join(map(content, piece))


def content(piece: bytes | Slice) -> bytes:
    """What is sent of it."""
    if isinstance(piece, bytes):
        return piece
    with tempfile.TemporaryFile() as file:
        while len(piece):
            piece = piece.behind(piece.send(file.fileno()))
        file.seek(0)
        return file.read()


def collected(folder: Path | None, **more: Any) -> tuple[dict[str, bytes], dict[str, Any]]:
    """(files, end mark) of what output_frames sends."""
    options = {"streams": {}, "sent": {}, "patterns": True, "dropped": {}, **more}
    made = frames(output_frames("0.1", folder=None if folder is None else str(folder), **options))
    files: dict[str, bytes] = {}
    for frame in made:
        if frame.header["t"] == "files":
            start = 0
            for path, _, size, _ in frame.header["items"]:
                files[path] = frame.payload[start : start + size]
                start += size
        elif frame.header["t"] == "chunk":
            if frame.header["offset"] == 0:
                files[frame.header["path"]] = b""
            assert len(files[frame.header["path"]]) == frame.header["offset"]
            files[frame.header["path"]] += frame.payload
    assert made[-1].header["t"] == "files_end"
    return files, made[-1].header


def tree(folder: Path, **more: Any) -> tuple[dict[str, str], dict[str, int]]:
    """(links, folders) of what output_frames sends."""
    options = {"streams": {}, "sent": {}, "patterns": True, "dropped": {}, **more}
    links: dict[str, str] = {}
    folders: dict[str, int] = {}
    for frame in frames(output_frames("0.1", folder=str(folder), **options)):
        if frame.header["t"] == "tree":
            links.update(frame.header.get("links", []))
            folders.update(frame.header.get("folders", []))
    return links, folders


def test_an_output_directory_that_the_job_moved_is_told(tmp_path: Path) -> None:
    """Where there was one: nothing comes back of it, and that is not left unsaid."""
    gone = tmp_path / "gone"
    assert collected(gone, is_made=True)[1]["noted"] == [
        ["the output directory", "is not there any more: the job moved or removed it"]
    ]
    assert not collected(gone)[1]["noted"]
    gone.mkdir()
    assert not collected(gone, is_made=True)[1]["noted"]


class TestFiles:
    """The output directory."""

    def test_small_and_large_files(self, tmp_path):
        """With their modes; in folders; empty ones too."""
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

    def test_what_cannot_be_sent_is_named(self, tmp_path):
        """Links out, devices, pipes, names that are no text, what is ours in an output directory."""
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
        assert refused.pop("deep/.launcher").startswith("a name that is ours")
        assert refused == {
            "out-link": "a link out of the output directory",
            "absolute": "a link out of the output directory",
            "through": "a link out of the output directory",
            "own": "a link out of the output directory",
            "no-text": "a link to a name that is not UTF-8",
            "pipe": "not a regular file",
            "bad\\udcff": "its name is not UTF-8",
        }

    def test_links_within_are_told_as_links(self, tmp_path):
        """To files, folders and nothing; what would lead out elsewhere (absolute, by way of another link) by the shortest way."""
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

    def test_a_link_whose_file_was_not_chosen(self, tmp_path):
        """Comes as the file; one to a folder that does not come is named, one to a chosen file stays a link."""
        (tmp_path / "ckpt").mkdir()
        (tmp_path / "ckpt" / "3.pt").write_text("three")
        (tmp_path / "other").mkdir()
        (tmp_path / "last.pt").symlink_to("ckpt/3.pt")
        (tmp_path / "last").symlink_to("other")
        files, end = collected(tmp_path, patterns=["last*"])
        assert files == {"last.pt": b"three"}
        assert end["refused"] == [["last", "a link to other, which does not come back"]]
        assert tree(tmp_path, patterns=["*.pt"])[0] == {"last.pt": "ckpt/3.pt"}
        assert tree(tmp_path, patterns=["last*", "ckpt/*"])[0] == {"last.pt": "ckpt/3.pt"}

    def test_folders_and_times(self, tmp_path):
        """Empty folders too, the deepest first; times to the nanosecond, of small and large files, also when they are sent again."""
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

    def test_many_links_and_folders_take_several_frames(self, tmp_path):
        """None of them is too long."""
        deep = tmp_path / "/".join(["d" * 200] * 15)
        deep.mkdir(parents=True)
        for number in range(400):
            (deep / f"{number:0200}").mkdir()
            (deep / f"link{number:0200}").symlink_to(f"{number:0200}")
        links, folders = tree(tmp_path)
        assert len(links) == 400
        assert len(folders) == 415

    def test_what_cannot_be_read_is_named(self, tmp_path, monkeypatch):
        """And costs the others nothing."""
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

    @pytest.mark.parametrize("size", [1000, 600_000])
    def test_a_file_that_is_written_to_while_it_is_read(self, tmp_path, monkeypatch, size):
        """Is read again: what arrives is what it was at one moment. The clock of a file system may stand still meanwhile."""
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
    def test_a_file_that_never_keeps_still(self, tmp_path, monkeypatch, size):
        """Arrives, and is named."""
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
        assert "may be a mixture" in why

    def test_a_file_that_changes_its_size_while_it_is_sent(self, tmp_path):
        """Shorter or longer: it is sent as it is then, and the piece that would complete the old one is not."""
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

    def test_what_is_not_ours_to_touch_is_read_all_the_same(self, tmp_path, monkeypatch):
        """A file of somebody else, whose time cannot be set."""
        (tmp_path / "theirs").write_text("x")

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr("remote_agent.agent.link.result_frames.os.utime", refuse)
        assert collected(tmp_path)[0] == {"theirs": b"x"}

    def test_a_folder_that_is_gone(self, tmp_path):
        """Nothing is sent, and nothing breaks."""
        assert collected(tmp_path / "nowhere")[0] == {}
        assert collected(None)[0] == {}

    def test_patterns_choose(self, tmp_path):
        """By name, by folder; True for all, False for none."""
        for name in ("a.txt", "b.bin", "ckpt/1", "ckpt/deep/2", "other/3"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("x")
        assert set(collected(tmp_path, patterns=["*.txt", "ckpt/"])[0]) == {"a.txt", "ckpt/1", "ckpt/deep/2"}
        assert set(collected(tmp_path, patterns=False)[0]) == set()
        assert wanted("anything", True)
        assert not wanted("anything", [])

    def test_a_pattern_that_matches_nothing_is_told(self, tmp_path):
        """By its place in the list; where there are no patterns, or no folder of ours, there is nothing to tell."""
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

    def test_long_names_do_not_make_a_header_too_long(self, tmp_path):
        """Neither of many files in a frame, nor of many refusals: the rest is counted."""
        deep = tmp_path / "/".join(["d" * 200] * 15)
        deep.mkdir(parents=True)
        for number in range(600):
            (deep / f"{number:0200}").write_text("x")
            (deep / f"link{number:0200}").symlink_to("/etc/passwd")
        files, end = collected(tmp_path)
        assert len(files) == 600
        more = end["refused"][-1][0]
        assert len(end["refused"]) - 1 + int(more.split()[0].strip("(")) == 600


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=20),
        st.binary(max_size=100),
        max_size=8,
    )
)
def test_every_regular_file_comes_back_as_it_is(tmp_path_factory, content):
    """Whatever its name."""
    folder = tmp_path_factory.mktemp("files")
    content = {name: data for name, data in content.items() if name not in (".", "..")}
    for name, data in content.items():
        (folder / name).write_bytes(data)
    assert collected(folder)[0] == content


class TestStreams:
    """What a job prints."""

    def test_from_where_it_was_left(self, tmp_path):
        """Each call sends what is new; the position advances."""
        path = tmp_path / "stdout"
        path.write_bytes(b"a" * 300_000)
        sent = {"stdout": 0}
        made = frames(stream_frames("0.1", "stdout", str(path), sent))
        assert [(frame.header["offset"], len(frame.payload)) for frame in made] == [
            (0, wire.CHUNK),
            (wire.CHUNK, 37_856),
        ]
        with path.open("ab") as file:
            file.write(b"new")
        (frame,) = frames(stream_frames("0.1", "stdout", str(path), sent))
        assert (frame.header["offset"], frame.payload) == (300_000, b"new")
        assert frames(stream_frames("0.1", "stdout", str(path), sent)) == []
        assert frames(stream_frames("0.1", "stderr", str(tmp_path / "none"), {"stderr": 0})) == []

    def test_up_to_a_cap(self, tmp_path):
        """Not a byte more; the end says what is missing, in the stream and in the sizes."""
        path = tmp_path / "stdout"
        path.write_bytes(b"a" * 1000)
        source = output_frames("0.1", {"stdout": str(path)}, {"stdout": 0}, None, True, {"stdout": 50}, 100)
        output, mark, end = frames(source)
        assert output.payload == b"a" * 100
        assert mark.header["offset"] == 100
        assert b"stdout was cut here; about 50 bytes" in mark.payload
        assert end.header["sizes"] == {"stdout": 100, "stdout_dropped": 50, "files": 0, "bytes": 0}

    def test_the_stream_that_was_written_first_goes_first(self, tmp_path):
        """As far as two files can tell: by when each was last written to."""
        streams = {name: str(tmp_path / name) for name in ("stdout", "stderr")}
        for name, second in (("stdout", 2), ("stderr", 1)):
            (tmp_path / name).write_bytes(name.encode())
            os.utime(streams[name], (second, second))
        sent = {"stdout": 0, "stderr": 0}
        said = frames(output_frames("0.1", streams, sent, None, True, {}))
        assert [frame.payload for frame in said[:2]] == [b"stderr", b"stdout"]
        os.unlink(streams["stderr"])
        assert [name for name, _ in as_written(streams)] == ["stderr", "stdout"]

    def test_two_that_send_the_same_stream_send_it_once(self, tmp_path):
        """What was shown live is not sent again at the end."""
        path = tmp_path / "stdout"
        path.write_bytes(b"a" * 600_000)
        sent = {"stdout": 0}
        live = stream_frames("0.1", "stdout", str(path), sent)
        first = next(live)
        rest = list(stream_frames("0.1", "stdout", str(path), sent))
        made = wire.Decoder().feed(b"".join([first, *rest, *live]))
        assert sum(len(frame.payload) for frame in made) == 600_000


def parts_of(path, size):
    return NO_PARTS._replace(value=Part(0, size, ""), file=str(path))


def test_a_large_result(tmp_path):
    """In chunks, of as many bytes as it must have; one that is shorter is an error."""
    path = tmp_path / "result"
    path.write_bytes(bytes(600_000) + b"more")
    made = frames(result_frames("0.1", parts_of(path, 600_000)))
    assert sum(len(frame.payload) for frame in made) == 600_000
    with pytest.raises(OSError, match="shorter"):
        list(result_frames("0.1", parts_of(path, 700_000)))
    with pytest.raises(FileNotFoundError):
        list(result_frames("0.1", parts_of(tmp_path / "none", 1)))
