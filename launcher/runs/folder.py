"""Claims a folder for one run, before anything is written to it.

Rule: the lock in `.launcher` decides, and nothing is changed before it is held. A folder whose run is being driven is not taken, and a
journal that is being written is never moved. In a folder that the user named, the journal of an earlier run that has ended is renamed.
A folder that the user did not name (its name is the time) is used only once. If it exists, the next free one is taken.
"""

from __future__ import annotations

import enum
import os
import weakref
from errno import EACCES, ENOTDIR
from pathlib import Path

from launcher.errors import JournalError, RunError, UsageError
from launcher.runs.journal import FOLDER, JournalReader, lock_folder
from launcher.runs.journal_lock import driven, driver_of

__all__ = ["Claim", "Naming", "claim", "look"]

#: How many folders with the same name and a number are tried.
_MOST = 10_000


class Naming(enum.Enum):
    """Who chose a folder's name. This decides what happens if another run has the folder."""

    #: The user. If a run there is being driven, that is an error. The journal of a run that has ended is renamed.
    USER = "user"
    #: The user, with a time that may repeat. If a run there is being driven, the next free folder is taken.
    TIME = "time"
    #: Nobody, or a time to the second. If the folder has any run, the next free folder is taken.
    MOMENT = "moment"
    #: This package. If the folder exists, the next free one is taken.
    NEW = "new"


class Claim:
    """A folder that belongs to one run: its `.launcher` exists and is locked.

    Attributes:
        folder: the run's folder.
        earlier: the run that had it before, whose journal was renamed; None if there was none.
    """

    def __init__(self, folder: Path, lock: int, made: list[Path], earlier: str | None) -> None:
        self.folder = folder
        self.earlier = earlier
        self._lock = lock
        # If nobody releases the claim, the garbage collector does.
        self._release = weakref.finalize(self, _remove_unused, lock, made, os.getpid())

    def take_lock(self) -> int:
        """Return the lock, for the journal that begins now. The folder stays from now on."""
        self._release.detach()
        return self._lock

    def release(self) -> None:
        """Remove what was made for a run that did not begin, and nothing else. After `take_lock` this does nothing."""
        self._release()


def claim(folder: Path, naming: Naming) -> Claim:
    """Claim this folder for a new run, or a numbered one next to it.

    Raises:
        RunError: another run drives it.
        UsageError: it cannot be made or written.
    """
    for number in range(_MOST):
        candidate = folder if number == 0 else folder.with_name(f"{folder.name}.{number}")
        try:
            return _take(candidate, naming)
        except _Taken:
            continue
        except RunError:
            if naming is Naming.USER:
                raise
        except OSError as error:
            raise _unwritable(candidate, error.strerror) from None
    raise UsageError(f"{folder} and {_MOST} folders beside it are taken; name another one")


def look(folder: Path, naming: Naming) -> Path:
    """Return the folder that `claim` would take now, without making or changing anything.

    Raises:
        RunError: another run drives it.
        UsageError: it cannot be made or written.
    """
    for number in range(_MOST):
        candidate = folder if number == 0 else folder.with_name(f"{folder.name}.{number}")
        own = candidate / FOLDER
        if naming is Naming.NEW and os.path.lexists(candidate):
            continue
        _check_writable(own)
        driver = driver_of(own)
        if driver and naming is Naming.USER:
            raise driven(own, driver)
        if driver or (naming is Naming.MOMENT and (own / "journal.sqlite").exists()):
            continue
        return candidate
    raise UsageError(f"{folder} and {_MOST} folders beside it are taken; name another one")


def _check_writable(own: Path) -> None:
    there = next(path for path in (own, *own.parents) if os.path.lexists(path))
    problem = ENOTDIR if not there.is_dir() else EACCES if not os.access(there, os.W_OK | os.X_OK) else 0
    if problem:
        raise _unwritable(own.parent, os.strerror(problem))


def _unwritable(folder: Path, why: str | None) -> UsageError:
    return UsageError(
        f"results cannot be written to {folder}: {why}; name another folder (--folder, folder=, hydra.sweep.dir or hydra.run.dir)"
    )


class _Taken(Exception):
    """Another run has, or had, this folder."""


def _take(folder: Path, naming: Naming) -> Claim:
    own = folder / FOLDER
    earlier = None
    made: list[Path] = []
    folder.parent.mkdir(parents=True, exist_ok=True)
    if _make(folder, 0o777):
        made.append(folder)
    elif naming is Naming.NEW:
        raise _Taken
    # A process that only reads may hold the lock for a moment. Waiting is worthwhile only if the user named the folder.
    patience = 20 if naming is Naming.USER else 1
    while True:
        if _make(own, 0o700):
            made.append(own)
        try:
            lock = lock_folder(own, patience=patience)
        except FileNotFoundError:
            # Its owner has just removed or renamed it.
            folder.mkdir(parents=True, exist_ok=True)
            continue
        if not (own / "journal.sqlite").exists():
            return Claim(folder, lock, made, earlier)
        try:
            if naming is Naming.MOMENT:
                raise _Taken
            earlier = _run_of(own)
            os.rename(own, _free(folder / f"{FOLDER}.{earlier or 'damaged'}"))
        finally:
            os.close(lock)


def _make(folder: Path, mode: int) -> bool:
    try:
        folder.mkdir(mode=mode)
    except FileExistsError:
        if not folder.is_dir():
            raise
        return False
    return True


def _run_of(own: Path) -> str | None:
    """Return the run of a journal; None if it cannot be read, and then it is kept all the same."""
    try:
        with JournalReader(own) as reader:
            run = reader.meta().get("run", "unknown")
    except (RunError, JournalError):
        return None
    return run if run and "/" not in run and "\0" not in run and len(run) < 200 else None


def _free(path: Path) -> Path:
    for number in range(_MOST):
        candidate = path if number == 0 else path.with_name(f"{path.name}.{number}")
        if not os.path.lexists(candidate):
            return candidate
    raise UsageError(f"{path}: too many journals of earlier runs; remove some")


def _remove_unused(lock: int, made: list[Path], pid: int) -> None:
    if pid != os.getpid():
        return  # this is a fork of the owner
    try:
        for path in reversed(made):
            if path.name == FOLDER:
                (path / "lock").unlink(missing_ok=True)
            path.rmdir()
    except OSError:
        pass  # the folder is not empty any more, so it stays
    finally:
        os.close(lock)
