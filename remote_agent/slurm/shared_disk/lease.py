"""The lease of a run's controller: a file that the submitter touches, and that each allocation looks at.

Rule: only the clock of the shared disk counts, so the clocks of machines may differ. Whoever looks touches a file of its own and compares the times that
the disk gave to both. The file is written before any allocation is asked for; where there is none, there is no lease.

    lease                          {"seconds"}; null for no lease
    incarnations/<name>/clock      empty; touched to learn what time it is on the disk
"""

import json
import os
from typing import Optional

from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from remote_agent.system.private_files import open_private

__all__ = ["LEASE_ENDED", "Lease", "LeaseWatch"]

_FILE = "lease"
_CLOCK = "clock"
LEASE_ENDED = "cancelled: its controller's lease ended"
#: It is touched and looked at this many times in its duration; seconds between two times, at least and at most.
_TIMES = 4.0
_LEAST, _MOST = 0.5, 30.0


def _pause(seconds: float) -> float:
    return max(_LEAST, min(_MOST, seconds / _TIMES))


class Lease:
    """The submitter's side."""

    def __init__(self, files: SharedFiles) -> None:
        self._files = files
        self._seconds: Optional[float] = None
        self._touch_at = 0.0

    def grant(self, seconds: Optional[float], now: float) -> None:
        """Take what a controller says. It holds for the whole run.

        Raises:
            OSError: it is not known whether it holds.
        """
        self._files.write(json.dumps({"seconds": seconds}).encode("ascii"), _FILE)
        self._seconds = seconds
        self._touch_at = now

    def touch(self, now: float) -> None:
        """Show that the controller is there.

        Raises:
            OSError: the disk.
        """
        if self._seconds is not None and now >= self._touch_at:
            self._touch_at = now + _pause(self._seconds)
            os.utime(self._files.path(_FILE))


class LeaseWatch:
    """The side of an allocation, which may write into the folder `own`."""

    def __init__(self, files: SharedFiles, own: str) -> None:
        self._files = files
        self._clock = os.path.join(own, _CLOCK)
        self._look_at = 0.0

    def is_over(self, now: float) -> bool:
        """Whether the controller was silent for longer than its lease. Looks only now and then."""
        if now < self._look_at:
            return False
        self._look_at = now + _MOST
        try:
            data = self._files.read(_FILE)
            if data is None:
                return False
            seconds: Optional[float] = json.loads(data.decode("ascii"))["seconds"]
            if seconds is None:
                return False
            self._look_at = now + _pause(seconds)
            os.close(open_private(self._clock, os.O_WRONLY | os.O_CREAT))
            os.utime(self._clock)
            return _time(self._clock) - _time(self._files.path(_FILE)) > seconds
        except OSError:
            return False  # the disk is away: the next look tells


def _time(path: str) -> float:
    """The time of a file. It is opened, so that a shared disk is asked."""
    fd = open_private(path, os.O_RDONLY)
    try:
        return os.fstat(fd).st_mtime
    finally:
        os.close(fd)
