"""The lock of a run's `.launcher`. Only the process that holds it writes the journal.

Rule: it is a lock of the operating system on a file next to the journal, so it ends with its process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

from launcher.errors import RunError
from launcher.util.text.terminal_text import clean

__all__ = ["driven", "driver_of", "lock_folder"]


def lock_folder(folder: Path, *, patience: int = 20) -> int:
    """Lock a run's `.launcher` for its one writer. Returns a descriptor, which holds the lock until it is closed.

    Args:
        patience: how often to try again, with pauses of 20 ms, because a process that only looks holds it for a moment.

    Raises:
        RunError: another process drives the run.
        OSError: the folder does not exist, or cannot be written.
    """
    while True:
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _lock(fd, folder, patience)
            if _is_still(fd, folder / "lock"):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"pid {os.getpid()}\n".encode(), 0)
                return fd
        except BaseException:
            os.close(fd)
            raise
        # The file was renamed or removed in between, so this lock protects nothing.
        os.close(fd)


def _lock(fd: int, folder: Path, patience: int) -> None:
    for left in range(patience, -1, -1):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            if left:
                threading.Event().wait(0.02)
    raise driven(folder, _owner(fd))


def _owner(fd: int) -> str:
    return clean(os.pread(fd, 100, 0).decode("utf-8", "replace")).strip() or "unknown"


def driven(folder: Path, owner: str) -> RunError:
    """Return the error for a folder whose run this process (`pid N`) drives."""
    if owner == f"pid {os.getpid()}":
        return RunError(
            f"{folder.parent}: another run of this process is using this folder; name another folder for this one, or "
            "end that one first"
        )
    return RunError(
        f"{folder.parent}: the run is driven by another process ({owner}); "
        "end that one first, name another folder, or look with 'launcher show'"
    )


def driver_of(folder: Path) -> str:
    """Return the process that drives the run with this `.launcher` (`pid N`); empty if there is none.

    Raises:
        RunError: its lock cannot be opened.
    """
    path = folder / "lock"
    try:
        # O_NONBLOCK, because somebody may have put a pipe there.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from None
    try:
        # This lock is shared and released at once. A controller that begins at this moment waits for it.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _owner(fd)
    finally:
        os.close(fd)
    return ""


def _is_still(fd: int, path: Path) -> bool:
    """Whether the path names the open file."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
