"""Tells hosts in rounds what is durable here. Files are synced to the disk first; then the hosts may forget the results.

Rule: a result that is not on the disk, or that nobody would find there, is not acknowledged. Its host sends it again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from remote_agent.shared.disk import sync_fd

if TYPE_CHECKING:
    from launcher.agents.connection import AgentConnection

__all__ = ["Acknowledger"]

#: Seconds between two rounds.
_EVERY = 1.0


class Acknowledger:
    """A thread that gathers attempts for a second, syncs the disk once, and acknowledges them all.

    Args:
        folder: the run's folder; its file system is what has to be on the disk.
        fail: called with what the thread died of.
        is_safe: tells whether the journal is still in its place; while it is not, nothing is acknowledged.
    """

    def __init__(
        self,
        sessions: Mapping[str, AgentConnection],
        folder: Path,
        fail: Callable[[BaseException], None],
        is_safe: Callable[[], bool] = lambda: True,
    ) -> None:
        self._sessions = sessions
        self._fail = fail
        self._folder = folder
        self._is_safe = is_safe
        self._waiting: list[tuple[str, str]] = []
        self._elsewhere: dict[int, Path] = {}
        self._condition = threading.Condition()
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="acker", daemon=True)
        self._thread.start()

    def add(self, host: str, attempt: str) -> None:
        """This attempt may be forgotten by its host, after the next round."""
        with self._condition:
            self._waiting.append((host, attempt))
            self._condition.notify()

    def wrote_to(self, folder: Path) -> None:
        """Files were written there; it may be on another file system than the run's folder."""
        try:
            device = os.stat(folder).st_dev
        except OSError:
            return  # nothing was written after all, or it is gone again
        with self._condition:
            self._elsewhere.setdefault(device, folder)

    def flush(self) -> None:
        """Do a round now."""
        with self._condition:
            waiting, self._waiting = self._waiting, []
            elsewhere, self._elsewhere = list(self._elsewhere.values()), {}
        if not waiting:
            return
        if not self._synced({self._folder, *elsewhere}):
            with self._condition:
                self._waiting = waiting + self._waiting
            return
        by_host: dict[str, list[str]] = {}
        for host, attempt in waiting:
            by_host.setdefault(host, []).append(attempt)
        for host, attempts in by_host.items():
            session = self._sessions.get(host)
            if session is not None:
                for start in range(0, len(attempts), 1000):
                    session.acknowledge(attempts[start : start + 1000])

    def _synced(self, folders: set[Path]) -> bool:
        """Sync the disk; True if that worked and the journal was in its place before and after."""
        if not self._is_safe():
            return False
        try:
            _sync_files(folders)
        except FileNotFoundError:
            return False  # the run's folder, or one of its output folders, was moved or removed meanwhile
        return self._is_safe()

    def stop(self) -> None:
        """End the thread after a last round."""
        with self._condition:
            self._stop = True
            self._condition.notify()
        self._thread.join()
        self.flush()

    def stop_at_once(self) -> None:
        """End the thread without a last round: hosts keep what was not acknowledged."""
        with self._condition:
            self._waiting.clear()
            self._stop = True
            self._condition.notify()

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:  # noqa: BLE001 - hosts would keep everything, and nobody would know why
            self._fail(error)

    def _loop(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._stop)
                # Wait for more, unless the thread is to end.
                self._condition.wait_for(lambda: self._stop, _EVERY)
                if self._stop:
                    return
            self.flush()


def _sync_files(folders: set[Path]) -> None:
    """Sync the file systems of these folders; where the system cannot sync one alone, sync all."""
    for folder in folders:
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if not _is_synced_alone(fd):
                os.sync()
                # On macOS that goes as far as the disk's own cache; this empties it.
                sync_fd(fd)
        finally:
            os.close(fd)


def _is_synced_alone(fd: int) -> bool:
    import ctypes

    try:
        return bool(ctypes.CDLL(None).syncfs(fd) == 0)
    except (OSError, AttributeError):
        return False
