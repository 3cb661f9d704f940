"""What one job has printed: what is here already, and the rest from its host.

Rule: output that was copied back is in the job's output directory. The agent of the host is asked for the rest, and is not disturbed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import HostError, RunError, UsageError
from launcher.results.owners import own_folder
from launcher.util.untrusted_files import read_regular

if TYPE_CHECKING:
    from launcher.agents.queries.query import AgentQuery
    from launcher.runs.index import Entry
    from launcher.runs.journal import JournalReader
    from launcher.runs.status import JobStatusLine

__all__ = ["STREAMS", "Answer", "JobOutput"]

STREAMS = ("stdout", "stderr")
#: Bytes of a file that are read at once.
_PIECE = 1 << 22


class Answer(enum.Enum):
    """What a host said when it was asked for output.

    `WHOLE`: all that it has, or it did not have to be asked. `LOST`: not all; it is asked again. `NONE`: nothing, and it is asked no more. `NOT_ASKED`: it may
    not be asked at all.
    """

    WHOLE = enum.auto()
    LOST = enum.auto()
    NONE = enum.auto()
    NOT_ASKED = enum.auto()

    @property
    def is_last(self) -> bool:
        """Whether the host is asked no more."""
        return self in (Answer.NONE, Answer.NOT_ASKED)


class JobOutput:
    """What one attempt has printed: from the local file, then from the host, until everything is here. One thread uses it.

    Args:
        attempt: None for the last one.
        tell: called once with what is wrong, if the host cannot be asked.

    Raises:
        UsageError: the run has no such job, or the job no such attempt.
    """

    def __init__(
        self,
        entry: Entry,
        reader: JournalReader,
        num: int,
        attempt: int | None,
        *,
        tell: Callable[[str], None] = lambda problem: None,
    ) -> None:
        self._entry = entry
        self._tell = tell
        #: What is wrong; empty if nothing is.
        self.problem = ""
        self._reader = reader
        self._num = num
        self._job = self._look_up()
        self._asked_for = attempt
        self.attempt = self._job.attempt if attempt is None else attempt
        if attempt is not None and attempt not in [one.attempt for one in self._job.attempts]:
            raise UsageError(f"job {num} has no attempt {attempt}; its last attempt is {self._job.attempt}")
        self._have = dict.fromkeys(STREAMS, 0)
        self._talk: AgentQuery | None = None
        #: What the host said when it was asked last.
        self.answer = Answer.WHOLE
        self.is_final = False
        #: The local files have more than what was read last.
        self.has_more = False

    @property
    def job(self) -> str:
        """The job as a command takes it: RUN#NUM."""
        return f"{self._entry.run}#{self._num}"

    def _look_up(self) -> JobStatusLine:
        from launcher.runs.status import read_jobs

        found = read_jobs(self._reader, self._num)
        if not found:
            raise UsageError(
                f"run {self._entry.run} has no job {self._num}; 'launcher show {self._entry.run} --all' lists those that it has"
            )
        return found[0]

    def read(self) -> dict[str, bytes]:
        """The output that was not read before."""
        # Check for completeness before the files are read: what arrives in between is read the next time.
        is_whole = self.is_whole
        said = {name: self._local(name) for name in STREAMS}
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
                offsets = {name: self._have[name] + len(said[name]) for name in STREAMS}
                looked = talk.look(f"{self._num}.{self.attempt}", offsets["stdout"], offsets["stderr"])
                said = {"stdout": said["stdout"] + looked.stdout, "stderr": said["stderr"] + looked.stderr}
                if not looked.stdout and not looked.stderr:
                    # The host has all of the output, and nobody has collected it yet: no more will come.
                    self.is_final = looked.state == "final"
                    self.answer = Answer.WHOLE
                    return said
        except HostError:
            self.answer = Answer.LOST
            self.close()
            return said

    def _reach(self) -> AgentQuery | None:
        from launcher.agents.queries.query import AgentQuery
        from launcher.runs import ownership
        from launcher.runs import record as run_record

        if self._talk is not None or self.answer.is_last or not self._job.host:
            return self._talk
        if not ownership.is_ours(self._entry.folder):
            # The folder would choose which host to ask, and how to log in there.
            self._give_up(Answer.NOT_ASKED, "this run is not known to be yours, so its host is not asked")
            return None
        record = run_record.read(self._reader)
        spec = next(one for one in run_record.hosts_of(record, {}) if one.name == self._job.host)
        try:
            talk = AgentQuery(spec, "look", record.run)
            self._talk = talk.__enter__()
        except HostError as error:
            self._give_up(Answer.NONE, str(error))
        return self._talk

    def _give_up(self, answer: Answer, problem: str) -> None:
        """Ask the host no more, and say why, once. From then on only the local files are read."""
        self.answer, self.problem = answer, problem
        self._tell(problem)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self._entry.folder

    def close(self) -> None:
        """Close the connection to the host."""
        talk, self._talk = self._talk, None
        if talk is not None:
            talk.__exit__(None, None, None)
