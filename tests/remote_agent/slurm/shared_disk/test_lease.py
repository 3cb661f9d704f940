"""A lease is a file whose age counts by the clock of the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote_agent.slurm.shared_disk.lease import Lease, LeaseWatch
from remote_agent.slurm.shared_disk.shared_files import SharedFiles


class Sides:
    """Both sides, on one disk. Times are the test's."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "lease"
        (folder / "own").mkdir(mode=0o700)
        self.lease = Lease(SharedFiles(str(folder), "submitter"))
        self.watch = LeaseWatch(SharedFiles(str(folder), "22.0"), str(folder / "own"))

    def make_old(self, seconds: float) -> None:
        """The last touch was so long ago."""
        then = self.file.stat().st_mtime - seconds
        os.utime(self.file, (then, then))


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    """Nobody has said anything yet."""
    return Sides(tmp_path)


def test_a_silent_controller_loses_its_lease(sides: Sides):
    """Not before it is over, and not where it is touched in time."""
    sides.lease.grant(60.0, 0.0)
    assert not sides.watch.is_over(0.0)
    sides.make_old(50.0)
    assert not sides.watch.is_over(100.0)
    sides.make_old(61.0)
    assert sides.watch.is_over(200.0)
    sides.lease.touch(300.0)
    assert not sides.watch.is_over(300.0)


def test_without_a_lease_nothing_ends(sides: Sides):
    """Nor where the last controller has taken back what one before it has said."""
    assert not sides.watch.is_over(0.0)
    sides.lease.grant(1.0, 0.0)
    sides.lease.grant(None, 0.0)
    sides.make_old(1000.0)
    assert not sides.watch.is_over(1000.0)


def test_the_disk_is_asked_four_times_in_a_lease(sides: Sides):
    """By both sides."""
    sides.lease.grant(40.0, 0.0)
    sides.make_old(41.0)
    sides.lease.touch(1.0)
    assert not sides.watch.is_over(1.0)
    sides.make_old(41.0)
    sides.lease.touch(10.9)
    assert not sides.watch.is_over(10.9), "it has just looked"
    assert sides.watch.is_over(11.1)
    sides.lease.touch(11.1)
    assert not sides.watch.is_over(100.0)


def test_a_disk_that_is_away_ends_nothing(sides: Sides, tmp_path: Path):
    """It is looked at again."""
    sides.lease.grant(1.0, 0.0)
    sides.make_old(10.0)
    (tmp_path / "own").rmdir()
    assert not sides.watch.is_over(0.0)
    (tmp_path / "own").mkdir(mode=0o700)
    assert sides.watch.is_over(100.0)
