"""Checks files of long results that may not have reached the disk before the host went down.

Rule: a thread reads them, because they may be long, and nothing waits for it. Until a file is checked, its record is neither sent nor acted on.
"""

import functools
from typing import Callable, List, Optional

from remote_agent.protocol.result_parts import ResultParts
from remote_agent.shared.disk import digest_of
from remote_agent.system.background import BackgroundThread

__all__ = ["FileChecks"]


class FileChecks:
    """Checks under way. `under_way` is their number.

    Args:
        wake: called, in the thread, when `deliver` has something to do.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.under_way = 0
        self._wake = wake
        #: Made when there is something to read.
        self._reader: Optional[BackgroundThread] = None
        self._is_stopping = False

    def check(
        self, files: List[ResultParts], done: Callable[[List[ResultParts], Optional[BaseException]], None]
    ) -> None:
        """Read files. `deliver` calls `done` with those that are complete, and with the error that prevented reading."""
        whole: List[ResultParts] = []

        def read() -> None:
            for parts in files:
                if parts in whole or _is_whole(parts, lambda: not self._is_stopping):
                    whole.append(parts)

        if self._reader is None:
            self._reader = BackgroundThread(self._wake)
        self.under_way += 1
        self._reader.submit(read, functools.partial(self._on_read, done, whole))

    def _on_read(
        self,
        done: Callable[[List[ResultParts], Optional[BaseException]], None],
        whole: List[ResultParts],
        error: Optional[BaseException],
    ) -> None:
        self.under_way -= 1
        done(whole, error)

    def deliver(self) -> None:
        """Say what was read. Called when the loop was woken."""
        if self._reader is not None:
            self._reader.deliver()

    def stop(self) -> None:
        """End the thread."""
        self._is_stopping = True
        if self._reader is not None:
            self._reader.stop()


def _is_whole(parts: ResultParts, goes_on: Callable[[], bool]) -> bool:
    """Whether the file of a long result has what was written to it. False if it could not be read to the end."""
    try:
        with open(parts.file, "rb") as file:
            for part in parts.by_name.values():
                if digest_of(file, part.offset, part.size, goes_on).hexdigest() != part.sha256:
                    return False
    except OSError:
        return False
    return True
