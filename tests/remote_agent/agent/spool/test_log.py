"""The spool's log: what was written can be read again, whatever happens to the file; and who may use its folders."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from remote_agent.agent.spool import log as spool
from remote_agent.agent.spool.log import Reference, SpoolLog, scan
from remote_agent.agent.spool.syncer import Syncer
from remote_agent.system.private_files import SpoolError, make_private_folder
from tests.examples import examples
from tests.requirements import need_root


def replayed(log: SpoolLog) -> tuple[list[tuple[dict, bytes]], spool.Replay]:
    """All records of a log with their payloads, and the replay's report."""
    found: list[tuple[dict, Reference]] = []
    outcome = log.replay(lambda header, reference: found.append((header, reference)))
    return [(header, log.read(reference)) for header, reference in found], outcome


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a log."""
    return tmp_path / "log"


class TestLog:
    """Records in a file."""

    def test_a_log_can_be_read_again(self, path):
        """Headers and payloads, in order. Reading it twice changes nothing."""
        log = SpoolLog(str(path))
        log.append({"r": "a", "n": 1}, b"\0\xff")
        reference = log.append({"r": "b"})
        assert log.end == reference.end
        log.close()
        for _ in range(2):
            log = SpoolLog(str(path))
            records, replay = replayed(log)
            assert records == [({"r": "a", "n": 1}, b"\0\xff"), ({"r": "b"}, b"")]
            assert replay == spool.Replay([], "")
            log.close()
        assert [header["r"] for header in scan(str(path))] == ["a", "b"]

    def test_a_log_is_private(self, path):
        """Nobody else may read it, whatever the umask is. A link in its place is not followed."""
        before = os.umask(0)
        try:
            SpoolLog(str(path)).close()
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o077 == 0
        link = path.with_name("link")
        link.symlink_to(path)
        with pytest.raises(OSError, match=r".") as caught:
            SpoolLog(str(link))
        assert caught.value.errno == errno.ELOOP

    def test_a_log_of_another_version_is_refused_by_name(self, path):
        """It is not changed."""
        SpoolLog(str(path)).close()
        data = bytearray(path.read_bytes())
        data[7] = 2
        path.write_bytes(data)
        with pytest.raises(SpoolError, match="version 2"):
            SpoolLog(str(path))
        assert path.read_bytes() == bytes(data)

    @pytest.mark.parametrize("content", [b"RL", b"something else entirely, longer than a head"])
    def test_a_file_that_is_no_log_is_kept_aside(self, path, content):
        """A new log begins, with a new id."""
        path.write_bytes(content)
        log = SpoolLog(str(path))
        assert replayed(log) == ([], spool.Replay([], ""))
        assert path.with_name("log.damaged.0").read_bytes() == content

    def test_the_id_of_a_log_stays(self, path):
        """After opening and rewriting. Another file has another id."""
        log = SpoolLog(str(path))
        name = log.id
        log.compact([])
        log.close()
        assert SpoolLog(str(path)).id == name
        path.unlink()
        assert SpoolLog(str(path)).id != name

    def test_a_torn_tail_is_cut_off_and_kept_aside(self, path):
        """At whatever byte it was torn."""
        log = SpoolLog(str(path))
        log.append({"r": "whole"}, b"payload")
        log.flush()
        start = log.end
        log.append({"r": "torn"}, b"payload")
        log.close()
        data = path.read_bytes()
        for cut in range(start + 1, len(data)):
            path.write_bytes(data[:cut])
            log = SpoolLog(str(path))
            records, replay = replayed(log)
            assert records == [({"r": "whole"}, b"payload")]
            assert replay.torn
            assert path.with_name(f"log.damaged.{start}").read_bytes() == data[start:cut]
            log.append({"r": "next"})
            log.close()
            assert [header["r"] for header in scan(str(path))] == ["whole", "next"]

    def test_a_damaged_record_is_skipped(self, path):
        """At whatever byte it was altered, the records before and after it are read."""
        log = SpoolLog(str(path))
        log.append({"r": "before"}, b"1")
        log.flush()
        start = log.end
        log.append({"r": "altered"}, b"2")
        log.flush()
        end = log.end
        log.append({"r": "behind"}, b"3")
        log.close()
        data = path.read_bytes()
        for at in range(start, end):
            altered = bytearray(data)
            altered[at] ^= 0x41
            path.write_bytes(altered)
            log = SpoolLog(str(path))
            records, replay = replayed(log)
            assert records == [({"r": "before"}, b"1"), ({"r": "behind"}, b"3")]
            assert replay.gaps == [(start, end)]
            log.close()

    def test_bytes_of_a_payload_do_not_pass_for_a_record(self, path):
        """A job's result may look like a record. The id in the checksum shows that it is none."""
        other = SpoolLog(str(path.with_name("other")))
        other.append({"r": "final", "a": "5.1"}, b"forged")
        other.close()
        forged = path.with_name("other").read_bytes()[spool._FILE_HEAD.size :]
        log = SpoolLog(str(path))
        start = log.end
        log.append({"r": "outcome", "a": "4.1"}, b"x" * 100 + forged + b"y" * 100)
        log.append({"r": "behind"})
        log.close()
        data = bytearray(path.read_bytes())
        data[start + spool._HEAD.size] ^= 1
        path.write_bytes(data)
        records, replay = replayed(SpoolLog(str(path)))
        assert [header["r"] for header, _ in records] == ["behind"]
        assert len(replay.gaps) == 1

    def test_pending_records_survive_a_full_disk(self, path, monkeypatch):
        """They are read from memory. When there is room, they are written from the byte on at which writing stopped."""
        log = SpoolLog(str(path))
        first = log.append({"r": "a"}, b"first")
        log.flush()
        whole = os.pwrite

        def some(fd, data, offset):
            if len(data) > 10:
                return whole(fd, data[:10], offset)
            raise OSError(errno.ENOSPC, "No space left on device")

        second = log.append({"r": "b"}, b"second" * 10)
        monkeypatch.setattr(spool.os, "pwrite", some)
        with pytest.raises(OSError, match="No space"):
            log.flush()
        third = log.append({"r": "c"}, b"third")
        with pytest.raises(OSError, match="No space"):
            log.flush()
        assert [log.read(each) for each in (first, second, third)] == [b"first", b"second" * 10, b"third"]
        monkeypatch.undo()
        log.close()
        records, replay = replayed(SpoolLog(str(path)))
        assert records == [({"r": "a"}, b"first"), ({"r": "b"}, b"second" * 10), ({"r": "c"}, b"third")]
        assert replay == spool.Replay([], "")

    def test_rewriting_keeps_what_is_needed(self, path):
        """The rest is removed, references change, and later records come after."""
        log = SpoolLog(str(path))
        references = [log.append({"r": str(n)}, bytes([n]) * n) for n in range(10)]
        moved = log.compact(references[3:9:2])
        assert [log.read(moved[each.offset]) for each in references[3:9:2]] == [b"\3" * 3, b"\5" * 5, b"\7" * 7]
        log.append({"r": "new"}, b"new")
        log.close()
        records, _ = replayed(SpoolLog(str(path)))
        assert [header["r"] for header, _ in records] == ["3", "5", "7", "new"]

    def test_rewriting_a_full_log_needs_no_room_after_it(self, path, monkeypatch):
        """Pending records are rewritten from memory, even if a part of them is in the file. Dead records are removed."""
        log = SpoolLog(str(path))
        references = [log.append({"r": str(n)}, bytes([n]) * 50) for n in range(4)]
        log.flush()
        whole = os.pwrite

        def some(fd, data, offset):
            if len(data) > 10:
                return whole(fd, data[:10], offset)
            raise OSError(errno.ENOSPC, "No space left on device")

        references += [log.append({"r": str(n)}, bytes([n]) * 50) for n in range(4, 7)]
        with monkeypatch.context() as patch:
            patch.setattr(spool.os, "pwrite", some)
            with pytest.raises(OSError, match="No space"):
                log.flush()
        kept = [references[1], references[4], references[6]]
        moved = log.compact(kept)
        assert [log.read(moved[each.offset]) for each in kept] == [bytes([n]) * 50 for n in (1, 4, 6)]
        log.append({"r": "new"})
        log.close()
        records, replay = replayed(SpoolLog(str(path)))
        assert [header["r"] for header, _ in records] == ["1", "4", "6", "new"]
        assert replay == spool.Replay([], "")

    def test_rewriting_a_log_without_needed_records_needs_no_room(self, path, monkeypatch):
        """It is truncated, and nothing is written."""
        log = SpoolLog(str(path))
        log.append({"r": "a"}, b"a" * 100)
        log.flush()
        log.append({"r": "b"})

        def full(fd, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(spool.os, "write", full)
            assert log.compact([]) == {}
        assert path.stat().st_size == spool._FILE_HEAD.size
        log.append({"r": "c"})
        log.close()
        records, replay = replayed(SpoolLog(str(path)))
        assert [header["r"] for header, _ in records] == ["c"]
        assert replay == spool.Replay([], "")

    def test_rewriting_that_fails_leaves_the_log_as_it_was(self, path, monkeypatch):
        """No incomplete file is left, and the log goes on."""
        log = SpoolLog(str(path))
        reference = log.append({"r": "a"}, b"a" * 100)

        def full(fd, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(spool.os, "write", full)
        with pytest.raises(OSError, match="No space"):
            log.compact([reference])
        monkeypatch.undo()
        assert log.read(reference) == b"a" * 100
        assert os.listdir(path.parent) == ["log"]
        assert log.generation == 0

    def test_a_log_notices_that_it_was_moved_away(self, path):
        """Another file under its name does not count."""
        log = SpoolLog(str(path))
        assert log.is_in_place
        path.rename(path.with_name("elsewhere"))
        assert not log.is_in_place
        path.touch()
        assert not log.is_in_place

    def test_a_long_log_wants_to_be_rewritten_if_most_of_it_is_dead(self, path, monkeypatch):
        """A short log does not, nor one that is needed."""
        monkeypatch.setattr(spool, "_COMPACT_FROM", 1000)
        log = SpoolLog(str(path))
        first = log.append({"r": "a"}, bytes(600))
        second = log.append({"r": "b"}, bytes(600))
        assert not log.wants_compaction
        log.forget([first])
        assert not log.wants_compaction
        log.forget([second])
        assert log.wants_compaction
        log.compact([])
        assert not log.wants_compaction


class LogMachine(RuleBasedStateMachine):
    """A log that is written, torn, altered, rewritten and opened again, in any order.

    Model: the records that were written and are needed. After any opening what is read is what was written and not damaged,
    in order, and nothing else.
    """

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="spool-")
        self.path = os.path.join(self.folder, "log")
        self.log = SpoolLog(self.path)
        self.records: list[tuple[dict, bytes, Reference]] = []
        self.number = 0
        #: Bytes that were altered, each once: altered back, a record would be whole again.
        self.altered: set[int] = set()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @rule(payload=st.binary(max_size=80), embedded=st.booleans())
    def append(self, payload: bytes, embedded: bool) -> None:
        """A record. Some have bytes that look like the mark of one."""
        self.number += 1
        payload = payload + b"RLG1" + payload if embedded else payload
        header = {"r": "x", "n": self.number}
        self.records.append((header, payload, self.log.append(header, payload)))

    @rule()
    def flush(self) -> None:
        """Pending records are written."""
        self.log.flush()

    @rule()
    def open_again(self) -> None:
        """The agent was killed, so what was not written is gone."""
        self.records = [record for record in self.records if record[2].end <= self.log.written]
        self._open()

    @rule(count=st.integers(1, 200))
    def tear(self, count: int) -> None:
        """The last bytes are gone."""
        self.log.flush()
        size = os.path.getsize(self.path)
        os.truncate(self.path, max(spool._FILE_HEAD.size, size - count))
        left = os.path.getsize(self.path)
        self.records = [record for record in self.records if record[2].end <= left]
        self._open()

    @rule(at=st.integers(0, 1 << 20), bit=st.integers(0, 7))
    def alter(self, at: int, bit: int) -> None:
        """Flip a bit of the file."""
        self.log.flush()
        with open(self.path, "r+b") as file:
            data = bytearray(file.read())
            if len(data) == spool._FILE_HEAD.size:
                return
            at = spool._FILE_HEAD.size + at % (len(data) - spool._FILE_HEAD.size)
            if at in self.altered:
                return
            self.altered.add(at)
            data[at] ^= 1 << bit
            file.seek(0)
            file.write(data)
        self.records = [record for record in self.records if not record[2].offset <= at < record[2].end]
        self._open()

    @rule(keep=st.integers(0, 255), rename=st.booleans())
    def compact(self, keep: int, rename: bool) -> None:
        """Some records are no longer needed."""
        self.records = [record for index, record in enumerate(self.records) if keep >> (index % 8) & 1]
        self.altered.clear()
        moved = self.log.compact([reference for _, _, reference in self.records], rename=rename)
        self.records = [(header, payload, moved[reference.offset]) for header, payload, reference in self.records]

    def _open(self) -> None:
        os.close(self.log._fd)
        self.log = SpoolLog(self.path)
        found: list[tuple[dict, Reference]] = []
        self.log.replay(lambda header, reference: found.append((header, reference)))
        assert [header for header, _ in found] == [header for header, _, _ in self.records]
        self.records = [
            (header, payload, reference)
            for (header, payload, _), (_, reference) in zip(self.records, found, strict=True)
        ]

    @invariant()
    def every_payload_can_be_read(self) -> None:
        """Written or pending."""
        for _, payload, reference in getattr(self, "records", []):
            assert self.log.read(reference) == payload


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(max_examples=examples(40), stateful_step_count=25, deadline=None)


class TestFolders:
    """Folders are ours, or are refused."""

    def test_folders_are_made_private_with_their_parents(self, tmp_path):
        """Mode 0700, whatever the umask is."""
        before = os.umask(0)
        try:
            path = make_private_folder(str(tmp_path / "a" / "b"))
        finally:
            os.umask(before)
        assert os.stat(path).st_mode & 0o777 == 0o700
        assert make_private_folder(path) == path

    def test_links_and_files_in_place_of_folders_are_refused(self, tmp_path):
        """Whoever made them."""
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        (tmp_path / "file").touch()
        for name in ("link", "file"):
            with pytest.raises(SpoolError, match="not a private folder"):
                make_private_folder(str(tmp_path / name))

    def test_folders_that_others_can_write_are_refused(self, tmp_path):
        """The group or everybody."""
        for mode in (0o770, 0o777, 0o702):
            (tmp_path / f"{mode}").mkdir()
            (tmp_path / f"{mode}").chmod(mode)
            with pytest.raises(SpoolError, match="written by others"):
                make_private_folder(str(tmp_path / f"{mode}"))

    def test_folders_of_another_user_are_refused(self, tmp_path):
        """Even if we could write to them."""
        need_root()
        (tmp_path / "theirs").mkdir(mode=0o700)
        os.chown(tmp_path / "theirs", 12345, 12345)
        with pytest.raises(SpoolError, match="another user"):
            make_private_folder(str(tmp_path / "theirs"))


class TestSyncer:
    """The thread that waits for the disk."""

    def test_the_syncer_reports_what_is_on_the_disk(self, path):
        """In the order of the requests. One answer may cover several."""
        import threading

        woken = threading.Event()
        log = SpoolLog(str(path))
        syncer = Syncer(log, woken.set)
        log.append({"r": "a"})
        log.flush()
        syncer.request(0, log.written)
        assert woken.wait(30)
        assert syncer.completed()[-1] == (0, log.written, "")
        assert syncer.completed() == []
        syncer.stop()

    def test_the_syncer_reports_an_error_and_tries_again(self, path, monkeypatch):
        """An error is a text, and does not end the thread."""
        import threading

        answers = [OSError(errno.EIO, "Input/output error"), None]

        def sync(fd):
            answer = answers.pop(0)
            if answer:
                raise answer

        monkeypatch.setattr(spool, "sync_data", sync)
        woken = threading.Semaphore(0)
        syncer = Syncer(SpoolLog(str(path)), woken.release)
        syncer.request(0, 5)
        assert woken.acquire(timeout=30)
        assert "Input/output" in syncer.completed()[0][2]
        syncer.request(0, 5)
        assert woken.acquire(timeout=30)
        assert syncer.completed() == [(0, 5, "")]
        syncer.stop()
