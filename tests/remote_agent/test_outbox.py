"""What an agent sends: small things first, long ones in turn, nothing that cannot be read, nothing over a cap."""

from __future__ import annotations

import errno
import itertools
import os
import select
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote_agent import wire
from remote_agent.left_files import as_written, output_frames, outputs_root, result_frames, stream_frames, wanted
from remote_agent.outbox import OpenFile, Outbox, Piece, Slice


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
            for path, _, size in frame.header["items"]:
                files[path] = frame.payload[start : start + size]
                start += size
        elif frame.header["t"] == "chunk":
            assert len(files.setdefault(frame.header["path"], b"")) == frame.header["offset"]
            files[frame.header["path"]] += frame.payload
    assert made[-1].header["t"] == "files_end"
    return files, made[-1].header


class TestOutbox:
    """Bytes on their way to a descriptor."""

    def drain(self, outbox: Outbox) -> bytes:
        """Everything that it writes, to a reader that takes little at a time."""
        ours, theirs = os.pipe()
        os.set_blocking(theirs, False)
        out = bytearray()
        try:
            while outbox:
                outbox.write_to(theirs)
                while select.select([ours], [], [], 0)[0]:
                    out += os.read(ours, 1000)
        finally:
            os.close(ours)
            os.close(theirs)
        return bytes(out)

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.binary(min_size=1, max_size=3000), max_size=20),
        st.lists(
            st.lists(
                st.binary(min_size=1, max_size=90_000)
                | st.tuples(st.binary(min_size=1, max_size=50), st.binary(min_size=1, max_size=90_000)),
                max_size=5,
            ),
            max_size=8,
        ),
    )
    def test_nothing_is_lost_or_cut(self, small, sources):
        """However much there is, and however little the reader takes."""
        outbox = Outbox()
        for piece in small:
            outbox.put(piece)
        for source in sources:
            outbox.add_source(iter(source))
        out = self.drain(outbox)
        assert out.startswith(b"".join(small))
        assert len(out) == sum(map(len, small)) + sum(len(joined(piece)) for source in sources for piece in source)
        assert all(joined(piece) in out for source in sources for piece in source)

    def test_a_file_goes_from_the_kernel_to_the_kernel(self, tmp_path):
        """In order with the rest, however little the reader takes; it is open until the last of it was written."""
        data = bytes(range(256)) * 4000
        (tmp_path / "file").write_bytes(data)
        file = OpenFile(str(tmp_path / "file"))
        outbox = Outbox()
        outbox.add_source(iter([(b"head", Slice(file, 0, 500_000)), (b"more", Slice(file, 500_000, 524_000)), b"end"]))
        fd = file.fd
        del file
        outbox.fill()
        os.fstat(fd)
        assert self.drain(outbox) == b"head" + data[:500_000] + b"more" + data[500_000:] + b"end"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)

    @pytest.mark.parametrize("how", ["shorter", "unreadable", "not by the kernel"])
    def test_a_file_that_cannot_be_sent_so(self, tmp_path, monkeypatch, how):
        """It is read; where that cannot be, zeros are sent for what was announced, and the digest gives them away."""
        (tmp_path / "file").write_bytes(b"x" * 400_000)
        file = OpenFile(str(tmp_path / "file"))
        outbox = Outbox()
        outbox.add_source(iter([(b"head", Slice(file, 0, 400_000)), b"end"]))
        expected = {
            "shorter": b"x" * 10 + bytes(399_990),
            "unreadable": bytes(400_000),
            "not by the kernel": b"x" * 400_000,
        }[how]

        def refuse(*arguments):
            raise OSError(errno.EINVAL, "Invalid argument")

        if how == "shorter":
            os.truncate(tmp_path / "file", 10)
        else:
            monkeypatch.setattr("remote_agent.outbox.os.sendfile", refuse)
        if how == "unreadable":
            monkeypatch.setattr("remote_agent.outbox.os.pread", refuse)
        assert self.drain(outbox) == b"head" + expected + b"end"

    def test_a_reader_that_is_gone_ends_it(self, tmp_path):
        """As with any other bytes."""
        (tmp_path / "file").write_bytes(b"x" * 400_000)
        outbox = Outbox()
        outbox.add_source(iter([(b"head", Slice(OpenFile(str(tmp_path / "file")), 0, 400_000))]))
        ours, theirs = os.pipe()
        os.close(ours)
        with pytest.raises(BrokenPipeError):
            outbox.write_to(theirs)
        os.close(theirs)

    def test_small_things_go_before_what_sources_still_have(self):
        """A pong does not wait for a gigabyte."""
        outbox = Outbox()
        outbox.add_source(iter([b"x" * 300_000] * 10))
        ours, theirs = os.pipe()
        os.set_blocking(theirs, False)
        outbox.write_to(theirs)
        outbox.put(b"pong")
        os.close(theirs)
        out = os.read(ours, 1 << 20) + self.drain(outbox)
        os.close(ours)
        assert out.index(b"pong") < 1 << 20

    def test_few_sources_are_open_at_once_and_none_before_its_turn(self):
        """Ten thousand results that wait cost no descriptor; those that are read take turns."""
        opened: list[int] = []

        def source(number: int) -> Iterator[bytes]:
            opened.append(number)
            for _ in range(3):
                yield b"%05d" % number * 40_000

        outbox = Outbox()
        for number in range(10_000):
            outbox.add_source(source(number))
        outbox.fill()
        assert opened == [0, 1, 2]
        assert outbox

    def test_a_reader_that_takes_nothing_costs_a_few_chunks(self):
        """More is not read from the sources."""
        taken = itertools.count()
        outbox = Outbox()
        outbox.add_source(b"x" * wire.CHUNK for _ in taken)
        _, theirs = pipe = os.pipe()
        os.set_blocking(theirs, False)
        for _ in range(100):
            outbox.write_to(theirs)
        for fd in pipe:
            os.close(fd)
        assert next(taken) < 6

    def test_a_reader_that_is_gone_is_an_error(self):
        """For the link, which ends then."""
        ours, theirs = os.pipe()
        os.close(ours)
        outbox = Outbox()
        outbox.put(b"x")
        with pytest.raises(BrokenPipeError):
            outbox.write_to(theirs)
        os.close(theirs)


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
        """Links out or to nothing, devices, pipes, names that are no text; links within are sent as what they name."""
        inside = tmp_path / "out"
        inside.mkdir()
        (tmp_path / "secret").write_text("secret")
        (inside / "fine").write_text("fine")
        (inside / "out-link").symlink_to("../secret")
        (inside / "absolute").symlink_to(tmp_path / "secret")
        (inside / "dangling").symlink_to("nowhere")
        (inside / "folder").mkdir()
        (inside / "to-folder").symlink_to("folder")
        (inside / "same").symlink_to("fine")
        os.mkfifo(inside / "pipe")
        (inside / os.fsdecode(b"bad\xff")).write_text("x")
        files, end = collected(inside)
        assert files == {"fine": b"fine", "same": b"fine"}
        assert dict(end["refused"]) == {
            "out-link": "a link out of the output directory, or to nothing",
            "absolute": "a link out of the output directory, or to nothing",
            "dangling": "a link out of the output directory, or to nothing",
            "to-folder": "a link to a folder",
            "pipe": "not a regular file",
            "bad\\udcff": "its name is not UTF-8",
        }

    def test_what_cannot_be_read_is_named(self, tmp_path, monkeypatch):
        """And costs the others nothing."""
        whole = os.open

        def refuse(path: str, *args: Any, **kwargs: Any) -> int:
            if str(path).endswith("closed"):
                raise PermissionError(13, "Permission denied")
            return whole(path, *args, **kwargs)

        for name, size in (("closed", 1), ("fine", 1), ("large-closed", 600_000)):
            (tmp_path / name).write_bytes(bytes(size))
        monkeypatch.setattr("remote_agent.left_files.os.open", refuse)
        files, end = collected(tmp_path)
        assert set(files) == {"fine"}
        assert end["refused"] == [["closed", "Permission denied"], ["large-closed", "Permission denied"]]

    def test_files_that_change_while_they_are_sent(self, tmp_path):
        """One that becomes shorter is named; one that grows is sent as long as it was."""
        (tmp_path / "changes").write_bytes(b"x" * 600_000)
        source = output_frames("0.1", {}, {}, str(tmp_path), True, {})
        made = [next(source)]
        os.truncate(tmp_path / "changes", 10)
        made += list(source)
        assert frames(iter(made))[-1].header["refused"] == [["changes", "became shorter while it was sent"]]
        source = output_frames("0.1", {}, {}, str(tmp_path), True, {})
        (tmp_path / "changes").write_bytes(b"x" * 600_000)
        made = [next(source)]
        with (tmp_path / "changes").open("ab") as file:
            file.write(b"y" * 600_000)
        assert sum(len(frame.payload) for frame in frames(iter([*made, *source]))) == 600_000

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
            assert "unmatched" not in collected(folder, patterns=more)[1]

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


def test_a_large_result(tmp_path):
    """In chunks, of as many bytes as it must have; one that is shorter is an error."""
    path = tmp_path / "result"
    path.write_bytes(bytes(600_000) + b"more")
    made = frames(result_frames("0.1", str(path), 600_000))
    assert sum(len(frame.payload) for frame in made) == 600_000
    with pytest.raises(OSError, match="shorter"):
        list(result_frames("0.1", str(path), 700_000))
    with pytest.raises(FileNotFoundError):
        list(result_frames("0.1", str(tmp_path / "none"), 1))


def test_each_attempt_number_has_its_own_outputs():
    """So that a retry does not find what the first try left."""
    assert outputs_root("/s", 1) == "/s/outputs"
    assert outputs_root("/s", 3) == "/s/outputs.3"
