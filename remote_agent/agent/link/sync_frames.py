"""Frames of the output files of a job that still runs: what is new in them since the last look.

Rule: the copy that they make is for readers, and nothing depends on it. When the job has ended, all files are sent once more
(`result_frames`), so a change that is missed here costs nothing but time. A file that has only grown since it was sent costs no more than
what is new in it. A file is known by its inode and by its last bytes.

    synced     a part of a file: with `base` 0 of a whole one, from byte 0 to `size`; else of what is new from byte `base` on
"""

import hashlib
import os
import stat
from typing import Dict, Iterator, List, NamedTuple, Optional, Union

from remote_agent.agent.link.holes import has_hole
from remote_agent.agent.link.output_tree import OutputTree, Refusals, wanted
from remote_agent.protocol import wire
from remote_agent.protocol.messages import Synced

__all__ = ["MAX_FILES", "MAX_UNNAMED", "SentFile", "SyncPiece", "sync_pieces"]

#: How many files of a folder are looked at. The others come when the job has ended.
MAX_FILES = 10_000
#: A file that is larger is only begun if a pattern names it.
MAX_UNNAMED = 64 << 20
#: Bytes of a piece. A result waits for no more than a few of them.
_PIECE = 1 << 16
#: How many of the last bytes that were sent must still be in their place, if a file is to have only grown.
_TAIL = 4096


class SentFile(NamedTuple):
    """A file as it was sent."""

    inode: int
    size: int
    mtime: int
    #: The digest of its last bytes.
    tail: bytes


class SyncPiece(NamedTuple):
    """A frame; and if it makes the copy of a file complete, what is then known of that file."""

    frame: bytes
    path: str
    sent: Optional[SentFile]


def sync_pieces(
    attempt_id: str, folder: str, outputs: Union[bool, List[str]], only: List[str], sent: Dict[str, SentFile]
) -> Iterator[SyncPiece]:
    """Yield what is new in the files of a folder. `sent`: what arrived earlier, by path; it is only read here."""
    patterns: Union[bool, List[str]] = only or True
    files = OutputTree(folder, Refusals()).files()
    for number, (relative, path) in enumerate(files):
        if number >= MAX_FILES:
            return
        if wanted(relative, outputs) and wanted(relative, patterns):
            try:
                yield from _file_pieces(attempt_id, relative, path, sent.get(relative), is_named=bool(only))
            except OSError:
                continue  # it is gone, or cannot be read: what is wrong with it is said when the job has ended


def _file_pieces(
    attempt_id: str, relative: str, path: str, before: Optional[SentFile], *, is_named: bool
) -> Iterator[SyncPiece]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        now = os.fstat(fd)
        if not stat.S_ISREG(now.st_mode):
            return
        if before is not None and before[:3] == (now.st_ino, now.st_size, now.st_mtime_ns):
            return
        if now.st_size - now.st_blocks * 512 > MAX_UNNAMED and has_hole(fd, now.st_size):
            return  # it comes at the end, without its holes
        base = _base(fd, now, before)
        if not base and now.st_size > MAX_UNNAMED and not is_named:
            return
        yield from _parts(attempt_id, relative, fd, now, base)
    finally:
        os.close(fd)


def _base(fd: int, now: os.stat_result, before: Optional[SentFile]) -> int:
    """Return from which byte on the file is new; 0 if it may be another one, or was written anew."""
    if before is None or before.inode != now.st_ino or now.st_size <= before.size:
        return 0
    return before.size if _tail(fd, before.size) == before.tail else 0


def _tail(fd: int, size: int) -> bytes:
    length = min(_TAIL, size)
    return hashlib.sha256(os.pread(fd, length, size - length)).digest()


def _parts(attempt_id: str, relative: str, fd: int, now: os.stat_result, base: int) -> Iterator[SyncPiece]:
    header: Synced = {
        "t": "synced",
        "attempt": attempt_id,
        "path": relative,
        "mode": stat.S_IMODE(now.st_mode),
        "size": now.st_size,
        "base": base,
        "offset": base,
    }
    offset = base
    while True:
        data = os.pread(fd, min(_PIECE, now.st_size - offset), offset)
        if not data and offset < now.st_size:
            return  # it became shorter: it is sent anew at the next look
        header["offset"] = offset
        offset += len(data)
        done = offset == now.st_size
        known = SentFile(now.st_ino, now.st_size, now.st_mtime_ns, _tail(fd, now.st_size)) if done else None
        yield SyncPiece(wire.encode(header, data), relative, known)
        if done:
            return
