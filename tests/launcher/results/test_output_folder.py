"""Files from a host: where they are written, and what is refused."""

from __future__ import annotations

import errno
import os
import stat

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from launcher.results import output_folder
from launcher.results.output_folder import OutputFolder
from tests.examples import examples
from tests.launcher.results.refusals import reason
from tests.requirements import READS_PROC


class TestWriting:
    """Files that are written."""

    def test_a_file_in_folders(self, folder):
        """Folders are made. Of the mode, only the bits for execution are kept."""
        folder.write("a/b/run.sh", 0o4755, b"#!")
        folder.write("a/b/data", 0o600, b"\0\xff")
        path = folder.path / "a" / "b"
        assert (path / "data").read_bytes() == b"\0\xff"
        assert stat.S_IMODE((path / "run.sh").stat().st_mode) & 0o111
        assert not stat.S_IMODE((path / "run.sh").stat().st_mode) & 0o7000
        assert folder.refused == []

    @pytest.mark.parametrize("how", ["whole", "in pieces", "a stream"])
    def test_a_file_over_the_size_limit_is_refused(self, folder, monkeypatch, how):
        """It is refused by name, because another try would end in the same way."""
        for name in ("write", "pwrite"):

            def fail(*args: object) -> int:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

            monkeypatch.setattr(os, name, fail)
        if how == "whole":
            folder.write("model", 0o644, b"x")
        elif how == "in pieces":
            folder.write_chunk("model", 0o644, 2, 0, b"x")
            folder.write_chunk("model", 0o644, 2, 1, b"x")
        else:
            folder.write_stream("stdout", 0, b"x")
            folder.write_stream("stdout", 1, b"x")
        path = ".launcher/stdout" if how == "a stream" else "model"
        assert folder.refused == [(path, "File too large")]
        assert not (folder.path / "model").exists()

    def test_a_stream_whose_name_is_taken_is_refused(self, folder):
        """If there is a link in its place, it is not followed."""
        (folder.path / ".launcher").mkdir(parents=True)
        (folder.path / ".launcher" / "stdout").symlink_to("/dev/null")
        folder.write_stream("stdout", 0, b"x")
        folder.write_stream("stderr", 0, b"y")
        assert [path for path, _ in folder.refused] == [".launcher/stdout"]
        assert (folder.path / ".launcher" / "stderr").read_bytes() == b"y"

    def test_no_folder_is_made_before_something_comes(self, folder):
        """A job without files leaves no folder."""
        folder.close()
        assert not folder.path.exists()

    def test_a_long_file_appears_when_it_is_complete(self, folder):
        """It gets its name with its last piece."""
        folder.write_chunk("d/model", 0o644, 6, 0, b"abc")
        assert not (folder.path / "d" / "model").exists()
        folder.write_chunk("d/model", 0o644, 6, 3, b"def")
        assert (folder.path / "d" / "model").read_bytes() == b"abcdef"

    def test_files_of_an_earlier_connection_are_replaced(self, folder):
        """The same files come again on another link. Nothing is left of a file that came only in part."""
        folder.write("a", 0o644, b"first")
        folder.write_chunk("b", 0o644, 6, 0, b"abc")
        folder.restart()
        folder.write("a", 0o644, b"second")
        folder.write_chunk("b", 0o644, 6, 0, b"xyz")
        folder.write_chunk("b", 0o644, 6, 3, b"uvw")
        assert (folder.path / "a").read_bytes() == b"second"
        assert (folder.path / "b").read_bytes() == b"xyzuvw"
        folder.close()
        assert sorted(path.name for path in folder.path.rglob("*")) == [".launcher", "a", "b"]

    def test_stream_bytes_are_written_at_their_offset(self, folder):
        """Bytes that come twice change nothing."""
        folder.write_stream("stdout", 0, b"hello ")
        folder.write_stream("stdout", 6, b"world")
        folder.write_stream("stdout", 0, b"hello ")
        assert (folder.path / ".launcher" / "stdout").read_bytes() == b"hello world"

    def test_attempts_keep_their_streams_apart(self, folder):
        """The output of an attempt is still there after the next one has printed."""
        folder.write_stream("stdout", 0, b"first")
        folder.set_aside(1)
        folder.write_stream("stdout", 0, b"2nd")
        assert (folder.path / ".launcher" / "attempt-1" / "stdout").read_bytes() == b"first"
        assert (folder.path / ".launcher" / "stdout").read_bytes() == b"2nd"

    @READS_PROC
    def test_nothing_is_written_after_close(self, folder):
        """A late frame neither writes nor leaks a descriptor."""
        folder.write("a", 0o644, b"1")
        folder.close()
        before = len(os.listdir("/proc/self/fd"))
        folder.write("b", 0o644, b"1")
        folder.write_chunk("c", 0o644, 1, 0, b"1")
        folder.write_stream("stdout", 0, b"1")
        assert sorted(os.listdir(folder.path)) == ["a"]
        assert len(os.listdir("/proc/self/fd")) == before

    def test_many_folders_need_few_descriptors(self, folder):
        """This holds for any number of folders."""
        for index in range(300):
            folder.write(f"f{index}/x", 0o644, b"1")
        assert len(folder._tree._open) < 70
        assert len(list(folder.path.iterdir())) == 300


class TestRefusing:
    """A refused file harms neither the job nor its other files."""

    @pytest.mark.parametrize(("offset", "size"), [(0, 5000), (990, 4000), (10**12, 1)])
    def test_a_stream_is_cut_at_its_cap(self, tmp_path, offset, size):
        """The host should have cut it. If it does not, it fills no disk here, and a warning names it once."""
        folder = OutputFolder(tmp_path / "job", max_stream_bytes=1000)
        for _ in range(3):
            folder.write_stream("stdout", offset, b"x" * size)
        assert folder.refused == [(".launcher/stdout", "more than 1000 bytes")]
        written = folder.path / ".launcher" / "stdout"
        assert not written.exists() or written.stat().st_size <= 1000 + 1024

    def test_a_link_is_not_followed(self, folder, tmp_path):
        """Neither as a folder of the path nor as the file itself."""
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "kept").write_text("kept")
        folder.write("fine", 0o644, b"x")
        (folder.path / "out").symlink_to(outside)
        (folder.path / "file").symlink_to(outside / "kept")
        folder.write("out/kept", 0o644, b"overwritten")
        folder.write("file", 0o644, b"instead of the link")
        assert "cannot be used" in reason(folder, "out/kept")
        assert (outside / "kept").read_text() == "kept"
        assert (folder.path / "file").read_bytes() == b"instead of the link"
        assert not (folder.path / "file").is_symlink()

    def test_a_file_does_not_replace_a_folder_nor_a_folder_a_file(self, folder):
        """The first one stays."""
        folder.write("a/b", 0o644, b"x")
        folder.write("a", 0o644, b"x")
        folder.write("a/b/c", 0o644, b"x")
        folder.write_chunk("a", 0o644, 1, 0, b"x")
        assert [path for path, _ in folder.refused] == ["a", "a/b/c", "a"]
        assert (folder.path / "a" / "b").read_bytes() == b"x"

    def test_names_that_are_the_same_file_here(self, folder, monkeypatch):
        """On a disk that ignores case, the second file does not replace the first."""
        folder.write("Model", 0o644, b"first")
        monkeypatch.setattr(folder._tree, "is_same", lambda one, other: True)
        folder.write("model", 0o644, b"second")
        assert "same file as Model" in reason(folder, "model")
        folder.write_chunk("mODEL", 0o644, 6, 0, b"second")
        assert "same file as Model" in reason(folder, "mODEL")
        folder.write("caf\u00e9", 0o644, b"first")
        folder.write("cafe\u0301", 0o644, b"second")
        assert "same file as caf\u00e9" in reason(folder, "cafe\u0301")
        folder.write("Model", 0o644, b"again")
        assert (folder.path / "Model").read_bytes() == b"again"

    def test_names_that_differ_in_case_are_two_files_if_the_disk_allows_it(self, folder):
        """On a disk that respects case, both are written."""
        folder.write("Model", 0o644, b"first")
        folder.write("model", 0o644, b"second")
        assert folder.refused == []
        assert (folder.path / "Model").read_bytes() == b"first"
        folder.restart()
        for name in ("Model", "model"):
            folder.write(name, 0o644, b"sent again")
            folder.write_chunk(name, 0o644, 5, 0, b"whole")
        assert folder.refused == []
        assert (folder.path / "model").read_bytes() == b"whole"

    def test_files_and_bytes_over_the_caps_are_refused(self, tmp_path):
        """All files and bytes count, complete or in pieces. Folders count like files."""
        folder = OutputFolder(tmp_path / "o", max_files=2, max_bytes=10)
        folder.write("a", 0o644, b"12345")
        folder.write("big", 0o644, b"1234567")
        folder.write_chunk("huge", 0o644, 1 << 62, 0, b"1")
        folder.write("negative", 0o644, b"")
        folder.write_chunk("c", 0o644, -1, 0, b"")
        folder.write("b", 0o644, b"1")
        assert [path for path, _ in folder.refused] == ["big", "huge", "c", "b"]

    def test_a_piece_out_of_order_ends_its_file(self, folder):
        """So does a piece beyond the file's size."""
        folder.write_chunk("a", 0o644, 6, 0, b"abc")
        folder.write_chunk("a", 0o644, 6, 4, b"ef")
        folder.write_chunk("a", 0o644, 6, 3, b"def")
        folder.write_chunk("b", 0o644, 2, 0, b"abc")
        folder.write_chunk("never begun", 0o644, 2, 1, b"b")
        assert [path for path, _ in folder.refused] == ["a", "b"]
        folder.close()
        assert [path.name for path in folder.path.rglob("*") if path.is_file()] == []

    def test_only_a_limited_number_of_refusals_is_kept(self, folder):
        """A host that never stops sending refused files costs no memory."""
        for index in range(output_folder.MAX_REFUSED + 10):
            folder.write(f"../{index}", 0o644, b"")
        assert len(folder.refused) == output_folder.MAX_REFUSED

    def test_a_full_disk_is_not_the_files_fault(self, folder, monkeypatch):
        """The error is raised. The link ends, and everything is sent again when there is room."""
        folder.write("a", 0o644, b"1")

        def full(*args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(output_folder.os, "open", full)
        with pytest.raises(OSError, match="No space left"):
            folder.write("b", 0o644, b"1")
        assert folder.refused == []


_PARTS = st.one_of(
    st.sampled_from(["..", ".", "", "a", "b", "A", ".launcher", "link", "\0", "\udcff", "x" * 300, "/"]),
    st.text(max_size=5),
)
_PATHS = st.lists(_PARTS, max_size=5).map("/".join)


_SENT = st.tuples(
    _PATHS,
    st.sampled_from(["file", "chunks", "link", "folder"]),
    st.binary(max_size=4),
    st.one_of(_PATHS, st.sampled_from(["..", "../..", "a", "b", "link", "a/..", "../a", "a/link/../..", "link/x"])),
)


def is_loop(link: str) -> bool:
    """Whether a link leads to itself, and so nowhere. For some of these, `os.path.realpath` says `/`."""
    try:
        os.stat(link)
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


@pytest.mark.slow
class TestHoles:
    """Parts of a file that do not come, because they are zeros."""

    @pytest.mark.parametrize(
        ("size", "hole", "offset", "data"),
        [
            (100, 50, 40, b"x"),
            (100, 40, 60, b"x"),
            (100, -1, 9, b"x"),
            (100, 85, 95, b"x" * 6),
            (100, 95, 105, b""),
        ],
        ids=["back", "lost", "negative", "beyond", "longer"],
    )
    def test_what_does_not_follow_is_refused(self, tmp_path, size, hole, offset, data):
        """A hole begins where the bytes before it end, and ends within the file."""
        folder = OutputFolder(tmp_path / "out")
        folder.write_chunk("a", 0o644, size, 0, b"y" * 10)
        folder.write_chunk("a", 0o644, size, offset, data, None, hole)
        folder.close()
        assert [name for name, _ in folder.refused] == ["a"]
        assert not (tmp_path / "out" / "a").exists()

    def test_a_hole_counts_for_the_cap(self, tmp_path):
        """So that whoever copies the file later gets no more than the cap."""
        folder = OutputFolder(tmp_path / "out", max_bytes=1000)
        folder.write_chunk("a", 0o644, 1001, 0, b"")
        folder.write_chunk("a", 0o644, 1001, 1001, b"", None, 1001)
        folder.close()
        assert folder.refused == [("a", "more than 1000 bytes")]

    def test_a_file_that_is_too_long_for_the_disk_is_refused(self, tmp_path, monkeypatch):
        """It costs the job nothing else."""

        def refuse(*args):
            raise OSError(errno.EFBIG, "File too large")

        monkeypatch.setattr("launcher.results.writing.os.ftruncate", refuse)
        folder = OutputFolder(tmp_path / "out")
        folder.write_chunk("a", 0o644, 1 << 39, 0, b"")
        folder.write_chunk("a", 0o644, 1 << 39, 1 << 39, b"", None, 1 << 39)
        folder.write("b", 0o644, b"x")
        folder.close()
        assert folder.refused == [("a", "File too large")]
        assert [one.name for one in (tmp_path / "out").iterdir() if one.is_file()] == ["b"]

    def test_it_takes_the_place_of_what_came_early(self, tmp_path):
        """It is not added to that file, which would fill the holes."""
        folder = OutputFolder(tmp_path / "out")
        folder.sync("a", 0o644, 1, 0, 0, b"x")
        folder.write_chunk("a", 0o644, 1 << 30, 0, b"x")
        folder.write_chunk("a", 0o644, 1 << 30, 1 << 30, b"", None, (1 << 30) - 1)
        folder.close()
        status = (tmp_path / "out" / "a").stat()
        assert folder.refused == []
        assert (status.st_size, status.st_blocks * 512 < 1 << 20) == (1 << 30, True)


@settings(
    max_examples=examples(300),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(_SENT, max_size=12))
@example([("0", "link", b"", "0//.")])
def test_whatever_is_sent_stays_in_the_folder(tmp_path_factory, sent):
    """Every file is written below the folder as it was sent, or is refused by name. Nothing outside is changed."""
    root = tmp_path_factory.mktemp("root")
    (root / "outside").mkdir()
    (root / "outside" / "kept").write_text("kept")
    folder = OutputFolder(root / "in" / "out")
    folder.path.mkdir(parents=True)
    (folder.path / "link").symlink_to(root / "outside")
    written = {}
    for path, kind, data, text in sent:
        before = len(folder.refused)
        if kind == "chunks":
            for offset in range(max(len(data), 1)):
                folder.write_chunk(path, 0o644, len(data), offset, data[offset : offset + 1])
        elif kind == "file":
            folder.write(path, 0o644, data)
        elif kind == "folder":
            folder.add_folder(path)
        else:
            folder.add_link(path, text)
        if len(folder.refused) == before and kind != "folder":
            written.pop(path, None)
            if kind != "link":
                written[path] = data
    folder.close()
    for path, data in written.items():
        assert (folder.path / path).read_bytes() == data
        assert not (folder.path / path).is_symlink()
    for above, folders, files in os.walk(folder.path):
        for name in (*folders, *files):
            link = os.path.join(above, name)
            if os.path.islink(link) and os.readlink(link) != str(root / "outside") and not is_loop(link):
                assert (os.path.realpath(link) + "/").startswith(f"{folder.path}/"), os.readlink(link)
    assert sorted(path.name for path in root.iterdir()) == ["in", "outside"]
    assert [path.name for path in (root / "in").iterdir()] == ["out"]
    assert [(path.name, path.read_text()) for path in (root / "outside").iterdir()] == [("kept", "kept")]
