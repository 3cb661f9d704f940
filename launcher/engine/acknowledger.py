"""Acknowledges to hosts what is durable here, in rounds: files to the disk first, then the hosts may forget.

Rule: what was not synced is not acknowledged, nor what nobody would find; what is not acknowledged is sent again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from remote_agent.shared.disk import sync_fd

__all__ = ["Acknowledger", "Acknowledging"]

#: Seconds between two rounds.
_EVERY = 1.0


class Acknowledging(Protocol):
    """A session, as far as it concerns us."""

    def acknowledge(self, attempts: list[str]) -> None:
        """Tell the host that it may forget these."""


class Acknowledger:
    """A thread that gathers for a while, syncs once, and acknowledges the lot.

    Args:
        folder: the run's folder; its file system is what has to be on the disk.
        fail: called with what the thread died of.
        is_safe: the journal is where it was; until then nothing is acknowledged.
    """

    def __init__(
        self,
        sessions: Mapping[str, Acknowledging],
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
        """A round now."""
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
        """All is on the disk, and the journal is where it was, before and after."""
        if not self._is_safe():
            return False
        try:
            _sync_files(folders)
        except FileNotFoundError:
            return False  # moved or removed in this very moment, or a folder of files that somebody has removed
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
                # Let more come together, unless it is over.
                self._condition.wait_for(lambda: self._stop, _EVERY)
                if self._stop:
                    return
            self.flush()


def _sync_files(folders: set[Path]) -> None:
    """Bring written files to the disk: the file systems of these folders where that can be told, else all."""
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        for folder in folders:
            fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if libc.syncfs(fd) != 0:
                    raise OSError(ctypes.get_errno(), "syncfs")
            finally:
                os.close(fd)
    except (OSError, AttributeError):
        os.sync()
        # On macOS that goes as far as the disk's own cache; this empties it.
        for folder in folders:
            fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                sync_fd(fd)
            finally:
                os.close(fd)
