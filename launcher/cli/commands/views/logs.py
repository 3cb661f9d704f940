"""`launcher logs`: show what a job printed, or prints.

Rule: a pipe gets the bytes as the job wrote them, a terminal what is safe for it (`launcher.live.terminal_filter`). Output that was
copied back is in the job's output directory; the agent of the host is asked for the rest and is not disturbed.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Annotated, BinaryIO, Protocol, TextIO

from launcher.cli import arguments, completion
from launcher.cli.parameters import Argument, Option
from launcher.errors import RunError, UsageError
from launcher.terminal.job_output import STREAMS, Answer, JobOutput
from launcher.util.text.terminal_text import clean

if TYPE_CHECKING:
    from launcher.runs.index import Entry
    from launcher.runs.journal import JournalReader

__all__ = ["logs"]

_Follow = Annotated[bool, Option("--follow", "-f", help="Keep printing until the job has ended.")]
_Attempt = Annotated[
    int | None,
    Option("--attempt", metavar="N", help="The attempt to show (default: the last one).", show_default=False),
]
_Stream = Annotated[
    str | None, Option("--stream", metavar="stdout|stderr", help="Show only this stream.", show_default=False)
]
_CHECK_EVERY = 0.3


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

    if stream is not None and stream not in STREAMS:
        raise UsageError(f"--stream {stream}: write stdout or stderr")
    if is_json and follow:
        raise UsageError("--follow and --json cannot be combined; leave one out")
    reference = index.parse(job)
    with JournalReader(reference.entry.journal) as reader:
        num = _only_job(reference.entry, reader) if reference.num is None else reference.num
        source = JobOutput(reference.entry, reader, num, attempt, tell=_tell)
        chosen = STREAMS if stream is None else (stream,)
        if is_json:
            said = source.read()
            while source.has_more:
                said = {
                    name: before + more
                    for (name, before), more in zip(said.items(), source.read().values(), strict=True)
                }
            texts = {name: said[name].decode("utf-8", "backslashreplace") for name in chosen}
            arguments.print_json(run=reference.entry.run, num=num, attempt=source.attempt, **texts)
            if not source.is_whole:
                _check_answered(source)
            return
        _copy(source, chosen, follow)


def _only_job(entry: Entry, reader: JournalReader) -> int:
    if reader.count_jobs() != 1:
        raise UsageError(f"run {entry.run} has {reader.count_jobs()} jobs; name one of them, such as {entry.run}#0")
    last = reader.last_num()
    return 0 if last is None else last


def _tell(problem: str) -> None:
    print(f"launcher: {clean(problem)}", file=sys.stderr)


def _copy(source: JobOutput, chosen: tuple[str, ...], follow: bool) -> None:
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
            if is_whole or source.is_final:
                return
            if not follow:
                _check_answered(source)
                return
            if source.answer.is_last and not driver(source.folder):
                raise RunError(
                    f"job {source.job}: no process drives its run, and its host does not answer, so this is all the output that is here; "
                    f"when the host can be reached, 'launcher attach' collects the rest"
                )
            threading.Event().wait(_CHECK_EVERY)
    finally:
        for write in writers.values():
            write(b"")
        source.close()


def _check_answered(source: JobOutput) -> None:
    """Raise a RunError if the host may have more of the output, and did not answer."""
    if source.answer in (Answer.LOST, Answer.NONE):
        raise RunError(
            f"job {source.job}: its host did not answer, so this is all the output that is here; try again, or look with 'launcher doctor'"
        )


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
