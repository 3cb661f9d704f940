"""The journal keeps everything that was committed, whatever happens to its controller, and nothing by halves."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events
from launcher.errors import JournalError, JournalMoved, RunError
from launcher.events.base import KINDS
from launcher.runs import journal
from launcher.runs.journal import INLINE, Journal, JournalReader, StoredResult
from launcher.runs.result_file import ResultFile
from remote_agent.protocol.result_parts import NO_PARTS, Part
from tests.specs import envelope, job_spec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a journal."""
    return tmp_path / "run" / ".launcher"


def result(num: int, payload: bytes = b"", file: str | None = None) -> StoredResult:
    """The result of an attempt."""
    return StoredResult(num, 1, "h", envelope(started_at=1.5), NO_PARTS._replace(value=Part(0, 1, "")), payload, file)


def every_event() -> list[events.Event]:
    """One event of each kind, with every field set."""
    samples: dict[str, Any] = {
        "int": 3,
        "float": 1.5,
        "str": "text ü",
        "bool": True,
        "tuple[str, ...]": ("a", "b"),
        "tuple[int, ...]": (1, 2),
        "dict[str, Any] | None": {"kind": "lost", "causes": [{"a": "b"}]},
        "dict[str, Any]": {"loss": 0.5, "lost": ["nan"]},
        "dict[str, int]": {"FAILED": 1},
        "float | None": 2.5,
        "int | None": 4,
        "str | None": "x",
    }
    return [
        cls(
            **{
                one.name: "FAILED" if one.name == "status" else samples[str(one.type)]
                for one in dataclasses.fields(cls)
            }
        )
        for cls in KINDS.values()
        if cls is not events.EventBase
    ]


class TestWriting:
    """What is committed can be read."""

    @pytest.mark.parametrize("event", every_event(), ids=lambda event: event.kind)
    def test_every_event_comes_back(self, folder, event):
        """Each field is unchanged."""
        writing = Journal(folder)
        writing.append([event])
        writing.commit()
        ((_, again),) = JournalReader(folder).events()
        assert again == event
        assert type(again) is type(event)
        writing.close()

    def test_events_keep_their_order(self, folder):
        """Over many commits. Those of one job, and those after a number, can be read alone."""
        writing = Journal(folder)
        for num in range(50):
            writing.append([events.JobQueued(0.0, num), events.JobAssigned(0.0, num, 1, "h")])
            if num % 7 == 0:
                writing.commit()
        writing.commit()
        reader = JournalReader(folder)
        found = list(reader.events(batch=9))
        assert [event.num for _, event in found] == [num for num in range(50) for _ in range(2)]
        assert [seq for seq, _ in found] == sorted({seq for seq, _ in found})
        assert [event.kind for _, event in reader.events(num=7)] == ["job_queued", "job_assigned"]
        assert [event.num for _, event in reader.events(after=found[97][0])] == [49, 49]

    def test_nothing_is_there_before_commit(self, folder):
        """Neither for a reader nor after a crash."""
        writing = Journal(folder)
        writing.append([events.Note(0.0, "x")])
        writing.put_job(1, (), "o", b"p", job_spec(1))
        reader = JournalReader(folder)
        assert list(reader.events()) == []
        writing.commit()
        assert len(list(reader.events())) == 1
        assert reader.job(1) == ((), "o", b"p", job_spec(1))
        writing.close()

    def test_jobs_results_facts_and_blobs_come_back(self, folder):
        """A job with everything to send it again, a result as it came, facts and blobs of the run."""
        writing = Journal(folder)
        writing.put_job(3, ("a=1",), "/out/3", b"\0payload", job_spec(3, timeout=5))
        stored = writing.put_result(result(3, b"value"))
        writing.put_meta(run="r", mode="MULTIRUN")
        writing.put_blob("shared", b"\xff" * 10)
        writing.commit()
        reader = JournalReader(folder)
        assert reader.job(3) == (("a=1",), "/out/3", b"\0payload", job_spec(3, timeout=5))
        assert reader.job_without_payload(3) == (("a=1",), "/out/3", job_spec(3, timeout=5))
        assert reader.payload(3) == b"\0payload"
        assert reader.job(4) is None
        assert stored == result(3, b"value")
        assert reader.result(3, 1) == stored
        assert reader.result(3, 2) is None
        assert reader.meta() == {"run": "r", "mode": "MULTIRUN", "version": "1"}
        assert reader.blob("shared") == b"\xff" * 10
        assert reader.blob("other") is None
        with pytest.raises(JournalError, match="job 9"):
            reader.payload(9)
        writing.close()

    def test_a_large_result_is_in_its_own_file(self, folder):
        """The file is on the disk before the journal names it."""
        writing = Journal(folder)
        stored = writing.put_result(result(1, b"x" * (INLINE + 1)))
        assert stored.payload == b""
        assert stored.file is not None
        assert not Path(stored.file).exists()
        writing.commit()
        assert JournalReader(folder).result(1, 1) == stored
        assert Path(stored.file).read_bytes() == b"x" * (INLINE + 1)
        assert Path(stored.file).stat().st_mode & 0o077 == 0
        writing.close()

    def test_a_journal_is_private(self, folder):
        """Nobody else can read what a run was given."""
        before = os.umask(0)
        try:
            writing = Journal(folder)
            writing.put_blob("secret", b"x")
            writing.commit()
            for path in folder.iterdir():
                assert path.stat().st_mode & 0o077 == 0, path
        finally:
            os.umask(before)
        writing.close()
        assert folder.stat().st_mode & 0o077 == 0

    def test_the_last_outcome_of_each_job_counts(self, folder):
        """A job that is being run once more has not returned."""
        writing = Journal(folder)
        error = {"kind": "killed"}
        writing.append(
            [
                events.JobReturned(0.0, 0, 1, "h", "COMPLETED", 1.0, None),
                events.JobReturned(0.0, 1, 1, "h", "FAILED", 1.0, error),
                events.JobReturned(0.0, 2, 1, "h", "FAILED", 1.0, error),
                events.JobRetried(0.0, 2, 1, "FAILED", "killed"),
            ]
        )
        for num in range(3):
            writing.put_job(num, (), "o", b"", job_spec(num))
        writing.commit()
        reader = JournalReader(folder)
        assert reader.outcomes() == {"COMPLETED": 1, "FAILED": 1}
        assert reader.kinds() == {"killed": 1}
        returned = reader.returned(1)
        assert returned is not None
        assert returned.error == error
        assert reader.returned(2) is None
        assert (reader.count_jobs(), reader.last_num()) == (3, 2)
        last = reader.last_event("job_returned")
        assert isinstance(last, events.JobReturned)
        assert last.num == 2
        writing.close()


#: Names of folders that mean something to a URI, a shell, a glob, a config, sqlite, a terminal; the last one is no text.
ODD_NAMES = [
    "a#1",
    "b?mode=rw",
    "c%41",
    "d e",
    "new\nline",
    ":memory:",
    "file:x",
    "${x}",
    "'q\"",
    "[*]",
    "é",
    os.fsdecode(b"\xff"),
]


@pytest.mark.parametrize("name", ODD_NAMES)
class TestAnyPath:
    """A folder may have any name."""

    def test_a_journal_in_any_folder_can_be_read(self, tmp_path, name):
        """From the same folder, and no file is made next to it."""
        folder = tmp_path / name / ".launcher"
        writing = Journal(folder)
        writing.put_meta(run="r")
        writing.put_job(0, (), str(tmp_path / name / "0"), b"p", job_spec())
        writing.append([events.RunStarted(0.0, "r", "RUN", str(tmp_path / name), ())])
        stored = writing.put_result(result(0, b"x" * (INLINE + 1)))
        writing.commit()
        reader = JournalReader(folder)
        assert reader.meta()["run"] == "r"
        assert reader.job(0) == ((), str(tmp_path / name / "0"), b"p", job_spec())
        assert reader.job_without_payload(0) == ((), str(tmp_path / name / "0"), job_spec())
        assert reader.result(0, 1) == stored
        assert [event.folder for _, event in reader.events()] == [str(tmp_path / name)]
        reader.close()
        writing.close()
        assert os.listdir(tmp_path) == [name]

    def test_a_journal_may_have_a_relative_path(self, tmp_path, name, monkeypatch):
        """It means the same file, whatever the name looks like."""
        monkeypatch.chdir(tmp_path)
        Journal(Path(name)).close()
        JournalReader(Path(name)).close()


class TestFailing:
    """Full disks, foreign files, two writers."""

    def test_a_commit_on_a_full_disk_keeps_what_was_appended(self, folder):
        """The commit raises, and nothing of it is in the file. When there is room, all of it is there once."""
        writing = Journal(folder)
        pages = writing._connection.execute("pragma page_count").fetchone()[0]
        writing._connection.execute(f"pragma max_page_count={pages}")
        writing.append([events.Note(0.0, "x" * 20_000)])
        writing.put_blob("large", bytes(200_000))
        for _ in range(2):
            with pytest.raises(JournalError, match="full"):
                writing.commit()
        writing.append([events.Note(0.0, "later")])
        reader = JournalReader(folder)
        assert list(reader.events()) == []
        writing._connection.execute("pragma max_page_count=100000")
        writing.commit()
        assert [len(event.message) for _, event in reader.events()] == [20_000, 5]
        assert reader.blob("large") == bytes(200_000)
        writing.close()

    def test_a_result_file_that_cannot_be_written_stops_the_commit(self, folder, monkeypatch):
        """The journal never names a file that does not exist."""
        writing = Journal(folder)
        writing.put_result(result(1, b"x" * (INLINE + 1)))
        whole = journal._write_private

        def full(path: Path, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(journal, "_write_private", full)
        with pytest.raises(JournalError, match=r"1\.1\.result: No space left"):
            writing.commit()
        reader = JournalReader(folder)
        assert reader.result(1, 1) is None
        monkeypatch.setattr(journal, "_write_private", whole)
        writing.commit()
        assert reader.result(1, 1) is not None
        writing.close()

    def test_only_one_process_writes(self, folder):
        """The error for the second one names the first, and nothing is changed. A run of this process is not called
        another process.
        """
        writing = Journal(folder)
        with pytest.raises(RunError, match="another run of this process"):
            Journal(folder)
        writing.append([events.Note(0.0, "mine")])
        writing.close()
        Journal(folder).close()

    @pytest.mark.parametrize("name", ["journal.sqlite", "journal.sqlite-wal"])
    def test_a_commit_to_a_journal_that_was_moved_fails(self, folder, monkeypatch, name):
        """Also if it is removed during the commit. When it is put back, everything is there once."""
        writing = Journal(folder)
        writing.append([events.Note(0.0, "first")])
        writing.commit()
        whole = writing._write

        def write() -> None:
            whole()
            os.rename(folder / name, folder / "aside")

        monkeypatch.setattr(writing, "_write", write)
        writing.append([events.Note(0.0, "second")])
        for _ in range(2):
            with pytest.raises(JournalMoved, match="removed, moved or replaced"):
                writing.commit()
            assert not writing.is_in_place
        os.rename(folder / "aside", folder / name)
        writing.commit()
        monkeypatch.undo()
        writing.close()
        assert [event.message for _, event in JournalReader(folder).events()] == ["first", "second"]

    def test_nothing_is_made_in_the_old_place_of_a_moved_journal(self, folder):
        """Neither a large result, nor a journal when it is closed. Otherwise it could not be put back."""
        writing = Journal(folder)
        writing.commit()
        os.rename(folder, folder.with_name("aside"))
        writing.put_result(result(1, b"x" * (INLINE + 1)))
        with pytest.raises(JournalMoved):
            writing.commit()
        with pytest.raises(JournalMoved):
            writing.close()
        with pytest.raises(FileNotFoundError):
            ResultFile(folder / "results", "1.1", 1, NO_PARTS)
        assert os.listdir(folder.parent) == ["aside"]

    def test_another_version_is_refused_by_name(self, folder):
        """For reading and for writing."""
        writing = Journal(folder)
        writing.put_meta(version="99")
        writing.close()
        for open_it in (Journal, JournalReader):
            with pytest.raises(JournalError, match="version 99"):
                open_it(folder)

    def test_a_folder_without_a_journal_is_no_run(self, tmp_path):
        """The error names the folder."""
        with pytest.raises(RunError, match="holds no run"):
            JournalReader(tmp_path / ".launcher")

    def test_a_file_that_is_no_journal_is_refused(self, folder):
        """The error names it. It is not parsed."""
        folder.mkdir(parents=True)
        (folder / "journal.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 100)
        with pytest.raises(JournalError, match="journal"):
            JournalReader(folder)

    @pytest.mark.slow
    def test_readers_and_the_writer_do_not_disturb_each_other(self, folder):
        """Each reader sees complete commits, in order."""
        writing = Journal(folder)
        done = threading.Event()
        seen: list[list[int]] = []

        def read() -> None:
            reader = JournalReader(folder)
            while not done.is_set():
                seen.append([event.num for _, event in reader.events()])
            reader.close()

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for num in range(60):
            writing.append([events.JobQueued(0.0, 2 * num), events.JobQueued(0.0, 2 * num + 1)])
            writing.commit()
        done.set()
        for thread in threads:
            thread.join()
        writing.close()
        assert all(nums == list(range(len(nums))) and len(nums) % 2 == 0 for nums in seen)


WRITER = """
import os, sys
from pathlib import Path
import launcher
from launcher import events
from launcher.events.base import KINDS
from launcher.runs.journal import INLINE, Journal, StoredResult
from remote_agent.protocol.result_parts import NO_PARTS
from tests.specs import envelope, job_spec

journal = Journal(Path(sys.argv[1]))
num = 0
while True:
    journal.append([events.JobQueued(0.0, num), events.JobReturned(0.0, num, 1, "h", "COMPLETED", 1.0, None)])
    journal.put_job(num, (), "o", b"p", job_spec(num))
    journal.put_result(StoredResult(num, 1, "h", envelope(), NO_PARTS, bytes(INLINE + 1) if num % 3 == 0 else b"v", None))
    journal.commit()
    os.write(1, b"%d\\n" % num)
    num += 1
"""


@pytest.mark.slow
def test_a_journal_survives_kill_9_at_any_moment(folder):
    """What was committed is on the disk. The rest is there completely or not at all, and writing can continue."""
    for killed_after in (1, 4, 9):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
        )
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(killed_after)]
        process.send_signal(signal.SIGKILL)
        process.wait()
        told += [int(line) for line in process.stdout.read().split() if line]
        process.stdout.close()
        reader = JournalReader(folder)
        queued = [event.num for _, event in reader.events() if isinstance(event, events.JobQueued)]
        returned = [event.num for _, event in reader.events() if isinstance(event, events.JobReturned)]
        assert queued == returned
        assert set(told) <= set(queued)
        for num in set(queued):
            stored = reader.result(num, 1)
            assert stored is not None
            assert reader.job(num) is not None
            if stored.file is not None:
                assert Path(stored.file).stat().st_size == INLINE + 1
        reader.close()
    check = sqlite3.connect(folder / "journal.sqlite").execute("pragma integrity_check").fetchone()
    assert check == ("ok",)


def test_a_full_disk_when_the_journal_is_made_is_a_clear_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the file and the next step, and releases the folder, where a later run can begin."""
    connect = journal.connect

    def small(path: Path, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(path, **kwargs)
        connection.execute("pragma max_page_count=1")
        return connection

    monkeypatch.setattr(journal, "connect", small)
    with pytest.raises(
        JournalError, match=r"journal.sqlite: database or disk is full; nothing was sent; free some space"
    ):
        Journal(folder)
    monkeypatch.undo()
    Journal(folder).close()


class TestFilesOfAJournal:
    """The files next to a journal that nobody has open."""

    def test_nothing_is_left_beside_it_after_a_clean_end(self, folder: Path) -> None:
        """Nor by a later reader, who would make a log and could not remove it."""
        written = Journal(folder)
        written.put_meta(a="b")
        written.close()
        assert {path.name for path in folder.iterdir()} == {"journal.sqlite", "lock"}
        reader = JournalReader(folder)
        assert reader.meta()["a"] == "b"
        reader.close()
        assert {path.name for path in folder.iterdir()} == {"journal.sqlite", "lock"}

    def test_a_closed_journal_can_be_written_again(self, folder: Path) -> None:
        """With a log, as at first, so that readers do not wait for the writer."""
        Journal(folder).close()
        again = Journal(folder)
        again.put_meta(a="c")
        again.commit()
        reader = JournalReader(folder)
        assert reader.meta()["a"] == "c"
        again.put_meta(a="d")
        again.commit()
        assert reader.meta()["a"] == "d"
        reader.close()
        again.close()
        assert {path.name for path in folder.iterdir()} == {"journal.sqlite", "lock"}

    def test_closing_does_not_wait_for_a_reader(self, folder: Path) -> None:
        """The log then stays, and the next writer merges it."""
        written = Journal(folder)
        written.put_meta(a="b")
        written.commit()
        reader = JournalReader(folder)
        assert reader.meta()["a"] == "b"
        written.close()
        assert reader.meta()["a"] == "b"
        reader.close()
        Journal(folder).close()
        assert {path.name for path in folder.iterdir()} == {"journal.sqlite", "lock"}

    @pytest.mark.slow
    @pytest.mark.parametrize("mode", ["run", "multirun"])
    def test_nothing_is_left_beside_it_after_a_run(self, mode: str, tmp_path: Path) -> None:
        """In each way to start a run, even if JobReturns are read after its end."""
        if mode == "run":
            returns = [launcher.run("builtins:str", {}, folder=tmp_path / "out")]
        else:
            returns = list(launcher.multirun("builtins:str", [{}, {}], folder=tmp_path / "out"))
        assert {one.return_value for one in returns} == {"{}"}
        assert {path.name for path in (tmp_path / "out" / ".launcher").iterdir()} >= {"journal.sqlite", "lock"}
        assert not list((tmp_path / "out" / ".launcher").glob("journal.sqlite?*"))

    def test_a_closed_journal_takes_nothing_more(self, folder: Path) -> None:
        """Not from another thread that comes late either. Closing it twice does nothing."""
        made = Journal(folder)
        made.put_meta(a="b")
        made.close()
        made.close()
        made.put_meta(a="c")
        with pytest.raises(JournalError, match="closed already"):
            made.commit()

    def test_close_waits_for_a_write_in_another_thread(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Sqlite crashes the process if another thread closes a connection that is in use."""
        made = Journal(folder)
        writes, may_go_on = threading.Event(), threading.Event()
        write = made._write

        def slow() -> None:
            writes.set()
            assert may_go_on.wait(30)
            write()

        monkeypatch.setattr(made, "_write", slow)
        made.put_meta(a="b")
        writer = threading.Thread(target=made.commit)
        writer.start()
        assert writes.wait(30)
        closer = threading.Thread(target=made.close)
        closer.start()
        closer.join(0.05)
        assert closer.is_alive()
        may_go_on.set()
        writer.join(30)
        closer.join(30)
        reader = JournalReader(folder)
        assert reader.meta()["a"] == "b"
        reader.close()
