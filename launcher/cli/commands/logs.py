"""`launcher logs`: show what a job printed, or prints.

Rule: a pipe gets the bytes as the job wrote them, a terminal what is safe for it (`launcher.live.terminal_filter`). Output that was
copied back is in the job's output directory; the agent of the host is asked for the rest and is not disturbed.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Protocol, TextIO

from launcher.cli import arguments, completion
from launcher.cli.parameters import Argument, Option
from launcher.errors import HostError, RunError, UsageError
from launcher.results.owners import own_folder
from launcher.util.terminal_text import clean
from launcher.util.untrusted_files import read_regular

if TYPE_CHECKING:
    from launcher.agents.query import AgentQuery
    from launcher.runs.index import Entry
    from launcher.runs.journal import JournalReader
    from launcher.runs.status import JobStatusLine

__all__ = ["logs"]

_Follow = Annotated[bool, Option("--follow", "-f", help="Keep printing until the job has ended.")]
_Attempt = Annotated[
    int | None,
    Option("--attempt", metavar="N", help="The attempt to show (default: the last one).", show_default=False),
]
_Stream = Annotated[
    str | None, Option("--stream", metavar="stdout|stderr", help="Show only this stream.", show_default=False)
]
_STREAMS = ("stdout", "stderr")
_CHECK_EVERY = 0.3
#: Bytes of a file that are read at once.
_PIECE = 1 << 22


def logs(
    job: Annotated[
        str,
        Argument(
            metavar="[RUN[#NUM]]",
            help="A job as RUN#NUM; the run alone is enough if it has one job.",
            autocompletion=completion.jobs,
        ),
    ] = "last",
    follow: _Follow = False,
    attempt: _Attempt = None,
    stream: _Stream = None,
    is_json: arguments.Json = False,
) -> None:
    """Show what a job wrote to stdout and stderr; each goes to the stream of the same name."""
    from launcher.runs import index
    from launcher.runs.journal import JournalReader

    if stream is not None and stream not in _STREAMS:
        raise UsageError(f"--stream {stream}: write stdout or stderr")
    if is_json and follow:
        raise UsageError("--follow and --json cannot be combined; leave one out")
    reference = index.parse(job)
    with JournalReader(reference.entry.journal) as reader:
        num = _only_job(reference.entry, reader) if reference.num is None else reference.num
        source = _Source(reference.entry, reader, num, attempt)
        chosen = _STREAMS if stream is None else (stream,)
        if is_json:
            said = source.read()
            while source.has_more:
                said = {
                    name: before + more
                    for (name, before), more in zip(said.items(), source.read().values(), strict=True)
                }
            texts = {name: said[name].decode("utf-8", "backslashreplace") for name in chosen}
            arguments.print_json(run=reference.entry.run, num=num, attempt=source.attempt, **texts)
            return
        _copy(source, chosen, follow)


def _only_job(entry: Entry, reader: JournalReader) -> int:
    if reader.count_jobs() != 1:
        raise UsageError(f"run {entry.run} has {reader.count_jobs()} jobs; name one of them, such as {entry.run}#0")
    last = reader.last_num()
    return 0 if last is None else last


class _Source:
    """What one attempt has printed: from the local file, then from the host, until everything is here."""

    def __init__(self, entry: Entry, reader: JournalReader, num: int, attempt: int | None) -> None:
        self._entry = entry
        self._reader = reader
        self._num = num
        self._job = self._look_up()
        self._asked_for = attempt
        self.attempt = self._job.attempt if attempt is None else attempt
        if attempt is not None and attempt not in [one.attempt for one in self._job.attempts]:
            raise UsageError(f"job {num} has no attempt {attempt}; its last attempt is {self._job.attempt}")
        self._have = dict.fromkeys(_STREAMS, 0)
        self._talk: AgentQuery | None = None
        self._is_silent = False
        self.is_final = False
        #: The local files have more than what was read last.
        self.has_more = False

    def _look_up(self) -> JobStatusLine:
        from launcher.runs.status import read_jobs

        found = read_jobs(self._reader, self._num)
        if not found:
            raise UsageError(f"run {self._entry.run} has no job {self._num}")
        return found[0]

    def read(self) -> dict[str, bytes]:
        """The output that was not read before."""
        # Check for completeness before the files are read: what arrives in between is read the next time.
        is_whole = self.is_whole
        said = {name: self._local(name) for name in _STREAMS}
        self.has_more = any(len(data) == _PIECE for data in said.values())
        if not is_whole and not self.has_more:
            said = self._with_remote(said)
        for name, data in said.items():
            self._have[name] += len(data)
        return said

    @property
    def is_whole(self) -> bool:
        """Whether the local files have everything that the attempt printed."""
        self._job = self._look_up()
        if self._asked_for is None:
            self.attempt = self._job.attempt
        if self.attempt < self._job.attempt:
            return True
        return self._job.state in ("COMPLETED", "FAILED")

    def _local(self, name: str) -> bytes:
        folder = own_folder(Path(self._job.output_dir), self._num)
        if self.attempt < self._job.attempt:
            folder /= f"attempt-{self.attempt}"
        try:
            return read_regular(folder / name, _PIECE, self._have[name])
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise RunError(f"{folder / name}: {error.strerror}") from None

    def _with_remote(self, said: dict[str, bytes]) -> dict[str, bytes]:
        talk = self._reach()
        if talk is None:
            return said
        try:
            while True:
                offsets = {name: self._have[name] + len(said[name]) for name in _STREAMS}
                looked = talk.look(f"{self._num}.{self.attempt}", offsets["stdout"], offsets["stderr"])
                said = {"stdout": said["stdout"] + looked.stdout, "stderr": said["stderr"] + looked.stderr}
                if not looked.stdout and not looked.stderr:
                    # The host has all of the output, and nobody has collected it yet: no more will come.
                    self.is_final = looked.state == "final"
                    return said
        except HostError:
            self.close()
            return said

    def _reach(self) -> AgentQuery | None:
        from launcher.agents.query import AgentQuery
        from launcher.runs import ownership
        from launcher.runs import record as run_record

        if self._talk is not None or self._is_silent or not self._job.host:
            return self._talk
        if not ownership.is_ours(self._entry.folder):
            # The folder would choose which host to ask, and how to log in there.
            self._is_silent = True
            print("launcher: this run is not known to be yours, so its host is not asked", file=sys.stderr)
            return None
        record = run_record.read(self._reader)
        spec = next(one for one in run_record.hosts_of(record, {}) if one.name == self._job.host)
        talk = AgentQuery(spec, "look", record.run)
        try:
            self._talk = talk.__enter__()
        except HostError as error:
            # Printed once; from then on only the local files are read.
            self._is_silent = True
            print(f"launcher: {clean(error)}", file=sys.stderr)
        return self._talk

    @property
    def is_unreachable(self) -> bool:
        """Whether the host did not answer."""
        return self._is_silent

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self._entry.folder

    def close(self) -> None:
        """Close the connection to the host."""
        talk, self._talk = self._talk, None
        if talk is not None:
            talk.__exit__(None, None, None)


def _copy(source: _Source, chosen: tuple[str, ...], follow: bool) -> None:
    from launcher.runs.status import driver

    writers = {"stdout": _writer(sys.stdout), "stderr": _writer(sys.stderr)}
    try:
        while True:
            is_whole = source.is_whole
            said = source.read()
            for name in chosen:
                if said[name]:
                    writers[name](said[name])
            if source.has_more:
                continue
            if not follow or is_whole or source.is_final:
                return
            if source.is_unreachable and not driver(source.folder):
                raise RunError(
                    "no process drives the run, and its host does not answer; this is all the output that is here"
                )
            threading.Event().wait(_CHECK_EVERY)
    finally:
        for write in writers.values():
            write(b"")
        source.close()


class _Write(Protocol):
    def __call__(self, data: bytes) -> None:
        """Write the data; empty data is the end."""


def _writer(stream: TextIO) -> _Write:
    """A function that writes what is safe to a terminal, and the bytes as they are to anything else."""
    from launcher.live.terminal_filter import TerminalFilter

    raw: BinaryIO | None = getattr(stream, "buffer", None)
    shown = TerminalFilter()

    def write(data: bytes) -> None:
        if raw is None or stream.isatty():
            stream.write(shown.feed(data) if data else shown.finish())
            stream.flush()
        else:
            stream.flush()
            raw.write(data)
            raw.flush()

    return write
