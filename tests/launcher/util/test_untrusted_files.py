"""A file that somebody else wrote is read up to a limit, if it is one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from launcher.util.untrusted_files import read_regular


@pytest.mark.parametrize(
    ("limit", "offset", "read"),
    [(100, 0, b"0123456789"), (4, 0, b"0123"), (4, 8, b"89"), (4, 10, b""), (4, 99, b""), (0, 0, b"")],
)
def test_so_much_is_read_from_there_on(tmp_path: Path, limit: int, offset: int, read: bytes) -> None:
    """No more than the limit, however long the file is."""
    (tmp_path / "f").write_bytes(b"0123456789")
    assert read_regular(tmp_path / "f", limit, offset) == read


def test_a_long_file_is_read_in_pieces(tmp_path: Path) -> None:
    """All of them, up to the limit."""
    data = os.urandom((2 << 20) + 3)
    (tmp_path / "f").write_bytes(data)
    assert read_regular(tmp_path / "f", 1 << 30) == data
    assert read_regular(tmp_path / "f", (1 << 20) + 1, 1) == data[1 : (1 << 20) + 2]


def test_anything_else_is_refused_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody writes to, a device without an end, a folder, a socket."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "link"):
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(tmp_path / name, 10)
    with socket.socket(socket.AF_UNIX) as sock:
        monkeypatch.chdir(tmp_path)
        sock.bind("sock")
        with pytest.raises(OSError, match="sock"):
            read_regular(Path("sock"), 10)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none", 10)


def test_nothing_stays_open(tmp_path: Path) -> None:
    """Whether it was read or refused."""
    (tmp_path / "f").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for _ in range(5):
        read_regular(tmp_path / "f", 1)
        with pytest.raises(OSError, match="regular"):
            read_regular(tmp_path / "pipe", 1)
    assert before is None or len(os.listdir("/proc/self/fd")) == before
