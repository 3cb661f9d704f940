"""Answers queries about a Slurm run from its files on the shared disk, whether or not a controller is connected.

Rule: a query changes nothing. What allocations write is seen as late as the disk shows it.
"""

import os
import time
from typing import Any, Dict, Iterator, Optional

from remote_agent.agent.answering import answer_on_stdin
from remote_agent.agent.queries import output_frames, state_frames, summary_of
from remote_agent.agent.spool.attempt import Attempt
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.agent.spool.records import unknown_spec
from remote_agent.protocol.messages import Look
from remote_agent.slurm.pool.incarnations import FOLDER, Incarnation, Incarnations, holders
from remote_agent.slurm.pool.pool import Pool
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from remote_agent.system.host import Folders

__all__ = ["Looking", "serve_looking"]


class Looking:
    """What the files of a run say.

    Args:
        spool: the folder of the run.
    """

    def __init__(self, run: str, host: str, spool: str) -> None:
        self._run = run
        self._host = host
        self._spool = spool
        files = SharedFiles(spool, "look")
        self._pool = Pool(files, "look")
        self._incarnations = Incarnations(files)

    def states(self) -> Dict[str, Dict[str, Any]]:
        """What `summary_of` says of each attempt of which the controller has no result."""
        takers = self._takers()
        return {one: summary_of(_known(one, takers.get(one))) for one in self._pool.all_attempts()}

    def answer(self, header: Look) -> Iterator[bytes]:
        """The frames that answer one `look` message."""
        attempt_id = header["attempt"]
        if attempt_id is None:
            yield from state_frames(self.states())
            return
        incarnation = self._takers().get(attempt_id)
        attempt = _known(attempt_id, incarnation)
        is_known = incarnation is not None or attempt_id in self._pool.all_attempts()
        streams = {} if incarnation is None else self._paths_of(incarnation).streams(attempt)
        yield from output_frames(header, streams, attempt.short_state() if is_known else "unknown")

    def _takers(self) -> Dict[str, Optional[Incarnation]]:
        """Attempt -> the allocation that has it, as far as its log is there."""
        self._incarnations.advance(time.monotonic())
        return {attempt: self._incarnations.get(name) for attempt, (_, name) in holders(self._pool.takers()).items()}

    def _paths_of(self, incarnation: Incarnation) -> SpoolPaths:
        own = os.path.join(self._spool, FOLDER, incarnation.name)
        return SpoolPaths(self._run, self._host, Folders("", own, own), "", 0o077, "")


def _known(attempt_id: str, incarnation: Any) -> Attempt:
    """What the log of who has it says of an attempt; if there is nothing, it waits."""
    known = None if incarnation is None else incarnation.attempts.get(attempt_id)
    return known if known is not None else Attempt(unknown_spec(attempt_id))


def serve_looking(run: str, host: str, spool: str) -> int:
    """Answer on stdin and stdout until stdin ends. Returns the exit code."""
    looking = Looking(run, host, spool)
    return answer_on_stdin(lambda frame: looking.answer(frame.header) if frame.header["t"] == "look" else ())
