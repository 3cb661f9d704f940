"""The format of a run's journal, one sqlite file in the run's `.launcher`: how it is opened, written and checked for damage.

Rule: it has a version, and an unknown version is refused.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from launcher.errors import JournalError
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.result_parts import ResultParts

__all__ = ["FOLDER", "SCHEMA", "VERSION", "StoredResult", "cell_of", "check_version", "connect", "named"]

FOLDER = ".launcher"
VERSION = 1

SCHEMA = """
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

#: Exceptions that decoding damaged data may raise.
MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    sqlite3.Error,
)


class StoredResult(NamedTuple):
    """A result as the host sent it: a checked envelope, and opaque bytes, inline or in a file."""

    num: int
    attempt: int
    host: str
    envelope: Envelope
    parts: ResultParts
    payload: bytes
    file: str | None


class StoredValue(NamedTuple):
    """What a stored result has but for its envelope, which tables do not need: to check it takes as long as all else of it."""

    num: int
    attempt: int
    host: str
    parts: ResultParts
    payload: bytes
    file: str | None


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a journal's file.

    Raises:
        JournalError: it cannot be opened.
    """
    path = path.absolute()  # a relative `file:x` or `:memory:` would mean something else
    try:
        if read_only:
            # Quote the path, because `?`, `#` and `%41` have a meaning in a URI.
            quoted = urllib.parse.quote_from_bytes(os.fsencode(path))
            connection = sqlite3.connect(f"file://{quoted}?mode=ro", uri=True, timeout=30, check_same_thread=False)
        else:
            connection = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma synchronous=full")
            connection.execute("pragma fullfsync=on")  # for macOS; it does nothing elsewhere
    except sqlite3.Error as error:
        raise JournalError(f"{path}: {error}") from None
    return connection


def cell_of(path: str) -> str | bytes:
    """Return a path as the journal stores it: as text, or as bytes if it is not valid text."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


def check_version(connection: sqlite3.Connection, path: Path) -> None:
    """Check that this version can read the journal.

    Raises:
        JournalError: it has another version.
    """
    row = connection.execute("select value from meta where key='version'").fetchone()
    if row is None or row[0] != str(VERSION):
        raise JournalError(f"{path}: journal of version {row[0] if row else '?'}; this launcher reads {VERSION}")


@contextlib.contextmanager
def named(folder: Path) -> Iterator[None]:
    """Within this context, errors of a journal name its folder."""
    try:
        yield
    except MALFORMED as error:
        raise damaged(folder, error) from None


def damaged(folder: Path, error: Exception) -> JournalError:
    """The error of a journal whose reading raised this one."""
    return JournalError(
        f"{folder.parent}: its journal ({folder.name}/journal.sqlite) is damaged, or another program wrote it: "
        f"{type(error).__name__}: {str(error)[:300]}; it cannot be relied on (a copy of the folder may be intact; "
        "the other files in the folder are not touched)"
    )
