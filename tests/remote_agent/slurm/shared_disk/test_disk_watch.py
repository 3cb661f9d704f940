"""Whether the shared disk takes anything."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_agent.slurm.shared_disk import disk_watch
from remote_agent.slurm.shared_disk.disk_watch import DiskWatch


class AtOnce:
    """A background thread that has done everything at once."""

    def submit(self, do: Callable[[], None], then: Callable[[BaseException | None], None]) -> None:
        do()
        then(None)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """And that it can be written again. It is tried now and then, and sooner while it is full."""
    notes: list[str] = []
    watch = DiskWatch(str(tmp_path / "run" / ".try"), AtOnce(), notes.append)  # type: ignore[arg-type]
    (tmp_path / "run").mkdir()
    watch.tick(0.0)
    assert (notes, os.listdir(tmp_path / "run")) == ([], [])

    def full(fd: int) -> None:
        raise OSError(number, "full")

    with monkeypatch.context() as patch:
        patch.setattr(disk_watch, "sync_fd", full)
        watch.tick(29.0)
        assert not watch.error
        for now in (30.0, 40.0):
            watch.tick(now)
            assert watch.error == os.strerror(number)
    watch.tick(49.0)
    assert watch.error
    watch.tick(50.0)
    assert not watch.error
    assert notes == [
        f"slurm: the shared disk takes nothing ({tmp_path / 'run'}: {os.strerror(number)}); results wait there, and no job starts until there is room",
        "slurm: the shared disk can be written again",
    ]
    assert os.listdir(tmp_path / "run") == []


def test_another_error_is_not_told_as_a_full_disk(tmp_path: Path) -> None:
    """Whoever needs the disk meets it, and says it."""
    notes: list[str] = []
    watch = DiskWatch(str(tmp_path / "absent" / ".try"), AtOnce(), notes.append)  # type: ignore[arg-type]
    watch.tick(0.0)
    assert (watch.error, notes) == ("", [])
