"""Looks whether the shared disk of a run takes anything, and says so when it does not.

Rule: a full disk stops all of a run, and whoever could say it there cannot write. So the submitter tries, now and then, and tells the user. A
quota shows only when something is written.
"""

import errno
import os
from typing import Callable, List, Optional

from remote_agent.shared.disk import sync_fd
from remote_agent.system.background import BackgroundThread
from remote_agent.system.private_files import open_private

__all__ = ["DiskWatch"]

#: Seconds between two tries, while there is room and while there is none.
_EVERY, _AGAIN_EVERY = 30.0, 10.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
#: Bytes of a try: no file system keeps so much beside its files' names.
_TRIED = 1 << 14


class DiskWatch:
    """Tries a folder. `path`: a file in it that nobody else writes."""

    def __init__(self, path: str, background: BackgroundThread, note: Callable[[str], None]) -> None:
        self._path = path
        self._background = background
        self._note = note
        self._try_at = 0.0
        self._is_trying = False
        #: Why nothing can be written; empty if it can.
        self.error = ""

    def tick(self, now: float) -> None:
        """Try again if it is time to."""
        if now < self._try_at or self._is_trying:
            return
        self._is_trying = True
        found: List[str] = []

        def tried(error: Optional[BaseException]) -> None:
            self._is_trying = False
            self._see(found[0] if found else "")
            self._try_at = now + (_AGAIN_EVERY if self.error else _EVERY)

        self._background.submit(lambda: found.append(_why_not(self._path)), tried)

    def _see(self, error: str) -> None:
        if error and not self.error:
            self._note(
                "slurm: the shared disk takes nothing ({}: {}); results wait there, and no job starts until there is room".format(
                    os.path.dirname(self._path), error
                )
            )
        elif self.error and not error:
            self._note("slurm: the shared disk can be written again")
        self.error = error


def _why_not(path: str) -> str:
    """Write something and remove it. Returns why that is not possible now; empty if it is, or if it fails for another reason than room."""
    why = ""
    try:
        with os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            file.write(b"\0" * _TRIED)
            file.flush()
            sync_fd(file.fileno())
    except OSError as error:
        why = os.strerror(error.errno) if error.errno in _FULL else ""
    try:
        os.unlink(path)
    except OSError:
        pass  # it is not there, or the next try finds it
    return why
