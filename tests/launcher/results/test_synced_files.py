"""Files that come while a job runs: a copy for readers, which changes nothing of what is there in the end."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.results import synced_files
from launcher.results.output_folder import OutputFolder
from launcher.results.owners import Ownership
from remote_agent.agent.link import file_frames, sync_frames
from remote_agent.agent.link.sync_frames import SentFile, sync_pieces
from remote_agent.protocol import wire
from remote_agent.protocol.specs.held import HeldFile
from tests.remote_agent.agent.link.frames import frames, output_frames


class Host:
    """A job's folder on a host, and the copy of it here, as agent and controller make it."""

    def __init__(self, root: Path) -> None:
        self.there = root / "there"
        self.there.mkdir()
        self.path = root / "here"
        self.here = OutputFolder(self.path)
        self.sent: dict[str, SentFile] = {}

    def sync(self, most: int = 1 << 30, only: list[str] | None = None) -> None:
        """One look at the folder; `most`: the link is lost after so many frames."""
        arrived = []
        for piece in sync_pieces("0.1", str(self.there), True, only or [], self.sent):
            if most == 0:
                self.lose_link()
                return
            most -= 1
            (frame,) = wire.Decoder().feed(piece.frame)
            header = frame.header
            self.here.sync(*(header[name] for name in ("path", "mode", "size", "base", "offset")), frame.payload)
            arrived.append(piece)
        self.sent.update({piece.path: piece.sent for piece in arrived if piece.sent is not None})

    def lose_link(self) -> None:
        """Go on over another link."""
        self.here.restart()

    def kill_controller(self) -> None:
        """Go on with another process, which knows what is on the disk alone."""
        self.here.release()
        self.here = OutputFolder(self.path)

    def another_attempt(self) -> None:
        """The host is lost, and the job begins anew on another one."""
        shutil.rmtree(self.there)
        self.there.mkdir()
        self.sent = {}
        self.kill_controller()

    def change_here(self) -> None:
        """Somebody writes into all files that came early, and that the job has in the end."""
        for path in self.path.rglob("*"):
            there = self.there / path.relative_to(self.path)
            if there.is_file() and path.is_file() and not there.is_symlink() and not path.is_symlink():
                with open(path, "r+b") as file:
                    file.write(b"mine")

    def end(self, **how: Any) -> int:
        """The job has ended, and all of its files come. Returns how many of their bytes were sent for that."""
        return collect(self.there, self.here, **how)


def collect(there: Path, here: OutputFolder, most: int = 1 << 30, change: Callable[[], None] = lambda: None) -> int:
    """Send all files of a folder, as at the end of a job. Returns how many of their bytes that took.

    Args:
        most: the link is lost after so many frames, and all begins again over another one.
        change: called before the first frame of a rest: somebody here does something to the folder.
    """
    here.restart()
    held = {one.path: HeldFile.from_json(json.loads(json.dumps(one.to_json()))) for one in here.held()}
    source = output_frames("0.1", streams={}, sent={}, folder=str(there), patterns=True, dropped={}, held=held)
    sent = 0
    for number, frame in enumerate(frames(source)):
        if number == most:
            return sent + collect(there, here)
        header = frame.header
        sent += len(frame.payload)
        if header["t"] == "rest":
            change()
            fields = [header[name] for name in ("path", "size", "base", "offset")]
            if not here.write_rest(*fields, frame.payload, header["mtime"]):
                return sent + collect(there, here)
        elif header["t"] == "files":
            start = 0
            for path, mode, size, mtime in header["items"]:
                here.write(path, mode, frame.payload[start : start + size], mtime)
                start += size
        elif header["t"] == "chunk":
            fields = [header[name] for name in ("path", "mode", "size", "offset")]
            here.write_chunk(*fields, frame.payload, header["mtime"])
        elif header["t"] == "tree":
            for path, text in header["links"]:
                here.add_link(path, text)
            for path, mtime in header["folders"]:
                here.add_folder(path, mtime)
    if here.has_synced:
        here.finish_sync()
    return sent


def contents(folder: Path) -> dict[str, Any]:
    """Everything below a folder: kind, bits, time and hash."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        what = os.readlink(path) if path.is_symlink() else ""
        if stat.S_ISREG(status.st_mode):
            what = hashlib.sha256(path.read_bytes()).hexdigest()
        time = 0 if path.is_symlink() else status.st_mtime_ns
        relative = path.relative_to(folder)
        if relative.parts[0] != ".launcher":
            found[str(relative)] = (stat.filemode(status.st_mode), time, what)
    return found


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A job's folder there and here."""
    return Host(tmp_path)


def test_what_is_appended_comes_alone_and_into_the_same_file(host: Host) -> None:
    """So a reader that has the file open reads on, until the end of the job and beyond."""
    (host.there / "log").write_bytes(b"a" * 200_000)
    host.sync()
    with open(host.path / "log", "rb") as reader:
        assert reader.read() == b"a" * 200_000
        with open(host.there / "log", "ab") as file:
            file.write(b"more")
        pieces = list(sync_pieces("0.1", str(host.there), True, [], host.sent))
        assert [len(wire.Decoder().feed(one.frame)[0].payload) for one in pieces] == [4]
        host.sync()
        assert reader.read() == b"more"
        with open(host.there / "log", "ab") as file:
            file.write(b"last")
        assert host.end() == 4
        assert reader.read() == b"last"
    assert contents(host.path) == contents(host.there)


def test_a_file_that_is_written_anew_is_whole_at_any_time(host: Host) -> None:
    """Its parts get the name together."""
    (host.there / "best.pt").write_bytes(b"a" * 200_000)
    host.sync()
    (host.there / "best.pt").write_bytes(b"b" * 150_000)
    host.sync(most=1)
    assert (host.path / "best.pt").read_bytes() == b"a" * 200_000
    host.sync()
    assert (host.path / "best.pt").read_bytes() == b"b" * 150_000
    assert not (host.path / ".launcher" / "synced.part").exists()


def test_what_was_here_before_is_left_alone_until_the_end(host: Host) -> None:
    """Such as a file of the attempt before, or of the user."""
    host.path.mkdir()
    (host.path / "log").write_text("of the attempt before")
    (host.there / "log").write_text("new")
    (host.there / "other").write_text("new")
    host.sync()
    assert (host.path / "log").read_text() == "of the attempt before"
    assert (host.path / "other").read_text() == "new"
    (host.there / "log").unlink()
    (host.there / "other").unlink()
    host.end()
    assert (host.path / "log").read_text() == "of the attempt before"
    assert not (host.path / "other").exists()


def test_a_file_that_somebody_here_has_put_in_its_place_is_not_touched(host: Host) -> None:
    """Neither by what comes while the job runs, nor when the job does not have the file in the end."""
    (host.there / "log").write_text("one")
    host.sync()
    (host.path / "log").unlink()
    (host.path / "log").write_text("mine")
    (host.there / "log").write_text("one two")
    host.sync()
    assert (host.path / "log").read_text() == "mine"
    (host.there / "log").unlink()
    host.end()
    assert (host.path / "log").read_text() == "mine"


def test_a_hard_link_of_the_user_keeps_what_it_has(host: Host) -> None:
    """Nothing is written through it."""
    (host.there / "log").write_text("one")
    host.sync()
    os.link(host.path / "log", host.path.parent / "kept")
    with open(host.there / "log", "a") as file:
        file.write(" two")
    host.sync()
    host.end()
    assert (host.path.parent / "kept").read_text() == "one"
    assert (host.path / "log").read_text() == "one two"


def test_files_and_folders_may_change_places(host: Host) -> None:
    """In the end all is as on the host."""
    (host.there / "a").mkdir()
    (host.there / "a" / "deep").mkdir()
    (host.there / "a" / "deep" / "file").write_text("x")
    (host.there / "b").write_text("y")
    (host.there / "c").mkdir()
    (host.there / "c" / "file").write_text("z")
    host.sync()
    assert (host.path / "a" / "deep" / "file").read_text() == "x"
    shutil.rmtree(host.there / "a")
    (host.there / "a").write_text("a file now")
    (host.there / "b").unlink()
    (host.there / "b").mkdir()
    (host.there / "b" / "file").write_text("below")
    shutil.rmtree(host.there / "c")
    (host.there / "c").symlink_to("b")
    host.sync()
    host.end()
    assert contents(host.path) == contents(host.there)
    assert list((host.path / ".launcher").iterdir()) == []


def test_what_is_refused_in_the_end_leaves_nothing_that_came_early(host: Host) -> None:
    """As without it: nothing has the name then."""
    (host.there / "b").write_text("came early")
    host.sync()
    (host.there / "b").unlink()
    (host.there / "b").symlink_to("a")
    (host.there / "a").symlink_to("a")
    host.end()
    assert [path for path, _ in host.here.refused] == ["b"]
    assert contents(host.path).keys() == {"a"}


def test_patterns_say_what_comes_early(host: Host) -> None:
    """All else comes at the end."""
    for name in ("events.1", "model.pt"):
        (host.there / name).write_text(name)
    host.sync(only=["events.*"])
    assert [path.name for path in host.path.iterdir() if path.name != ".launcher"] == ["events.1"]
    host.end()
    assert contents(host.path) == contents(host.there)


def test_what_came_early_is_listed_until_the_end(host: Host) -> None:
    """So that one can tell that it may be incomplete."""
    (host.there / "log").write_text("x")
    host.sync()
    assert b'"log"' in (host.path / ".launcher" / "synced").read_bytes()
    host.end()
    assert list((host.path / ".launcher").iterdir()) == []


@pytest.mark.slow
def test_a_list_does_not_grow_with_every_change(host: Host) -> None:
    """It is written anew now and then."""
    for number in range(1000):
        host.here.sync("x", 0o600, 1, 0, 0, b"%d" % (number % 10))
    assert len((host.path / ".launcher" / "synced").read_bytes().split()) < 500
    host.kill_controller()
    host.end()
    assert contents(host.path) == {}


def test_a_damaged_list_counts_as_far_as_it_can_be_read(host: Host) -> None:
    """A controller may die while it writes a line."""
    (host.there / "log").write_text("x")
    host.sync()
    inode = (host.path / "log").stat().st_ino
    (host.path / ".launcher" / "synced").write_bytes(
        b'{"path": "../x", "inode": 1}\n{"path": 3}\n['
        + b"[" * 100_000
        + b'\n{"path": "log", "inode": %d}\n{"pa' % inode
    )
    host.kill_controller()
    (host.there / "log").unlink()
    host.end()
    assert contents(host.path) == {}


def test_jobs_that_share_a_folder_get_nothing_early(tmp_path: Path) -> None:
    """They settle who has which name when they end."""
    owners = Ownership(0.0, lambda num, folder: True).of(0, tmp_path / "here")
    folder = OutputFolder(tmp_path / "here", owners=owners)
    folder.sync("log", 0o600, 1, 0, 0, b"x")
    assert not (tmp_path / "here").exists()


def test_what_came_early_is_not_taken_for_that_of_another_job(tmp_path: Path) -> None:
    """The job's own file replaces it under the same name."""
    owners = Ownership(0.0, lambda num, folder: False).of(0, tmp_path / "here")
    folder = OutputFolder(tmp_path / "here", owners=owners)
    folder.sync("log", 0o600, 3, 0, 0, b"one")
    folder.write("log", 0o600, b"two")
    folder.finish_sync()
    assert contents(tmp_path / "here").keys() == {"log"}
    assert (tmp_path / "here" / "log").read_text() == "two"
    assert not folder.apart


class TestHostile:
    """What a host may send instead."""

    @pytest.mark.parametrize(
        "path",
        ["../x", "/x", "a/../../x", "", ".", "a//b", ".launcher/x", ".LAUNCHER/synced", "a\0b", "x" * 256, "\udcff"],
    )
    def test_a_path_that_leads_elsewhere_is_refused(self, host: Host, path: str) -> None:
        """The same names as at the end."""
        for base in (0, 1):
            host.here.sync(path, 0o600, 2, base, base, b"x" * (2 - base))
        made = [one for one in host.path.parent.rglob("*") if one.is_file()]
        assert made == []

    def test_no_link_is_followed(self, host: Host) -> None:
        """Neither one in the place of the file, nor one in that of a folder."""
        outside = host.path.parent / "outside"
        outside.mkdir()
        (outside / "file").write_text("mine")
        host.path.mkdir()
        (host.path / "link").symlink_to(outside / "file")
        (host.path / "folder").symlink_to(outside)
        host.here.sync("link", 0o600, 4, 0, 0, b"evil")
        host.here.sync("folder/file", 0o600, 4, 0, 0, b"evil")
        host.here.sync("folder/new", 0o600, 4, 0, 0, b"evil")
        assert [(one.name, one.read_text()) for one in outside.iterdir()] == [("file", "mine")]

    def test_a_link_that_takes_the_place_of_a_file_is_not_followed(self, host: Host) -> None:
        """Not for what is appended, and not for what comes anew."""
        outside = host.path.parent / "outside"
        outside.write_text("mine")
        host.here.sync("log", 0o600, 4, 0, 0, b"evil")
        (host.path / "log").unlink()
        (host.path / "log").symlink_to(outside)
        host.here.sync("log", 0o600, 8, 4, 4, b"evil")
        host.here.sync("log", 0o600, 4, 0, 0, b"evil")
        assert outside.read_text() == "mine"
        assert (host.path / "log").is_symlink()

    @pytest.mark.parametrize(
        ("size", "base", "offset", "data"),
        [
            (9, 5, 5, b"more"),
            (1 << 50, 1 << 49, 1 << 49, b"x"),
            (1 << 50, 0, 0, b"x"),
            (-1, 0, 0, b""),
            (3, 0, 0, b"more"),
            (9, 0, 4, b"x"),
            (9, 3, 0, b"x"),
        ],
    )
    def test_a_part_that_does_not_fit_is_refused(
        self, host: Host, size: int, base: int, offset: int, data: bytes
    ) -> None:
        """No hole is made in a file, and none is as long as is only said."""
        host.here.sync("log", 0o600, 3, 0, 0, b"one")
        host.here.sync("log", 0o600, size, base, offset, data)
        assert (host.path / "log").read_text() == "one"

    def test_no_more_files_than_the_cap(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """Folders count, too."""
        monkeypatch.setattr(synced_files, "MAX_FILES", 10)
        for number in range(20):
            host.here.sync(f"{number}/x", 0o600, 1, 0, 0, b"x")
        assert len(contents(host.path)) == 10

    def test_they_do_not_count_as_files_of_the_end(self, host: Host) -> None:
        """The cap of the end is for what comes then."""
        host.here.max_files = 3
        for number in range(5):
            host.here.sync(f"{number}/x", 0o600, 1, 0, 0, b"x")
        (host.there / "a").write_text("a")
        (host.there / "b").write_text("b")
        host.end()
        assert contents(host.path) == contents(host.there)
        assert not host.here.refused


def test_some_room_is_left_on_the_disk(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """For results and the journal. It is an error of the disk, and no file is left that has begun."""
    (host.there / "log").write_text("x")
    monkeypatch.setattr(synced_files, "RESERVE", 1 << 60)
    with pytest.raises(OSError) as error:
        host.sync()
    assert error.value.errno == errno.ENOSPC
    assert list((host.path / ".launcher").iterdir()) == []
    host.end()
    assert contents(host.path) == contents(host.there)


# -- histories -------------------------------------------------------------------------------------------------------

_NAMES = ("a", "b", "d/a", "d/e/a", "d", "d/e")


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _room(root: Path, name: str) -> Path:
    """A path whose folders are there, and which is no folder."""
    path = root
    for part in name.split("/")[:-1]:
        path /= part
        if path.is_symlink() or not path.is_dir():
            _clear(path)
            path.mkdir()
    path = root / name
    if path.is_dir() or path.is_symlink():
        _clear(path)
    return path


def _append(host: Host, name: str, other: str, data: bytes) -> None:
    with open(_room(host.there, name), "ab") as file:
        file.write(data)


def _rewrite(host: Host, name: str, other: str, data: bytes) -> None:
    _room(host.there, name).write_bytes(data)


def _change(host: Host, name: str, other: str, data: bytes) -> None:
    """Bytes at the beginning change; the length and the end do not, if it is long."""
    path = _room(host.there, name)
    with open(path, "r+b" if path.exists() else "w+b") as file:
        file.write(data[:3])


def _truncate(host: Host, name: str, other: str, data: bytes) -> None:
    path = _room(host.there, name)
    if path.exists():
        os.truncate(path, path.stat().st_size // 2)


def _rename(host: Host, name: str, other: str, data: bytes) -> None:
    path = host.there / name
    if os.path.lexists(path) and not f"{other}/".startswith(f"{name}/") and not f"{name}/".startswith(f"{other}/"):
        place = _room(host.there, other)
        if path.is_dir():
            _clear(place)  # a folder takes the place of no file by itself
        os.replace(path, place)


def _replace(host: Host, name: str, other: str, data: bytes) -> None:
    new = host.there / "new"
    new.write_bytes(data)
    os.replace(new, _room(host.there, name))


def _remove(host: Host, name: str, other: str, data: bytes) -> None:
    if os.path.lexists(host.there / name):
        _clear(host.there / name)


def _make_folder(host: Host, name: str, other: str, data: bytes) -> None:
    _room(host.there, name).unlink(missing_ok=True)
    (host.there / name).mkdir()


def _link(host: Host, name: str, other: str, data: bytes) -> None:
    path = _room(host.there, name)
    path.unlink(missing_ok=True)
    path.symlink_to("a")


def _mode(host: Host, name: str, other: str, data: bytes) -> None:
    path = host.there / name
    if path.is_file() and not path.is_symlink():
        path.chmod(0o755 if len(data) % 2 else 0o644)


def _sync(host: Host, name: str, other: str, data: bytes) -> None:
    host.sync()


def _cut(host: Host, name: str, other: str, data: bytes) -> None:
    host.sync(most=len(data) % 5)


_STEPS: list[Callable[[Host, str, str, bytes], None]] = [
    _append, _append, _rewrite, _change, _truncate, _rename, _replace, _remove, _make_folder, _link, _mode, _sync, _sync, _sync, _cut,
    lambda host, *_: host.lose_link(),
    lambda host, *_: host.kill_controller(),
    lambda host, *_: host.another_attempt(),
]  # fmt: skip


@pytest.fixture(scope="module")
def small_pieces() -> Iterator[None]:
    """Files of a few bytes come in several pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sync_frames, "_PIECE", 7)
        patch.setattr(sync_frames, "_TAIL", 4)
        patch.setattr(synced_files, "_PIECE", 5)
        patch.setattr(file_frames, "_COMPARED", 3)
        patch.setattr(synced_files, "_HASHED", 4)
        yield


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(_STEPS),
            st.sampled_from(_NAMES),
            st.sampled_from(_NAMES),
            st.binary(min_size=1, max_size=20),
        ),
        max_size=25,
    ),
    most=st.integers(min_value=0, max_value=12),
    is_changed_here=st.booleans(),
)
@settings(deadline=None)
@pytest.mark.usefixtures("small_pieces")
def test_any_history_ends_as_without_it(
    steps: list[tuple[Callable[[Host, str, str, bytes], None], str, str, bytes]], most: int, is_changed_here: bool
) -> None:
    """Whatever a job does to its files, and whatever happens to links and controllers: what is here after the end is what would be here
    if nothing had come early.
    """
    with tempfile.TemporaryDirectory() as folder:
        host = Host(Path(folder))
        for step, name, other, data in steps:
            step(host, name, other, data)
        plain = Path(folder, "plain")
        late = OutputFolder(plain)
        collect(host.there, late)
        late.close()
        changes = [host.change_here] if is_changed_here else []
        host.end(most=most, change=lambda: changes.pop()() if changes else None)
        assert contents(host.path) == contents(plain)
        # A link that leads to itself is refused when it comes again over another link.
        loops = {one for one in host.here.refused if one[1] == "a link that goes through too many other links"}
        assert set(host.here.refused) - loops == set(late.refused) - loops
        assert list(host.path.glob(".launcher/*")) == []
        host.here.close()
