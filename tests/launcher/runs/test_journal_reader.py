"""A damaged journal is refused by name, or read as far as it can be read."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import launcher
from launcher.errors import JournalError, RunError
from launcher.report_page.facts import read_facts
from launcher.report_page.page import render
from launcher.reproduce.compare import recorded_outcome
from launcher.results.decoding import Decoder
from launcher.results.job_returns import load_returned
from launcher.runs import index, status
from launcher.runs import record as run_record
from launcher.runs.journal import Journal, JournalReader
from launcher.session.session import ResumedSession, SessionConf
from launcher.setup.from_journal import load_setup
from tests.examples import examples
from tests.specs import job_spec


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended: two jobs, one of which failed."""
    folder = tmp_path_factory.mktemp("whole") / "run"

    def task(config: Any) -> Any:
        if config.x == 2:
            raise ValueError("two")
        return config.x

    launcher.multirun(task, [{"x": 1}, {"x": 2}], folder=folder)
    return folder


def read_all(folder: Path) -> None:
    """Everything that commands read of a journal to show or resume its run."""
    entry = index.find(folder)
    status.read_status(entry)
    with JournalReader(entry.journal) as reader:
        for line in status.read_jobs(reader):
            line.to_json()
        record = run_record.read(reader)
        run_record.options_of(record, {})
        run_record.hosts_of(record, {})
        run_record.variables(record)
        render(read_facts(entry), folder)
        reader.check()
        for event in reader.all_returned():
            returned = load_returned(reader, event.num)
            assert returned.event == event
            recorded_outcome(reader, event.num, Decoder("never", pickle.loads, lambda policy: lambda name: None))
        for num in range(3):
            reader.job(num)
        list(reader.unhooked_returns(1))
        reader.planned_jobs()
        reader.outcomes()
        reader.kinds()
        reader.last_num()
        reader.last_event("run_started")
        list(reader.events_of("job_returned"))
        list(run_record.read_planned(reader, 0, lambda data: []))
        for name in ("shared", "manifest", "callbacks", "root_config"):
            reader.blob(name)


_JUNK = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.binary(max_size=8),
    st.text(max_size=8),
    st.sampled_from(
        ["{}", "[]", "[[]]", "{", "null", "1e999", '{"at": 1}', '"x"', "[" * 100_000, "9" * 5000, "-1", "NaN"]
    ),
)


_CELLS = [
    *(("meta", one) for one in ("key", "value")),
    *(("blobs", one) for one in ("name", "data")),
    *(("jobs", one) for one in ("overrides", "output_dir", "payload", "spec")),
    *(("events", one) for one in ("kind", "num", "data")),
    *(("results", one) for one in ("host", "envelope", "parts", "payload", "file", "attempt")),
]


def altered(value: Any, path: list[int], junk: Any) -> Any:
    """The value with something else in one place."""
    if path and isinstance(value, dict) and value:
        key = sorted(value)[path[0] % len(value)]
        return {**value, key: altered(value[key], path[1:], junk)}
    if path and isinstance(value, list) and value:
        at = path[0] % len(value)
        return [*value[:at], altered(value[at], path[1:], junk), *value[at + 1 :]]
    return junk


_INNER = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.just({}),
    st.just({"a": []}),
)


@pytest.fixture
def damaged(whole_run: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


class TestDamaged:
    """Any damage of a journal is one typed error that names the folder. Nothing else is raised, and nothing hangs."""

    def holds(self, folder: Path) -> None:
        """It can be read, or the error names the folder."""
        told = ""
        try:
            read_all(folder)
        except (JournalError, RunError) as error:
            told = str(error)
        assert not told or str(folder) in told or "run " in told

    @pytest.mark.slow
    def test_the_run_of_a_wider_fixture_is_not_in_the_users_index(self, whole_run, tmp_path_factory):
        """Tests have their own folders from the first fixture on, even in a fixture for a whole module."""
        state = Path(os.environ["XDG_STATE_HOME"])
        assert state.is_relative_to(tmp_path_factory.getbasetemp())
        run = index.find(whole_run).run
        # Other tests add and remove runs there meanwhile.
        assert [name for _, _, names in os.walk(state) for name in names if name.startswith(run)]

    def test_an_undamaged_journal_can_be_read(self, whole_run):
        """So the following tests fail only because of the damage."""
        read_all(whole_run)

    @pytest.mark.slow
    @settings(
        max_examples=examples(40),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(st.sampled_from(_CELLS), _JUNK, st.integers(0, 50))
    def test_a_wrong_cell_is_a_clear_error(self, whole_run, tmp_path_factory, cell, junk, row):
        """In any column of any table."""
        folder = Path(shutil.copytree(whole_run, tmp_path_factory.mktemp("cell") / "run"))
        table, column = cell
        connection = sqlite3.connect(folder / ".launcher" / "journal.sqlite")
        with contextlib.suppress(sqlite3.Error):
            (count,) = connection.execute(f"select count(*) from {table}").fetchone()
            names = [one[1] for one in connection.execute(f"pragma table_info({table})") if one[5]]
            (keys,) = connection.execute(
                f"select {','.join(names)} from {table} limit 1 offset {row % count}"
            ).fetchall()
            where = " and ".join(f"{name}=?" for name in names)
            connection.execute(f"update {table} set {column}=? where {where}", (junk, *keys))
            connection.commit()
        connection.close()
        self.holds(folder)

    @pytest.mark.slow
    @settings(
        max_examples=examples(40),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(
        st.sampled_from(
            [
                ("meta", "value"),
                ("jobs", "spec"),
                ("jobs", "overrides"),
                ("events", "data"),
                ("results", "envelope"),
                ("results", "parts"),
            ]
        ),
        st.integers(0, 50),
        st.lists(st.integers(0, 40), max_size=4),
        _INNER,
    )
    def test_a_wrong_value_within_a_cell_is_a_clear_error(self, whole_run, tmp_path_factory, cell, row, path, junk):
        """At any depth of its JSON."""
        folder = Path(shutil.copytree(whole_run, tmp_path_factory.mktemp("value") / "run"))
        table, column = cell
        connection = sqlite3.connect(folder / ".launcher" / "journal.sqlite")
        rows = connection.execute(
            f"select rowid, {column} from {table}"
            if table in ("jobs", "events")
            else f"select {column}, {column} from {table}"
        ).fetchall()
        rows = [one for one in rows if isinstance(one[1], str) and one[1][:1] in ("[", "{")]
        key, text = rows[row % len(rows)]
        name = "rowid" if table in ("jobs", "events") else column
        connection.execute(
            f"update {table} set {column}=? where {name}=?", (json.dumps(altered(json.loads(text), path, junk)), key)
        )
        connection.commit()
        connection.close()
        self.holds(folder)

    @pytest.mark.slow
    @settings(
        max_examples=examples(40),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(
        st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=20),
        st.integers(0, 1 << 20) | st.none(),
    )
    def test_damaged_bytes_of_the_file_are_a_clear_error(self, whole_run, tmp_path_factory, changes, length):
        """Flipped, or cut off."""
        folder = Path(shutil.copytree(whole_run, tmp_path_factory.mktemp("bytes") / "run"))
        path = folder / ".launcher" / "journal.sqlite"
        data = bytearray(path.read_bytes())
        for at, byte in changes:
            data[at % len(data)] = byte
        path.write_bytes(bytes(data) if length is None else bytes(data[: length % len(data)]))
        self.holds(folder)

    @pytest.mark.parametrize("table", ["meta", "blobs", "jobs", "events", "results"])
    @pytest.mark.parametrize(
        "how",
        [
            "drop table {0}",
            "alter table {0} rename to gone",
            "alter table {0} rename to gone; create view {0} as with recursive n(x) as (select 1 union all select x from n) select x from n",
            "create trigger t after insert on {0} begin select 1; end",
        ],
    )
    def test_a_wrong_table_is_a_clear_error(self, damaged, table, how):
        """A missing table, or something that sqlite would run."""
        connection = sqlite3.connect(damaged / ".launcher" / "journal.sqlite")
        connection.executescript(how.format(table))
        connection.close()
        with pytest.raises(JournalError, match="is damaged"):
            read_all(damaged)

    @pytest.mark.parametrize("open_it", [Journal, JournalReader])
    @pytest.mark.parametrize("content", [b"", b"x" * 100, b"SQLite format 3\0" + b"x" * 4096, b"\0" * 8192])
    def test_a_file_that_is_something_else_is_a_clear_error(self, damaged, open_it, content):
        """For reading and for writing. A lock that was taken is released."""
        (damaged / ".launcher" / "journal.sqlite").write_bytes(content)
        if open_it is Journal and not content:
            return  # one whose controller died before it began, which is begun
        for _ in range(2):
            with pytest.raises(JournalError, match=str(damaged)):
                open_it(damaged / ".launcher")

    def test_an_event_of_another_job_is_a_clear_error(self, damaged):
        """Where the journal says that it is one of this job."""
        connection = sqlite3.connect(damaged / ".launcher" / "journal.sqlite")
        with connection:
            connection.execute("update events set num=7 where kind='job_returned' and num=0")
        connection.close()
        with pytest.raises(JournalError, match="an event of job 0 where one of job 7 was expected"):
            read_all(damaged)

    def test_a_pipe_in_the_place_of_the_file_is_a_clear_error(self, damaged):
        """Nothing waits for it."""
        path = damaged / ".launcher" / "journal.sqlite"
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(RunError, match="holds no run"):
            JournalReader(damaged / ".launcher")

    @pytest.mark.parametrize(
        "change",
        [
            "update jobs set spec='[]' where num=1",
            "update jobs set payload=null where num=1",
            "update events set data=replace(data, 'FAILED', 'MAYBE') where kind='job_returned'",
            "update meta set value='{}' where key='setup'",
        ],
    )
    def test_retrying_a_job_of_a_damaged_journal_is_refused(self, damaged, change, monkeypatch):
        """At once, without waiting for anything."""
        connection = sqlite3.connect(damaged / ".launcher" / "journal.sqlite")
        connection.execute(change)
        connection.commit()
        connection.close()
        monkeypatch.setattr("launcher.runs.ownership._doubt", lambda folder: "")
        with pytest.raises(JournalError, match="is damaged"):
            setup, record = load_setup(damaged)
            with ResumedSession(setup, SessionConf(), record, retry=lambda event: True) as session:
                session.collect()


def test_the_numbers_of_jobs_may_have_gaps(tmp_path: Path) -> None:
    """Jobs that were taken over are in the journal before the jobs between them."""
    journal = Journal(tmp_path / ".launcher")
    journal.commit()
    with JournalReader(journal.folder) as reader:
        assert (reader.first_free_num(4), reader.nums_after(0)) == (4, set())
        for num in (4, 5, 7, 9):
            journal.put_job(num, (), "out", b"", job_spec(num))
        journal.commit()
        assert [reader.first_free_num(first) for first in (3, 4, 5, 6, 7)] == [3, 6, 6, 6, 8]
        assert reader.nums_after(5) == {7, 9}
    journal.close()
