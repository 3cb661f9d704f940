"""Reads the journal of a run, in any process and thread, even while its controller writes it.

Rule: everything is checked when it is read, because the journal may be damaged or come from anywhere.
"""

from __future__ import annotations

import builtins
import json
import math
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from launcher.errors import JournalError, RunError
from launcher.events import AttemptEnded, Event, HookFired, JobReported, JobReturned, from_json
from launcher.runs.journal_format import (
    FOLDER,
    MALFORMED,
    StoredResult,
    StoredValue,
    cell_of,
    check_version,
    connect,
    damaged,
    named,
)
from launcher.util.text.terminal_text import clean, clean_all
from remote_agent.job import JobError
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.report import Report
from remote_agent.protocol.result_parts import ResultParts
from remote_agent.protocol.specs.job import JobSpec

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["JournalReader"]

#: Fields of events that are paths on this machine.
_PLACES = ("folder", "output_dir", "file")
#: Seconds since the epoch. Python's calendar cannot show later times.
_LATEST = 1e11
_TABLES = {"meta", "blobs", "jobs", "events", "results"}
T = TypeVar("T")


def _is(kind: type[T], value: Any) -> T:
    if type(value) is not kind:
        raise TypeError(f"{type(value).__name__} where {kind.__name__} was expected")
    return value


def _is_path(value: Any) -> str:
    path = os.fsdecode(value)
    if "\0" in path:
        raise ValueError("a path with a NUL")
    return path


def _is_object(text: Any) -> dict[str, Any]:
    value = json.loads(_is(str, text))
    if type(value) is not dict:
        raise TypeError(f"{type(value).__name__} where an object was expected")
    return value


def _clean_object(text: Any, besides: tuple[str, ...] = ()) -> dict[str, Any]:
    """The object, with its texts cleaned, but for some of its fields."""
    value = _is_object(text)
    # Without a backslash, the texts in JSON are what they are when decoded. What is printable is clean.
    if "\\" not in text and text.isprintable():
        return value
    return {**clean_all(value), **{name: value[name] for name in besides if isinstance(value.get(name), str)}}


def _texts_of(text: Any) -> tuple[str, ...]:
    value = json.loads(_is(str, text))
    if type(value) is not list or not all(type(one) is str for one in value):
        raise TypeError("not a list of texts")
    return tuple(value)


class JournalReader:
    """A reader of the journal. Any process may have one, and any thread may use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "journal.sqlite"
        if not self.path.is_file():
            raise RunError(f"{folder.parent} holds no run (no {FOLDER}/journal.sqlite)")
        self._guard = threading.Lock()
        self._connection: sqlite3.Connection | None = self._opened()

    def _opened(self) -> sqlite3.Connection:
        connection = connect(self.path, read_only=True)
        try:
            with named(self.folder):
                self._check_schema(connection)
                check_version(connection, self.path)
        except JournalError:
            connection.close()
            raise
        return connection

    @staticmethod
    def _check_schema(connection: sqlite3.Connection) -> None:
        """Check that it has our tables, and nothing that sqlite would run when it reads them."""
        # A view with the name of a table could run for ever.
        connection.execute("pragma trusted_schema=off")
        there = connection.execute("select type, name, sql from sqlite_master").fetchall()
        if not there:
            raise ValueError("it is empty: its run died before it began, or is just beginning")
        for kind, name, sql in there:
            if kind not in ("table", "index") or (sql is not None and "virtual" in _is(str, sql)[:40].lower()):
                raise ValueError(f"{str(name)[:100]!r} is not a table of the journal")
        missing = _TABLES.difference(name for kind, name, _ in there if kind == "table")
        if missing:
            raise ValueError(f"table {', '.join(sorted(missing))} is missing")

    def _rows(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._guard, named(self.folder):
            if self._connection is None:
                self._connection = self._opened()
            return self._connection.execute(statement, values).fetchall()

    def _decoded(self, decode: Callable[..., T], *values: Any) -> T:
        # Called for each event, so without a context manager.
        try:
            return decode(*values)
        except MALFORMED as error:
            raise damaged(self.folder, error) from None

    def check(self) -> None:
        """Check the whole journal before somebody acts on it: its pages, and what every job needs to be sent again.

        Raises:
            JournalError: it is damaged.
        """
        with named(self.folder):
            told = self._rows("pragma quick_check(1)")
            if told != [("ok",)]:
                raise ValueError(str(told[:1]))
            if self._rows("select 1 from jobs where typeof(payload) != 'blob' limit 1"):
                raise TypeError("a job without a payload")
        for (num,) in self._rows("select num from jobs"):
            self.job_without_payload(num)

    def number(self, key: str, default: float) -> float:
        """Return a number from the facts about the run."""

        def decode(text: str) -> float:
            value = float(text)
            if not math.isfinite(value) or abs(value) > _LATEST:
                raise ValueError(f"{key} is {text[:50]!r}")
            return value

        text = self.meta().get(key)
        return default if text is None else self._decoded(decode, text)

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts from the facts about the run; empty if there is none."""
        return self._decoded(_texts_of, self.meta().get(key, "[]"))

    def object(self, key: str) -> dict[str, Any]:
        """Return an object from the facts about the run; empty if there is none."""
        return self._decoded(_is_object, self.meta().get(key, "{}"))

    def meta(self) -> dict[str, str]:
        """Return the facts about the whole run."""
        rows = self._rows("select key, value from meta")
        return self._decoded(lambda: {_is(str, key): _is(str, value) for key, value in rows})

    def blob(self, name: str) -> bytes | None:
        """Return something large that was stored with the run."""
        rows = self._rows("select data from blobs where name=?", (name,))
        return self._decoded(_is, bytes, rows[0][0]) if rows else None

    def blob_names(self, prefix: str) -> list[str]:
        """Return the names of all blobs with this prefix."""
        rows = self._rows("select name from blobs where name >= ? and name < ?", (prefix, prefix + chr(0x10FFFF)))
        return [str(row[0]) for row in rows]

    def unhooked_returns(self, callbacks: int) -> Iterator[tuple[int, set[str]]]:
        """Yield the jobs that have returned and whose `on_job_return` has not ended in all of this many callbacks, in order
        of arrival. Each comes with the names of the callbacks in which it has ended.
        """
        rows = self._rows(
            "select r.num, r.s from (select num, max(seq) s from events where kind='job_returned' group by num) r left join "
            "events h on h.num = r.num and h.seq > r.s and h.kind = 'hook' and h.data like '%\"hook\":\"on_job_return\"%' "
            "group by r.num having count(h.seq) < ? order by r.s",
            (callbacks,),
        )
        known = self._decoded(lambda: [(_is(int, row[0]), _is(int, row[1])) for row in rows])
        for num, seq in known:
            if self.returned(num) is not None:
                fired = (event for _, event in self.events(after=seq, num=num) if isinstance(event, HookFired))
                yield num, {event.callback for event in fired if event.hook == "on_job_return"}

    def events(self, after: int = 0, num: int | None = None, batch: int = 5000) -> Iterator[tuple[int, Event]]:
        """Yield (sequence number, event) of all events after that number, in order. With `num`, only those of this job."""
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

    def events_of(self, *kinds: str) -> Iterator[tuple[int, Event]]:
        """Yield (sequence number, event) of all events of these kinds, in order."""
        marks = ",".join("?" * len(kinds))
        rows = self._rows(f"select seq, data from events where kind in ({marks}) order by seq", kinds)  # noqa: S608 - only marks
        for seq, data in rows:
            yield seq, self._decoded(_event, data)

    def reports(self, num: int) -> list[Report]:
        """Return what the last attempt of a job that has reported has reported, in order."""
        rows = self._rows("select data from events where num=? and kind='job_reported' order by seq", (num,))
        found = [event for event in (self._decoded(_event, row[0]) for row in rows) if isinstance(event, JobReported)]
        return [event.report for event in found if event.attempt == found[-1].attempt]

    def last_event_at(self) -> float | None:
        """Return when the latest event happened; None if there is none."""
        rows = self._rows("select data from events order by seq desc limit 1")
        return self._decoded(_event, rows[0][0]).at if rows else None

    def job(self, num: int) -> tuple[tuple[str, ...], str, bytes, JobSpec] | None:
        """Return (overrides, output_dir, payload, spec) of a job."""
        rows = self._rows("select overrides, output_dir, payload, spec from jobs where num=?", (num,))
        if not rows:
            return None
        overrides, output_dir, payload, spec = rows[0]
        return self._decoded(
            lambda: (
                _texts_of(overrides),
                _is_path(output_dir),
                _is(bytes, payload),
                JobSpec.from_journal(_is_object(spec)),
            ),
        )

    def job_without_payload(self, num: int) -> tuple[tuple[str, ...], str, JobSpec] | None:
        """Return (overrides, output_dir, spec) of a job."""
        rows = self._rows("select overrides, output_dir, spec from jobs where num=?", (num,))
        if not rows:
            return None
        overrides, output_dir, spec = rows[0]
        return self._decoded(
            lambda: (_texts_of(overrides), _is_path(output_dir), JobSpec.from_journal(_is_object(spec)))
        )

    def output_dirs(self) -> dict[int, str]:
        """Return the output directory of each job."""
        rows = self._rows("select num, output_dir from jobs")
        return self._decoded(lambda: {_is(int, num): _is_path(output_dir) for num, output_dir in rows})

    def payload(self, num: int) -> bytes:
        """Return the payload that a host gets for the job."""
        rows = self._rows("select payload from jobs where num=?", (num,))
        if not rows:
            raise JournalError(f"{self.path}: job {num} is not in it")
        return self._decoded(lambda: _is(bytes, rows[0][0]))

    def shares_folder(self, num: int, folder: Path) -> bool:
        """Whether another job writes to this folder, to one above it or to one below it."""
        above = [cell_of(str(one)) for one in (folder, *folder.parents)]
        below = (cell_of(f"{folder}/"), cell_of(f"{folder}0"))
        marks = ",".join("?" * len(above))
        return bool(
            self._rows(f"select 1 from jobs where num != ? and output_dir in ({marks}) limit 1", (num, *above))  # noqa: S608 - only marks
            or self._rows(
                "select 1 from jobs where num != ? and output_dir > ? and output_dir < ? limit 1", (num, *below)
            )
        )

    def last_num(self) -> int | None:
        """Return the highest number of a job; None if there is no job."""
        last = self._rows("select max(num) from jobs")[0][0]
        return None if last is None else self._decoded(_is, int, last)

    def first_free_num(self, first: int) -> int:
        """Return the lowest number from `first` on that no job has."""
        rows = self._rows(
            "select num + 1 from jobs j where num >= ? and not exists (select 1 from jobs where num = j.num + 1) and "
            "exists (select 1 from jobs where num = ?) order by num limit 1",
            (first, first),
        )
        return self._decoded(_is, int, rows[0][0]) if rows else first

    def nums_after(self, num: int) -> set[int]:
        """Return the numbers of the jobs above this one."""
        rows = self._rows("select num from jobs where num > ?", (num,))
        return self._decoded(lambda: {_is(int, row[0]) for row in rows})

    def all_returned(self) -> Iterator[JobReturned]:
        """Yield how each job ended that has returned and is not being run once more."""
        rows = self._rows("select distinct num from events where kind='job_returned' order by num")
        for (num,) in rows:
            event = self.returned(self._decoded(_is, int, num))
            if event is not None:
                yield event

    def planned_jobs(self) -> int | None:
        """Return how many jobs there will be; None if that was not known at the start."""
        meta = self.meta()
        if meta.get("open"):
            return None
        return max(int(self.number("total", 0)), self.count_jobs())

    def last_seq(self) -> int:
        """Return the number of the latest event; 0 if there is none."""
        return int(self._rows("select coalesce(max(seq), 0) from events")[0][0])

    def count_jobs(self) -> int:
        """Return how many jobs there are."""
        return int(self._rows("select count(*) from jobs")[0][0])

    def outcomes(self) -> dict[str, int]:
        """Return how many jobs have returned, by status, without those that are being run once more."""
        return self._outcomes("$.status")

    def kinds(self) -> dict[str, int]:
        """Return how many jobs have failed, by kind of error."""
        return self._outcomes("$.error.kind")

    def _outcomes(self, path: str) -> dict[str, int]:
        rows = self._rows(
            "select json_extract(e.data, ?), count(*) from events e join (select max(seq) s from events "
            "where kind in ('job_returned', 'job_retried') group by num) m on e.seq = m.s "
            "where e.kind = 'job_returned' group by 1",
            (path,),
        )
        return self._decoded(
            lambda: {clean(_is(str, value)): int(number) for value, number in rows if value is not None}
        )

    def last_event(self, *kinds: str) -> Event | None:
        """Return the latest event of these kinds."""
        marks = ",".join("?" * len(kinds))
        rows = self._rows(f"select data from events where kind in ({marks}) order by seq desc limit 1", kinds)  # noqa: S608 - only marks
        return self._decoded(_event, rows[0][0]) if rows else None

    def result(self, num: int, attempt: int) -> StoredResult | None:
        """Return an attempt's result."""
        rows = self._rows(
            "select num, attempt, host, envelope, parts, payload, file from results where num=? and attempt=?",
            (num, attempt),
        )
        if not rows:
            return None
        return self._decoded(_stored, rows[0])

    def last_values(self, batch: int = 500) -> Iterator[StoredValue]:
        """Yield what came back from the latest attempt of each job that has a result, in the order of the jobs."""
        last = -1
        while True:
            rows = self._rows(
                "select num, attempt, host, parts, payload, file from results r where num > ? and attempt = "
                "(select max(attempt) from results where num = r.num) order by num limit ?",
                (last, batch),
            )
            for row in rows:
                yield self._decoded(_value, row)
                last = row[0]
            if len(rows) < batch:
                return

    def returned(self, num: int) -> JobReturned | None:
        """Return how a job ended; None if it has not returned or is being run once more."""
        rows = self._rows(
            "select data from events where num=? and kind in ('job_returned', 'job_retried') order by seq desc limit 1",
            (num,),
        )
        event = self._decoded(_event, rows[0][0]) if rows else None
        if not isinstance(event, JobReturned):
            return None
        return self._decoded(_of_job, event, num)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: builtins.object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. It is opened again when something is read."""
        with self._guard:
            if self._connection is not None:
                self._connection.close()
            self._connection = None


def _of_job(event: JobReturned, num: int) -> JobReturned:
    if event.num != num:
        raise ValueError(f"an event of job {event.num} where one of job {num} was expected")
    return event


def _stored(row: tuple[Any, ...]) -> StoredResult:
    num, attempt, host, envelope, *rest = row
    value = _value((num, attempt, host, *rest))
    return StoredResult(*value[:3], Envelope.from_json(_clean_object(envelope)), *value[3:])


def _value(row: tuple[Any, ...]) -> StoredValue:
    num, attempt, host, parts, payload, file = row
    return StoredValue(
        _is(int, num),
        _is(int, attempt),
        clean(_is(str, host)),
        ResultParts.from_json(_is_object(parts)).without_file(),
        _is(bytes, payload),
        None if file is None else _is_path(file),
    )


def _event(text: Any) -> Event:
    # The journal may come from anywhere, or from a version that stored texts from hosts unchanged, so clean them. Paths on
    # this disk may have any name. They are cleaned when they are printed.
    event = from_json(_clean_object(text, _PLACES))
    if abs(event.at) > _LATEST:
        raise ValueError(f"an event at {event.at}")
    if isinstance(event, (AttemptEnded, JobReturned)):
        if event.status not in ("COMPLETED", "FAILED"):
            raise ValueError(f"status {event.status[:50]!r}")
        if event.error is not None:
            JobError.from_json(event.error)
    elif isinstance(event, JobReported):
        event.report  # noqa: B018 - this checks it
    return event
