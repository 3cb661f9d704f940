"""Frames of what jobs leave: output files, links, folders, streams and long results."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote_agent.agent.link.result_frames import as_written, output_frames, result_frames, stream_frames
from remote_agent.protocol import wire
from remote_agent.protocol.result_parts import NO_PARTS, Part
from tests.remote_agent.agent.link.frames import collected, frames, tree


def test_an_output_directory_that_the_job_moved_is_reported(tmp_path: Path) -> None:
    """If there was one, nothing of it comes back, and the end mark says so."""
    gone = tmp_path / "gone"
    assert collected(gone, is_made=True)[1]["noted"] == [
        ["the output directory", "is not there any more: the job moved or removed it"]
    ]
    assert not collected(gone)[1]["noted"]
    gone.mkdir()
    assert not collected(gone, is_made=True)[1]["noted"]


class TestFiles:
    """The output directory."""

    @pytest.mark.slow
    def test_many_links_and_folders_take_several_frames(self, tmp_path):
        """No frame is too long."""
        deep = tmp_path / "/".join(["d" * 200] * 15)
        deep.mkdir(parents=True)
        for number in range(400):
            (deep / f"{number:0200}").mkdir()
            (deep / f"link{number:0200}").symlink_to(f"{number:0200}")
        links, folders = tree(tmp_path)
        assert len(links) == 400
        assert len(folders) == 415

    def test_a_missing_folder_is_no_error(self, tmp_path):
        """Nothing is sent."""
        assert collected(tmp_path / "nowhere")[0] == {}
        assert collected(None)[0] == {}

    @pytest.mark.slow
    def test_long_names_do_not_make_a_header_too_long(self, tmp_path):
        """Neither many files in a frame, nor many refusals: the rest is counted."""
        deep = tmp_path / "/".join(["d" * 200] * 15)
        deep.mkdir(parents=True)
        for number in range(600):
            (deep / f"{number:0200}").write_text("x")
            (deep / f"link{number:0200}").symlink_to("/etc/passwd")
        files, end = collected(tmp_path)
        assert len(files) == 600
        more = end["refused"][-1][0]
        assert len(end["refused"]) - 1 + int(more.split()[0].strip("(")) == 600


class TestStreams:
    """The output of a job."""

    def test_only_new_output_is_sent(self, tmp_path):
        """Each call sends what is new and advances the position."""
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

    def test_output_is_sent_up_to_its_cap(self, tmp_path):
        """Not a byte more. The stream and the sizes say what is missing."""
        path = tmp_path / "stdout"
        path.write_bytes(b"a" * 1000)
        source = output_frames("0.1", {"stdout": str(path)}, {"stdout": 0}, None, True, {"stdout": 50}, 100)
        output, mark, end = frames(source)
        assert output.payload == b"a" * 100
        assert mark.header["offset"] == 100
        assert b"stdout was cut here; about 50 bytes" in mark.payload
        assert end.header["sizes"] == {"stdout": 100, "stdout_dropped": 50, "files": 0, "bytes": 0}

    def test_the_stream_that_was_written_first_goes_first(self, tmp_path):
        """As far as two files can show: by the time of their last write."""
        streams = {name: str(tmp_path / name) for name in ("stdout", "stderr")}
        for name, second in (("stdout", 2), ("stderr", 1)):
            (tmp_path / name).write_bytes(name.encode())
            os.utime(streams[name], (second, second))
        sent = {"stdout": 0, "stderr": 0}
        said = frames(output_frames("0.1", streams, sent, None, True, {}))
        assert [frame.payload for frame in said[:2]] == [b"stderr", b"stdout"]
        os.unlink(streams["stderr"])
        assert [name for name, _ in as_written(streams)] == ["stderr", "stdout"]

    def test_two_senders_of_a_stream_send_it_once(self, tmp_path):
        """Output that was shown live is not sent again at the end."""
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


def test_a_large_result_comes_in_chunks(tmp_path):
    """It has its announced size. If its file is shorter, that is an error."""
    path = tmp_path / "result"
    path.write_bytes(bytes(600_000) + b"more")
    made = frames(result_frames("0.1", parts_of(path, 600_000)))
    assert sum(len(frame.payload) for frame in made) == 600_000
    with pytest.raises(OSError, match="shorter"):
        list(result_frames("0.1", parts_of(path, 700_000)))
    with pytest.raises(FileNotFoundError):
        list(result_frames("0.1", parts_of(tmp_path / "none", 1)))
