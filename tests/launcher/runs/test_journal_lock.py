"""One process writes a journal: who holds the lock, and whom a refusal names."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from launcher.errors import RunError
from launcher.runs import journal_lock
from launcher.runs.journal_lock import lock_folder

HOLD = """
import sys
from pathlib import Path
from launcher.runs.journal_lock import lock_folder
lock_folder(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_it_is_free_when_it_is_closed(tmp_path: Path) -> None:
    """It says which process holds it."""
    fd = lock_folder(tmp_path)
    assert (tmp_path / "lock").read_text() == f"pid {os.getpid()}\n"
    with pytest.raises(RunError, match="another run of this process is using this folder"):
        lock_folder(tmp_path, patience=0)
    os.close(fd)
    os.close(lock_folder(tmp_path, patience=0))


def test_another_process_is_named_until_it_is_killed(tmp_path: Path) -> None:
    """However it ends, the lock ends with it."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match=rf"driven by another process \(pid {other.pid}\)"):
            lock_folder(tmp_path, patience=0)
        other.kill()
        other.wait()
    os.close(lock_folder(tmp_path, patience=0))


def test_whoever_only_looks_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again as often as was said."""
    held = [lock_folder(tmp_path)]

    def let_go(event: threading.Event, timeout: float | None = None) -> bool:
        if held:
            os.close(held.pop())
        return False

    monkeypatch.setattr(threading.Event, "wait", let_go)
    os.close(lock_folder(tmp_path, patience=1))
    assert not held


def test_a_lock_on_a_file_that_was_moved_away_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken again, on the file that is there now."""
    take = journal_lock._lock
    moved = []

    def slow(fd: int, folder: Path, patience: int) -> None:
        take(fd, folder, patience)
        if not moved:
            moved.append((folder / "lock").rename(folder / "old"))

    monkeypatch.setattr(journal_lock, "_lock", slow)
    fd = lock_folder(tmp_path)
    assert os.fstat(fd).st_ino == (tmp_path / "lock").stat().st_ino
    os.close(fd)


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    """Nothing is made where it leads."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="lock"):
        lock_folder(tmp_path)
    assert not (tmp_path / "elsewhere").exists()
