"""The durable state of a run on a host: one append-only log with checksums.

Rule: what the log says has happened, and what it does not say has not. A record is written before its decision takes effect. A
result is on the disk before it is sent (`fdatasync` for many records at once, in another thread).

    file     !4sI16s  mark b"RLSP", version, the log's id: random, made with the file
    record   !4sIQI   mark b"RLG1", header length, payload length, crc32 of id, header and payload; then both
    header   JSON; "r" names the record

If the end of the log is torn (power cut, full disk), the replay stops at the last whole record; the rest is cut off and kept in
another file. A damaged record in the middle is skipped, and `Replay.gaps` says where: what it said is lost, but what follows is known.
A file of another version is refused by name. The id in the checksum makes sure that bytes of a payload are never taken for a record.

`fdatasync` runs in a thread, see `syncer`.
"""

import json
import os
import struct
import zlib
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from remote_agent.shared.disk import sync_data, sync_fd, sync_folder
from remote_agent.system.private_files import SpoolError, open_private

__all__ = [
    "LogReader",
    "Reference",
    "Replay",
    "SpoolLog",
    "scan",
]

VERSION = 1
_FILE_MARK = b"RLSP"
_FILE_HEAD = struct.Struct("!4sI16s")
_MARK = b"RLG1"
_HEAD = struct.Struct("!4sIQI")
#: Bytes of a record's header. A frame's header is well below that.
_MAX_HEADER = 1 << 23
#: A log of this many bytes is rewritten if more than half of it is dead.
_COMPACT_FROM = 32 << 20
_PIECE = 1 << 20
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class Reference(NamedTuple):
    """The place of a record in the log."""

    offset: int
    header_length: int
    payload_length: int

    @property
    def end(self) -> int:
        """The offset after the record."""
        return self.offset + _HEAD.size + self.header_length + self.payload_length


class Replay(NamedTuple):
    """What was wrong with the log. `gaps`: (start, end) of damaged parts in the middle. `torn`: the problem at its end, or empty."""

    gaps: List[Tuple[int, int]]
    torn: str


class SpoolLog:
    """The log of one spool. It is not thread-safe, except `sync`, which may run in another thread.

    Raises:
        SpoolError: the file is of another version.
        OSError: it cannot be made or read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = open_private(path, os.O_RDWR | os.O_CREAT)
        self._pending: List[bytes] = []
        self._dead = 0
        self.generation = 0
        head = os.pread(self._fd, _FILE_HEAD.size, 0)
        #: Identifies this log, and so everything that the spool knows. A new file gets a new id.
        self.id = self._known_id(head) or self._start_file(head)
        self._seed = zlib.crc32(self.id)
        self._end = _FILE_HEAD.size
        #: Bytes that are in the file (not necessarily on the disk).
        self.written = _FILE_HEAD.size

    def _known_id(self, head: bytes) -> Optional[bytes]:
        if len(head) < _FILE_HEAD.size:
            return None
        mark, version, name = _FILE_HEAD.unpack(head)
        if mark != _FILE_MARK:
            return None
        if version != VERSION:
            os.close(self._fd)
            raise SpoolError("{}: a spool of version {}; this agent reads {}".format(self.path, version, VERSION))
        return bytes(name)

    def _start_file(self, head: bytes) -> bytes:
        """Start a new file. A file that is there and is not ours is kept under another name."""
        if head:
            os.close(self._fd)
            os.rename(self.path, "{}.damaged.0".format(self.path))
            self._fd = open_private(self.path, os.O_RDWR | os.O_CREAT)
        name = os.urandom(16)
        os.pwrite(self._fd, _FILE_HEAD.pack(_FILE_MARK, VERSION, name), 0)
        sync_fd(self._fd)
        sync_folder(self.path)
        return name

    # -- reading -------------------------------------------------------------------------------------------------

    def replay(self, on_record: Callable[[Dict[str, Any], Reference], None]) -> Replay:
        """Read the whole log, pass each record to `on_record`, and continue at its end."""
        gaps: List[Tuple[int, int]] = []
        torn = ""
        size = os.fstat(self._fd).st_size
        offset = _FILE_HEAD.size
        while offset < size:
            found = _record_at(self._fd, self._seed, offset, size)
            if found is None:
                following = self._next_record(offset + 1, size)
                if following is None:
                    torn = "torn record at byte {}".format(offset)
                    break
                gaps.append((offset, following))
                offset = following
                continue
            header, reference = found
            on_record(header, reference)
            offset = reference.end
        if torn:
            # Keep what is cut off, because somebody may want to read it.
            self._set_aside(offset, size)
        self._end = self.written = offset
        return Replay(gaps, torn)

    def _next_record(self, offset: int, size: int) -> Optional[int]:
        """Return where the next complete record begins."""
        while offset < size:
            piece = os.pread(self._fd, _PIECE, offset)
            found = piece.find(_MARK)
            if found < 0:
                if len(piece) < _PIECE:
                    return None
                offset += len(piece) - len(_MARK) + 1
                continue
            offset += found
            if _record_at(self._fd, self._seed, offset, size) is not None:
                return offset
            offset += 1
        return None

    def _set_aside(self, start: int, size: int) -> None:
        fd = open_private("{}.damaged.{}".format(self.path, start), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            for piece in _range(self._fd, start, size):
                _write_all(fd, piece)
        finally:
            os.close(fd)
        os.ftruncate(self._fd, start)

    def read(self, reference: Reference) -> bytes:
        """Return the payload of a record, even if it is not in the file yet (because the disk is full)."""
        start = reference.offset + _HEAD.size + reference.header_length
        return b"".join(self._content(start, reference.end))

    def _content(self, start: int, end: int) -> Iterator[bytes]:
        """Yield bytes of the log, including those that are not in the file yet."""
        yield from _range(self._fd, start, min(end, self.written))
        if end > self.written:
            pending = b"".join(self._pending)
            self._pending = [pending]
            yield pending[max(start - self.written, 0) : end - self.written]

    # -- writing -------------------------------------------------------------------------------------------------

    def append(self, header: Dict[str, Any], payload: bytes = b"") -> Reference:
        """Append a record. `flush` writes it."""
        head = _to_json(header).encode("ascii")
        crc = zlib.crc32(payload, zlib.crc32(head, self._seed))
        reference = Reference(self._end, len(head), len(payload))
        self._pending.append(_HEAD.pack(_MARK, len(head), len(payload), crc))
        self._pending.append(head)
        if payload:
            self._pending.append(payload)
        self._end = reference.end
        return reference

    @property
    def is_in_place(self) -> bool:
        """Whether the file still exists under its name."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except OSError:
            return False

    @property
    def end(self) -> int:
        """The offset after the last record, written or not."""
        return self._end

    def flush(self) -> None:
        """Write what was appended to the file.

        Raises:
            OSError: the disk is full or gone. What was pending stays pending, and the next flush tries again.
        """
        if not self._pending:
            return
        data = b"".join(self._pending)
        self._pending = [data]
        view = memoryview(data)
        try:
            while view:
                count = os.pwrite(self._fd, view, self.written)
                self.written += count
                view = view[count:]
        except OSError:
            self._pending = [bytes(view)]
            raise
        self._pending = []

    def sync(self) -> None:
        """Sync what is written to the disk."""
        sync_data(self._fd)

    # -- forgetting ----------------------------------------------------------------------------------------------

    def forget(self, references: List[Reference]) -> None:
        """Count these records as dead, towards `wants_compaction`."""
        self._dead += sum(reference.end - reference.offset for reference in references)

    @property
    def dead(self) -> int:
        """The number of bytes that are not needed any more."""
        return self._dead

    @property
    def wants_compaction(self) -> bool:
        """Whether the log is long and more than half of it is dead."""
        return self._end > _COMPACT_FROM and self._dead * 2 > self._end

    def compact(self, live: List[Reference], *, rename: bool = False) -> Dict[int, Reference]:
        """Rewrite the log with only these records, in this order. Returns old offset -> new reference.

        This is atomic: the new file is written, synced and renamed. With `rename` it gets another id. Pending records
        are rewritten like the others, because a full disk may have room for them only without the dead records.

        Raises:
            OSError: it could not be rewritten. The log is unchanged.
        """
        if not live and not rename:
            # No record is needed, so no file is written: a full disk may have no room for one.
            os.ftruncate(self._fd, _FILE_HEAD.size)
            self._restart_at(_FILE_HEAD.size)
            return {}
        path = self.path + ".new"
        fd = open_private(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        moved = {}
        name = os.urandom(16) if rename else self.id
        try:
            _write_all(fd, _FILE_HEAD.pack(_FILE_MARK, VERSION, name))
            offset = _FILE_HEAD.size
            for reference in live:
                self._copy(reference, fd, zlib.crc32(name))
                moved[reference.offset] = Reference(offset, reference.header_length, reference.payload_length)
                offset = moved[reference.offset].end
            sync_fd(fd)
            os.rename(path, self.path)
        except BaseException:
            os.close(fd)
            try:
                os.unlink(path)
            except OSError:
                pass  # the next compaction truncates it
            raise
        # dup2 keeps the number, so a sync in the other thread still has an open file.
        os.dup2(fd, self._fd, inheritable=False)
        os.close(fd)
        sync_folder(self.path)
        self.id, self._seed = name, zlib.crc32(name)
        self._restart_at(offset)
        return moved

    def _restart_at(self, end: int) -> None:
        self._end = self.written = end
        self._pending = []
        self._dead = 0
        self.generation += 1

    def _copy(self, reference: Reference, fd: int, seed: int) -> None:
        """Write a record to another log, whose id gives the seed."""
        header_at = reference.offset + _HEAD.size
        payload_at = header_at + reference.header_length
        header = b"".join(self._content(header_at, payload_at))
        crc = zlib.crc32(header, seed)
        for piece in self._content(payload_at, reference.end):
            crc = zlib.crc32(piece, crc)
        _write_all(fd, _HEAD.pack(_MARK, reference.header_length, reference.payload_length, crc) + header)
        for piece in self._content(payload_at, reference.end):
            _write_all(fd, piece)

    def close(self) -> None:
        """Write what is pending, and close the file.

        Raises:
            OSError: it could not be written. The file is closed all the same.
        """
        try:
            self.flush()
        finally:
            os.close(self._fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _record_at(fd: int, seed: int, offset: int, size: int) -> Optional[Tuple[Dict[str, Any], Reference]]:
    """Return the record that begins there, if it is complete and undamaged."""
    head = os.pread(fd, _HEAD.size, offset)
    if len(head) < _HEAD.size:
        return None
    mark, header_length, payload_length, crc = _HEAD.unpack(head)
    reference = Reference(offset, header_length, payload_length)
    if mark != _MARK or header_length > _MAX_HEADER or reference.end > size:
        return None
    header = os.pread(fd, header_length, offset + _HEAD.size)
    check = zlib.crc32(header, seed)
    for piece in _range(fd, reference.end - payload_length, reference.end):
        check = zlib.crc32(piece, check)
    if check != crc:
        return None
    try:
        content = json.loads(header.decode("utf-8"))
    except ValueError:
        return None
    return content, reference


def _range(fd: int, offset: int, end: int) -> Iterator[bytes]:
    while offset < end:
        piece = os.pread(fd, min(end - offset, _PIECE), offset)
        if not piece:
            return
        offset += len(piece)
        yield piece


class LogReader:
    """Reads a log that another process writes, perhaps on another machine, as far as it is whole.

    It is opened anew each time, because only then a shared disk shows what was added. A place that cannot be read is not skipped: its
    bytes may be on their way.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._offset = _FILE_HEAD.size

    def advance(self) -> Iterator[Tuple[Dict[str, Any], Reference]]:
        """Yield the records that were added since the last time.

        Raises:
            SpoolError: the file is of another version.
            OSError: it cannot be read.
        """
        try:
            fd = open_private(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            head = os.pread(fd, _FILE_HEAD.size, 0)
            if len(head) < _FILE_HEAD.size:
                return
            mark, version, name = _FILE_HEAD.unpack(head)
            if mark == _FILE_MARK and version not in (0, VERSION):
                raise SpoolError("{}: a spool of version {}; this agent reads {}".format(self.path, version, VERSION))
            seed = zlib.crc32(name)
            size = os.fstat(fd).st_size
            while True:
                found = _record_at(fd, seed, self._offset, size)
                if found is None:
                    return
                self._offset = found[1].end
                yield found
        finally:
            os.close(fd)

    def read(self, reference: Reference) -> bytes:
        """Return the payload of a record that was read.

        Raises:
            OSError: it cannot be read.
        """
        fd = open_private(self.path, os.O_RDONLY)
        try:
            return b"".join(_range(fd, reference.end - reference.payload_length, reference.end))
        finally:
            os.close(fd)


def scan(path: str) -> Iterator[Dict[str, Any]]:
    """Yield the headers of a log's records, as far as they can be read. Nothing is verified or changed."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        offset = _FILE_HEAD.size
        while offset + _HEAD.size <= size:
            file.seek(offset)
            mark, header_length, payload_length, _ = _HEAD.unpack(file.read(_HEAD.size))
            if mark != _MARK or offset + _HEAD.size + header_length + payload_length > size:
                return
            try:
                header = json.loads(file.read(header_length).decode("utf-8"))
            except ValueError:
                return
            yield header
            offset += _HEAD.size + header_length + payload_length
