"""What the jobs print in a run that another process drives, read from the files that this process writes.

Rule: it only reads. What was read once is not read again, also if the file changes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from launcher import events

if TYPE_CHECKING:
    from launcher.runs.journal import JournalReader

__all__ = ["Printing"]

_STREAMS = ("stdout", "stderr")
_PIECE = 1 << 20


@dataclass
class _Read:
    """How far the streams of an attempt were read. `files` has the open files."""

    num: int
    attempt: int
    host: str
    folder: str
    files: dict[str, tuple[int, int]]


class Printing:
    """Makes `OutputArrived` events of new data in the files of running jobs."""

    def __init__(self, reader: JournalReader) -> None:
        self._reader = reader
        self._running: dict[int, _Read] = {}

    def note(self, event: events.Event) -> None:
        """Note an event, without output for it."""
        if isinstance(event, events.AttemptStarted):
            job = self._reader.job_without_payload(event.num)
            folder = os.path.join(job[1] if job is not None else "", ".launcher")
            self._running[event.num] = _Read(event.num, event.attempt, event.host, folder, {})
        elif isinstance(event, (events.JobReturned, events.JobRequeued)):
            read = self._running.pop(event.num, None)
            for fd, _ in read.files.values() if read is not None else ():
                os.close(fd)

    def before(self, event: events.Event) -> Iterator[events.Event]:
        """An event, after the output that its job had printed before it."""
        if isinstance(event, (events.JobReturned, events.JobRequeued)) and event.num in self._running:
            yield from self._new(self._running[event.num])
        self.note(event)
        yield event

    def new(self) -> Iterator[events.OutputArrived]:
        """The output that was not read yet."""
        for read in list(self._running.values()):
            yield from self._new(read)

    def _new(self, read: _Read) -> Iterator[events.OutputArrived]:
        for stream in _STREAMS:
            fd, offset = read.files.get(stream) or (self._open(read, stream), 0)
            if fd < 0:
                continue
            while data := os.pread(fd, _PIECE, offset):
                text = data.decode("utf-8", "surrogateescape")
                yield events.OutputArrived(time.time(), read.num, read.host, stream, text, read.attempt, offset)
                offset += len(data)
            read.files[stream] = (fd, offset)

    @staticmethod
    def _open(read: _Read, stream: str) -> int:
        try:
            return os.open(os.path.join(read.folder, stream), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return -1  # it has printed nothing yet
