"""What happened to a run, durable: one sqlite file in the run's local folder.

Rule: written before a decision takes effect. `commit` returns when everything appended before it is on the disk; until
then nobody acts on it. One process writes (an exclusive lock on a file beside it says so); others may read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import sqlite3
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from launcher.arriving_result import known_parts
from launcher.clean_text import clean, clean_all
from launcher.errors import JournalError, JournalMoved, RunError, UsageError
from launcher.events import AttemptEnded, Event, HookFired, JobReturned, from_json
from remote_agent.disk import sync_fd
from remote_agent.job import JobError
from remote_agent.shared.envelope import Envelope
from remote_agent.shared.job_spec import JobSpec

__all__ = ["FOLDER", "Journal", "JournalReader", "StoredResult", "lock_folder"]

FOLDER = ".launcher"
#: Fields of events that are paths of this machine.
_PLACES = ("folder", "output_dir", "file")
VERSION = 1
#: Bytes; a larger result lies in a file of its own beside the journal.
INLINE = 1 << 18
#: Seconds since the epoch; beyond it there is no calendar.
_LATEST = 1e11

_to_json = json.JSONEncoder(separators=(",", ":")).encode

_SCHEMA = """
create table meta (key text primary key, value text) without rowid;
create table blobs (name text primary key, data blob) without rowid;
create table jobs (num integer primary key, overrides text, output_dir text, payload blob, spec text);
create table events (seq integer primary key, kind text, num integer, data text);
create index jobs_by_output_dir on jobs (output_dir);
create index events_by_num on events (num) where num is not null;
create table results (
    num integer, attempt integer, host text, envelope text, parts text, payload blob, file text,
    primary key (num, attempt)
) without rowid;
"""


class StoredResult(NamedTuple):
    """A result as the host sent it: a checked envelope, and opaque bytes inline or in a file."""

    num: int
    attempt: int
    host: str
    envelope: Envelope
    parts: dict[str, Any]
    payload: bytes
    file: str | None


def _connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    path = path.absolute()  # `file:x` or `:memory:` would mean something else
    try:
        if read_only:
            # In a URI `?` begins the parameters, `#` the end, `%41` is a letter.
            quoted = urllib.parse.quote_from_bytes(os.fsencode(path))
            connection = sqlite3.connect(f"file://{quoted}?mode=ro", uri=True, timeout=30, check_same_thread=False)
        else:
            connection = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma synchronous=full")
            connection.execute("pragma fullfsync=on")  # on macOS; nothing elsewhere
    except sqlite3.Error as error:
        raise JournalError(f"{path}: {error}") from None
    return connection


class Journal:
    """The journal as its run's controller writes it, from one thread.

    Args:
        folder: the run's `.launcher`.
        lock: of a folder that was taken for a new run (`launcher.run_folder`); else it is locked here.

    Raises:
        UsageError: the folder cannot be made or written.
        RunError: another process has it.
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
            with _named(folder):
                self._connection = self._opened(exists=exists)
        except BaseException:
            os.close(lock)
            raise
        #: Which files these are, by their paths: others may come in their place.
        self._files_there: dict[str, tuple[int, int]] = {}
        self._is_confirmed = False
        self._events: list[tuple[str, int | None, str]] = []
        self._statements: list[tuple[str, tuple[Any, ...]]] = []
        #: Files of results that the next commit brings to the disk; content that it writes first, or None.
        self._files: dict[str, bytes | None] = {}

    def _opened(self, *, exists: bool) -> sqlite3.Connection:
        connection = _connect(self.path)
        try:
            if not exists or not connection.execute("select 1 from sqlite_master").fetchone():
                # Constants of this module, and nothing else.
                connection.executescript(
                    "begin;" + _SCHEMA + f"insert into meta values ('version','{VERSION}');commit;"  # noqa: S608
                )
            _check_version(connection, self.path)
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
        """Put events behind the others; `commit` writes them."""
        for event in happened:
            data = event.to_json()
            num = data.get("num")
            self._events.append((event.kind, num, _to_json(data)))

    def put_job(self, num: int, overrides: tuple[str, ...], output_dir: str, payload: bytes, spec: JobSpec) -> None:
        """A job, as it must be known to be sent again."""
        self._statements.append(
            (
                "insert or replace into jobs values (?,?,?,?,?)",
                (num, json.dumps(overrides), _cell(output_dir), payload, _to_json(spec.to_json())),
            )
        )

    def put_result(self, result: StoredResult) -> StoredResult:
        """What an attempt brought; returns it as it will be read: a long payload lies in a file, written by `commit`."""
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
                    _to_json(result.parts),
                    result.payload,
                    None if result.file is None else _cell(result.file),
                ),
            )
        )
        return result

    def put_meta(self, **values: str) -> None:
        """Facts about the run as a whole."""
        for key, value in values.items():
            self._statements.append(("insert or replace into meta values (?,?)", (key, value)))

    def put_blob(self, name: str, data: bytes) -> None:
        """Something large that the run needs to be resumed."""
        self._statements.append(("insert or replace into blobs values (?,?)", (name, data)))

    def commit(self) -> None:
        """Bring everything appended so far to the disk.

        Raises:
            JournalError: it could not be written; what was appended is kept and written by the next commit.
            JournalMoved: it is not where it was, so that nobody would find what was written; told again by the next commit.
        """
        if self._events or self._statements:
            self._check_place()
            self._write()
            self._is_confirmed = False
        if not self._is_confirmed:
            # It may have been removed while it was written: what nobody can find is not safe.
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
        """Whoever looks for it finds it, and all that was written. For any thread."""
        return all(_identity(path) == known for path, known in list(self._files_there.items()))

    def _check_place(self) -> None:
        if not self.is_in_place:
            raise JournalMoved(
                f"{self.path}: it was removed, moved or replaced while the run goes on, and what is written now would be lost"
            )
        for path in (str(self.path), f"{self.path}-wal"):
            if path not in self._files_there and (found := _identity(path)) is not None:
                self._files_there[path] = found

    def _write_files(self) -> None:
        """A result's file is on the disk before the journal says that it is there."""
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
        """Write what is left, fold the log into the file, let go of the lock."""
        try:
            self.commit()
            with contextlib.suppress(sqlite3.Error):
                # A reader may hold the log; it is folded in by the next opening then.
                self._connection.execute("pragma wal_checkpoint(truncate)")
        finally:
            self._connection.close()
            os.close(self._lock)


def _identity(path: str) -> tuple[int, int] | None:
    """Which file lies there; None where none does."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _cell(path: str) -> str | bytes:
    """A path as the journal keeps it: as text, or as bytes where it is none."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


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


def lock_folder(folder: Path, *, patience: int = 20) -> int:
    """The lock of a run's `.launcher`, for its one writer; the descriptor holds it until it is closed.

    Args:
        patience: how often to try again, some hundredths of a second apart: whoever only looks has it for a moment.

    Raises:
        RunError: somebody drives the run.
        OSError: the folder is not there, or cannot be written.
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
        # It was renamed or removed between the two: what is locked is nobody's any more.
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
    owner = os.pread(fd, 100, 0).decode("utf-8", "replace").strip()
    if owner == f"pid {os.getpid()}":
        raise RunError(
            f"{folder.parent}: another run of this process has this folder, and goes on; name another folder for this one, "
            "or end that one first"
        )
    raise RunError(
        f"{folder.parent}: the run is driven by another process ({owner or 'unknown'}); "
        "end that one first, name another folder, or look with 'launcher show'"
    )


def _is_still(fd: int, path: Path) -> bool:
    """The path names the open file."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    row = connection.execute("select value from meta where key='version'").fetchone()
    if row is None or row[0] != str(VERSION):
        raise JournalError(f"{path}: journal of version {row[0] if row else '?'}; this launcher reads {VERSION}")


#: What decoding damaged data may raise.
_MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    sqlite3.Error,
)
_TABLES = {"meta", "blobs", "jobs", "events", "results"}
T = TypeVar("T")


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """What is wrong with a journal is told with its folder."""
    try:
        yield
    except _MALFORMED as error:
        raise JournalError(
            f"{folder.parent}: its journal ({folder.name}/journal.sqlite) is damaged, or not one of ours: "
            f"{type(error).__name__}: {str(error)[:300]}; what it holds cannot be relied on (a copy of the folder may be whole; "
            "what else lies in the folder is not touched)"
        ) from None


def _is_text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"{type(value).__name__} where text was expected")
    return value


def _is_bytes(value: Any) -> bytes:
    if type(value) is not bytes:
        raise TypeError(f"{type(value).__name__} where bytes were expected")
    return value


def _is_whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{type(value).__name__} where a whole number was expected")
    return value


def _is_path(value: Any) -> str:
    path = os.fsdecode(value)
    if "\0" in path:
        raise ValueError("a path with a NUL")
    return path


def _is_object(text: Any) -> dict[str, Any]:
    value = json.loads(_is_text(text))
    if type(value) is not dict:
        raise TypeError(f"{type(value).__name__} where an object was expected")
    return value


def _texts_of(text: Any) -> tuple[str, ...]:
    value = json.loads(_is_text(text))
    if type(value) is not list or not all(type(one) is str for one in value):
        raise TypeError("no list of texts")
    return tuple(value)


def _parts_of(text: Any) -> dict[str, Any]:
    parts = known_parts(_is_object(text))
    for name, part in parts.items():
        if name != "codec" and not all(_is_whole(part.get(key)) >= 0 for key in ("offset", "size")):
            raise ValueError(f"{name} lies nowhere")
    return parts


class JournalReader:
    """The journal as anybody may read it, from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "journal.sqlite"
        if not self.path.is_file():
            raise RunError(f"{folder.parent} holds no run (no {FOLDER}/journal.sqlite)")
        self._connection = _connect(self.path, read_only=True)
        self._guard = threading.Lock()
        try:
            with _named(folder):
                self._check_schema()
                _check_version(self._connection, self.path)
        except JournalError:
            self._connection.close()
            raise

    def _check_schema(self) -> None:
        """It has our tables and nothing that sqlite would run when it reads them."""
        # A view by the name of a table could go on for ever.
        self._connection.execute("pragma trusted_schema=off")
        there = self._connection.execute("select type, name, sql from sqlite_master").fetchall()
        if not there:
            raise ValueError("nothing is in it: its run died before it began, or begins just now")
        for kind, name, sql in there:
            if kind not in ("table", "index") or (sql is not None and "virtual" in _is_text(sql)[:40].lower()):
                raise ValueError(f"{str(name)[:100]!r} is no table of ours")
        missing = _TABLES.difference(name for kind, name, _ in there if kind == "table")
        if missing:
            raise ValueError(f"table {', '.join(sorted(missing))} is missing")

    def _rows(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._guard, _named(self.folder):
            return self._connection.execute(statement, values).fetchall()

    def _decoded(self, decode: Callable[..., T], *values: Any) -> T:
        with _named(self.folder):
            return decode(*values)

    def check(self) -> None:
        """Look through all of it, before somebody acts on it: pages, and what every job needs to be sent again.

        Raises:
            JournalError: it is damaged.
        """
        with _named(self.folder):
            told = self._rows("pragma quick_check(1)")
            if told != [("ok",)]:
                raise ValueError(str(told[:1]))
            if self._rows("select 1 from jobs where typeof(payload) != 'blob' limit 1"):
                raise TypeError("a job without a payload")
        for (num,) in self._rows("select num from jobs"):
            self.job_without_payload(num)

    def number(self, key: str, default: float) -> float:
        """A number among the facts about the run."""

        def decode(text: str) -> float:
            value = float(text)
            if not math.isfinite(value) or abs(value) > _LATEST:
                raise ValueError(f"{key} is {text[:50]!r}")
            return value

        text = self.meta().get(key)
        return default if text is None else self._decoded(decode, text)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts among the facts about the run; empty where there is none."""
        return self._decoded(_texts_of, self.meta().get(key, "[]"))

    def object(self, key: str) -> dict[str, Any]:
        """An object among the facts about the run; empty where there is none."""
        return self._decoded(_is_object, self.meta().get(key, "{}"))

    def meta(self) -> dict[str, str]:
        """Facts about the run as a whole."""
        rows = self._rows("select key, value from meta")
        return self._decoded(lambda: {_is_text(key): _is_text(value) for key, value in rows})

    def blob(self, name: str) -> bytes | None:
        """Something large that the run was given."""
        rows = self._rows("select data from blobs where name=?", (name,))
        return self._decoded(_is_bytes, rows[0][0]) if rows else None

    def blob_names(self, prefix: str) -> list[str]:
        """The names of all blobs that begin so."""
        rows = self._rows("select name from blobs where name >= ? and name < ?", (prefix, prefix + chr(0x10FFFF)))
        return [str(row[0]) for row in rows]

    def unhooked_returns(self, callbacks: int) -> Iterator[tuple[int, set[str]]]:
        """Jobs that have returned, and whose `on_job_return` did not come to its end in so many callbacks, in order of arrival;
        each with the names of those in which it did.
        """
        rows = self._rows(
            "select r.num, r.s from (select num, max(seq) s from events where kind='job_returned' group by num) r left join "
            "events h on h.num = r.num and h.seq > r.s and h.kind = 'hook' and h.data like '%\"hook\":\"on_job_return\"%' "
            "group by r.num having count(h.seq) < ? order by r.s",
            (callbacks,),
        )
        known = self._decoded(lambda: [(_is_whole(row[0]), _is_whole(row[1])) for row in rows])
        for num, seq in known:
            if self.returned(num) is not None:
                fired = (event for _, event in self.events(after=seq, num=num) if isinstance(event, HookFired))
                yield num, {event.callback for event in fired if event.hook == "on_job_return"}

    def events(self, after: int = 0, num: int | None = None, batch: int = 5000) -> Iterator[tuple[int, Event]]:
        """(sequence number, event) of all events after that number, in order; of one job where num is given."""
        while True:
            if num is None:
                rows = self._rows("select seq, data from events where seq>? order by seq limit ?", (after, batch))
            else:
                rows = self._rows(
                    "select seq, data from events where num=? and seq>? order by seq limit ?", (num, after, batch)
                )
            for seq, data in rows:
                yield seq, self._decoded(_event, data)
                after = seq
            if len(rows) < batch:
                return

    def events_of(self, kind: str) -> Iterator[tuple[int, Event]]:
        """(sequence number, event) of all events of one kind, in order."""
        for seq, data in self._rows("select seq, data from events where kind=? order by seq", (kind,)):
            yield seq, self._decoded(_event, data)

    def job(self, num: int) -> tuple[tuple[str, ...], str, bytes, JobSpec] | None:
        """(overrides, output_dir, payload, spec) of a job."""
        rows = self._rows("select overrides, output_dir, payload, spec from jobs where num=?", (num,))
        if not rows:
            return None
        overrides, output_dir, payload, spec = rows[0]
        return self._decoded(
            lambda: (
                _texts_of(overrides),
                _is_path(output_dir),
                _is_bytes(payload),
                JobSpec.from_journal(_is_object(spec)),
            ),
        )

    def job_without_payload(self, num: int) -> tuple[tuple[str, ...], str, JobSpec] | None:
        """(overrides, output_dir, spec) of a job."""
        rows = self._rows("select overrides, output_dir, spec from jobs where num=?", (num,))
        if not rows:
            return None
        overrides, output_dir, spec = rows[0]
        return self._decoded(
            lambda: (_texts_of(overrides), _is_path(output_dir), JobSpec.from_journal(_is_object(spec)))
        )

    def payload(self, num: int) -> bytes:
        """What is sent to a host as the job."""
        rows = self._rows("select payload from jobs where num=?", (num,))
        if not rows:
            raise JournalError(f"{self.path}: job {num} is not in it")
        return self._decoded(_is_bytes, rows[0][0])

    def shares_folder(self, num: int, folder: Path) -> bool:
        """Another job writes to this folder, to one above it or to one below it."""
        above = [_cell(str(one)) for one in (folder, *folder.parents)]
        below = (_cell(f"{folder}/"), _cell(f"{folder}0"))
        marks = ",".join("?" * len(above))
        return bool(
            self._rows(f"select 1 from jobs where num != ? and output_dir in ({marks}) limit 1", (num, *above))  # noqa: S608 - only marks
            or self._rows(
                "select 1 from jobs where num != ? and output_dir > ? and output_dir < ? limit 1", (num, *below)
            )
        )

    def last_num(self) -> int | None:
        """The highest number of a job; None while there is none."""
        last = self._rows("select max(num) from jobs")[0][0]
        return None if last is None else self._decoded(_is_whole, last)

    def all_returned(self) -> Iterator[JobReturned]:
        """How each job ended that did and is not being run once more."""
        rows = self._rows("select distinct num from events where kind='job_returned' order by num")
        for (num,) in rows:
            event = self.returned(self._decoded(_is_whole, num))
            if event is not None:
                yield event

    def planned_jobs(self) -> int | None:
        """How many jobs there will be, as far as was known at the start; None where nobody knew."""
        meta = self.meta()
        if meta.get("open"):
            return None
        return max(int(self.number("total", 0)), self.count_jobs())

    def last_seq(self) -> int:
        """The number of the latest event; 0 while there is none."""
        return int(self._rows("select coalesce(max(seq), 0) from events")[0][0])

    def count_jobs(self) -> int:
        """How many jobs there are."""
        return int(self._rows("select count(*) from jobs")[0][0])

    def outcomes(self) -> dict[str, int]:
        """How many jobs have returned, by status; those that are run once more are not among them."""
        return self._outcomes("$.status")

    def kinds(self) -> dict[str, int]:
        """How many jobs have failed, by kind of error."""
        return self._outcomes("$.error.kind")

    def _outcomes(self, path: str) -> dict[str, int]:
        rows = self._rows(
            "select json_extract(e.data, ?), count(*) from events e join (select max(seq) s from events "
            "where kind in ('job_returned', 'job_retried') group by num) m on e.seq = m.s "
            "where e.kind = 'job_returned' group by 1",
            (path,),
        )
        return self._decoded(
            lambda: {clean(_is_text(value)): int(number) for value, number in rows if value is not None}
        )

    def last_event(self, *kinds: str) -> Event | None:
        """The latest event of these kinds."""
        marks = ",".join("?" * len(kinds))
        rows = self._rows(f"select data from events where kind in ({marks}) order by seq desc limit 1", kinds)  # noqa: S608 - only marks
        return self._decoded(_event, rows[0][0]) if rows else None

    def result(self, num: int, attempt: int) -> StoredResult | None:
        """What an attempt brought."""
        rows = self._rows(
            "select num, attempt, host, envelope, parts, payload, file from results where num=? and attempt=?",
            (num, attempt),
        )
        if not rows:
            return None
        num, attempt, host, envelope, parts, payload, file = rows[0]
        return self._decoded(
            lambda: StoredResult(
                _is_whole(num),
                _is_whole(attempt),
                clean(_is_text(host)),
                Envelope.from_json(clean_all(_is_object(envelope))),
                _parts_of(parts),
                _is_bytes(payload),
                None if file is None else _is_path(file),
            )
        )

    def returned(self, num: int) -> JobReturned | None:
        """How a job ended, if it did and is not being run once more."""
        rows = self._rows(
            "select data from events where num=? and kind in ('job_returned', 'job_retried') order by seq desc limit 1",
            (num,),
        )
        event = self._decoded(_event, rows[0][0]) if rows else None
        return event if isinstance(event, JobReturned) else None

    def close(self) -> None:
        """Close the file."""
        with self._guard:
            self._connection.close()


def _event(text: Any) -> Event:
    # The journal may have come from anywhere, or from a version that took texts of hosts as they were.
    # Places on this disk may have any name, and are cleaned where they are printed.
    data = _is_object(text)
    event = from_json({**clean_all(data), **{name: data[name] for name in _PLACES if isinstance(data.get(name), str)}})
    if abs(event.at) > _LATEST:
        raise ValueError(f"an event at {event.at}")
    if isinstance(event, (AttemptEnded, JobReturned)):
        if event.status not in ("COMPLETED", "FAILED"):
            raise ValueError(f"status {event.status[:50]!r}")
        if event.error is not None:
            JobError.from_json(event.error)
    return event
