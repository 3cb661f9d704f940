"""The durable history of a run: one sqlite file in the run's local folder.

Rule: it is written before a decision takes effect. `commit` returns when everything that was appended is on the disk. Until then
nobody acts on it. One process writes, and holds an exclusive lock on a file next to it. Others may read.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

from launcher import events
from launcher.errors import JournalError, JournalMoved, UsageError
from launcher.events import Event
from launcher.runs.journal_format import FOLDER, SCHEMA, VERSION, StoredResult, cell_of, check_version, connect, named
from launcher.runs.journal_lock import lock_folder
from launcher.runs.journal_reader import JournalReader
from launcher.util.frozen import frozen
from remote_agent.protocol.specs.job import JobSpec
from remote_agent.shared.disk import sync_fd

#: Users of the journal import these names from here.
__all__ = ["FOLDER", "Journal", "JournalReader", "Returned", "StoredResult", "lock_folder"]

#: Bytes. A larger result is in its own file next to the journal.
INLINE = 1 << 18
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class Journal:
    """The journal as the run's controller writes it, from one thread.

    Args:
        folder: the run's `.launcher`.
        lock: the lock of a folder that was claimed for a new run (`launcher.runs.folder`). Without it, the folder is locked here.

    Raises:
        UsageError: the folder cannot be made or written.
        RunError: another process holds the lock.
    """

    def __init__(self, folder: Path, lock: int | None = None) -> None:
        self.folder = folder
        self.path = folder / "journal.sqlite"
        try:
            if lock is None:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = lock_folder(folder)
            self._lock = lock
            exists = self.path.exists()
            if not exists:
                os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            raise UsageError(
                f"results cannot be written to {folder.parent}: {error.strerror}; name another folder "
                "(--folder, folder=, hydra.sweep.dir or hydra.run.dir)"
            ) from None
        try:
            with named(folder):
                self._connection = self._opened(exists=exists)
        except BaseException:
            os.close(lock)
            raise
        #: Path -> the file's identity, because another file may take its place.
        self._files_there: dict[str, tuple[int, int]] = {}
        self._is_confirmed = False
        #: Held while the connection is used, because sqlite crashes if another thread closes it in the meantime.
        self._guard = threading.Lock()
        self._is_closed = False
        self._events: list[tuple[str, int | None, str]] = []
        self._statements: list[tuple[str, tuple[Any, ...]]] = []
        #: Files of results that the next commit brings to the disk -> content that it writes first, or None.
        self._files: dict[str, bytes | None] = {}

    def _opened(self, *, exists: bool) -> sqlite3.Connection:
        connection = connect(self.path)
        try:
            if not exists or not connection.execute("select 1 from sqlite_master").fetchone():
                # The text has only constants.
                connection.executescript(
                    "begin;" + SCHEMA + f"insert into meta values ('version','{VERSION}');commit;"  # noqa: S608
                )
            check_version(connection, self.path)
            connection.execute("create index if not exists jobs_by_output_dir on jobs (output_dir)")
        except BaseException as error:
            connection.close()
            if not exists and isinstance(error, sqlite3.Error):
                raise JournalError(
                    f"{self.path}: {error}; nothing was sent; free some space there, or name another folder for the run"
                ) from None
            raise
        return connection

    def append(self, happened: list[Event]) -> None:
        """Append events. `commit` writes them."""
        for event in happened:
            data = event.to_json()
            num = data.get("num")
            self._events.append((event.kind, num, _to_json(data)))

    def put_job(self, num: int, overrides: tuple[str, ...], output_dir: str, payload: bytes, spec: JobSpec) -> None:
        """Store a job with everything that is needed to send it again."""
        self._statements.append(
            (
                "insert or replace into jobs values (?,?,?,?,?)",
                (num, json.dumps(overrides), cell_of(output_dir), payload, _to_json(spec.to_json())),
            )
        )

    def put_result(self, result: StoredResult) -> StoredResult:
        """Store an attempt's result. Returns it as it will be read: `commit` writes a long payload to a file."""
        if result.file is not None:
            self._files[result.file] = None
        elif len(result.payload) > INLINE:
            path = str(self.folder / "results" / f"{result.num}.{result.attempt}.result")
            self._files[path] = result.payload
            result = result._replace(payload=b"", file=path)
        self._statements.append(
            (
                "insert or replace into results values (?,?,?,?,?,?,?)",
                (
                    result.num,
                    result.attempt,
                    result.host,
                    _to_json(result.envelope.to_json()),
                    _to_json(result.parts.to_json()),
                    result.payload,
                    None if result.file is None else cell_of(result.file),
                ),
            )
        )
        return result

    def put_meta(self, **values: str) -> None:
        """Store facts about the whole run."""
        for key, value in values.items():
            self._statements.append(("insert or replace into meta values (?,?)", (key, value)))

    def put_blob(self, name: str, data: bytes) -> None:
        """Store something large that a resumed run needs."""
        self._statements.append(("insert or replace into blobs values (?,?)", (name, data)))

    def commit(self) -> None:
        """Bring everything appended so far to the disk.

        Raises:
            JournalError: it could not be written. What was appended is kept, and the next commit writes it.
            JournalMoved: the journal is not in its place, so nobody would find what was written. The next commit raises it again.
        """
        with self._guard:
            if self._is_closed:
                raise JournalError(f"{self.path}: it is closed already, and nothing more can be written to it")
            self._commit()

    def _commit(self) -> None:
        if self._events or self._statements:
            self._check_place()
            self._write()
            self._is_confirmed = False
        if not self._is_confirmed:
            # It may have been removed while it was written, and then nobody can find it.
            self._check_place()
            self._is_confirmed = True

    def _write(self) -> None:
        self._write_files()
        try:
            cursor = self._connection.cursor()
            cursor.execute("begin immediate")
            try:
                for statement, values in self._statements:
                    cursor.execute(statement, values)
                cursor.executemany("insert into events (kind, num, data) values (?,?,?)", self._events)
                cursor.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    cursor.execute("rollback")
                raise
        except sqlite3.Error as error:
            raise JournalError(f"{self.path}: {error}") from None
        self._events = []
        self._statements = []

    @property
    def is_in_place(self) -> bool:
        """Whether the journal is in its place, with everything that was written. Any thread may ask."""
        return all(_identity(path) == known for path, known in list(self._files_there.items()))

    def _check_place(self) -> None:
        if not self.is_in_place:
            raise JournalMoved(
                f"{self.path}: it was removed, moved or replaced during the run, and what is written now would be lost"
            )
        for path in (str(self.path), f"{self.path}-wal"):
            if path not in self._files_there and (found := _identity(path)) is not None:
                self._files_there[path] = found

    def _write_files(self) -> None:
        """Bring the files of results to the disk, before the journal says that they exist."""
        for path, data in list(self._files.items()):
            try:
                if data is not None:
                    _write_private(Path(path), data)
                else:
                    _sync(path)
                    _sync(str(Path(path).parent))
            except OSError as error:
                raise JournalError(f"{path}: {error.strerror or error}") from None
            del self._files[path]

    def close(self) -> None:
        """Write what is left, merge the log into the file, and release the lock."""
        with self._guard:
            if not self._is_closed:
                self._is_closed = True
                self._close()

    def _close(self) -> None:
        try:
            self._commit()
            with contextlib.suppress(sqlite3.Error):
                # A reader may hold the log. Then the next opening merges it.
                self._connection.execute("pragma wal_checkpoint(truncate)")
                # Use no log from now on, because a reader would make one and could not remove it. Do not wait for readers.
                self._connection.execute("pragma busy_timeout=0")
                self._connection.execute("pragma journal_mode=delete")
        finally:
            self._connection.close()
            os.close(self._lock)


def _identity(path: str) -> tuple[int, int] | None:
    """Return the identity of the file at a path; None if there is none."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _write_private(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        sync_fd(file.fileno())
    _sync(str(path.parent))


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_fd(fd)
    finally:
        os.close(fd)


@frozen
class Returned:
    """A job that has its JobReturn. `stored` is None if no host ever sent a result; `payload` is None if only the journal has it."""

    event: events.JobReturned
    stored: StoredResult | None
    output_dir: Path
    payload: bytes | None = None
