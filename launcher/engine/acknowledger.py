"""Tells hosts, in rounds, what is durable here. It first syncs the files to the disk; then the hosts may forget the results.

Rule: a result is not acknowledged if it is not on the disk, or if nobody would find it there. Its host sends it again.
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
    """A thread that collects attempts for a second, syncs the disk once, and acknowledges them all.

    Args:
        folder: the run's folder, whose file system is synced.
        fail: called with the exception that ended the thread.
        is_safe: whether the journal is still in its place. If it is not, nothing is acknowledged.
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
        """Let the host forget this attempt after the next round."""
        with self._condition:
            self._waiting.append((host, attempt))
            self._condition.notify()

    def wrote_to(self, folder: Path) -> None:
        """Record that files were written there, because it may be on another file system than the run's folder."""
        try:
            device = os.stat(folder).st_dev
        except OSError:
            return  # nothing was written in the end, or the folder is gone again
        with self._condition:
            self._elsewhere.setdefault(device, folder)

    def flush(self) -> None:
        """Run a round now."""
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
        """Sync the disk. Returns whether that worked and the journal was in its place before and after."""
        if not self._is_safe():
            return False
        try:
            _sync_files(folders)
        except FileNotFoundError:
            return False  # the run's folder, or one of its output folders, was moved or removed in the meantime
        return self._is_safe()

    def stop(self) -> None:
        """End the thread after a last round."""
        with self._condition:
            self._stop = True
            self._condition.notify()
        self._thread.join()
        self.flush()

    def stop_at_once(self) -> None:
        """End the thread without a last round. Hosts keep what was not acknowledged."""
        with self._condition:
            self._waiting.clear()
            self._stop = True
            self._condition.notify()

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:  # noqa: BLE001 - otherwise hosts would keep everything, and nobody would know why
            self._fail(error)

    def _loop(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._stop)
                # Wait for more, unless the thread should end.
                self._condition.wait_for(lambda: self._stop, _EVERY)
                if self._stop:
                    return
            self.flush()


def _sync_files(folders: set[Path]) -> None:
    """Sync the file systems of these folders. If the system cannot sync a single one, sync all."""
    for folder in folders:
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if not _is_synced_alone(fd):
                os.sync()
                # On macOS, sync() stops at the disk's own cache. This flushes it.
                sync_fd(fd)
        finally:
            os.close(fd)


def _is_synced_alone(fd: int) -> bool:
    import ctypes

    try:
        return bool(ctypes.CDLL(None).syncfs(fd) == 0)
    except (OSError, AttributeError):
        return False
