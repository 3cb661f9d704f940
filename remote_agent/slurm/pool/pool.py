"""The jobs of a run that wait for an allocation, and who has taken which.

Rule: an attempt is taken by a hard link to a file that names the taker, once and for ever, so that a repeated submission, a requeue or a late
start runs no job twice. A cancel of an attempt that waits takes it, too: then no allocation can start it. Only the submitter puts jobs in.

    jobs/<class>/<attempt>     the message `job` as the controller sent it
    claims/<attempt>           a link to the taker's `.id`, which lies beside it
    stop/<attempt>             how to end an attempt that an allocation has
    asked/<attempt>            it is asked to stop at its next report
    over/<turn>                the run is over for the submitter with this turn, and for all before it
"""

import errno
import json
from typing import Dict, List, NamedTuple, Optional, Tuple

from remote_agent.protocol import wire
from remote_agent.protocol.messages import SendJob
from remote_agent.slurm.shared_disk.shared_files import SharedFiles

__all__ = ["Pool", "Stop", "order_of"]

_JOBS, _CLAIMS, _STOP, _ASKED, _OVER = "jobs", "claims", "stop", "asked", "over"


class Stop(NamedTuple):
    """A request to end an attempt, like the message `cancel`."""

    kind: str
    kill: bool
    why: str


class Pool:
    """The pool of a run, as one process sees it.

    Args:
        taker: the name under which this process takes attempts.
    """

    def __init__(self, files: SharedFiles, taker: str) -> None:
        self._files = files
        self.taker = taker
        self._id = ""
        self._ids = 0
        #: attempt -> taker. A claim never changes.
        self._takers: Dict[str, str] = {}
        #: Attempts of which it is not known whether this process has taken them.
        self._doubtful: Dict[str, None] = {}
        #: attempt -> the class into which it was put.
        self._classes: Dict[str, str] = {}
        for folder in (_JOBS, _CLAIMS, _STOP, _ASKED, _OVER):
            files.make_folder(folder)

    # -- jobs ----------------------------------------------------------------------------------------------------

    def put(self, klass: str, attempt: str, header: SendJob, payload: bytes) -> None:
        """Put a job in. One that is in already stays as it is.

        Raises:
            OSError: it is not known whether it is in. It may be put in again.
        """
        self._files.make_folder(_JOBS, klass)
        self._files.offer(wire.encode(header, payload), _JOBS, klass, attempt)
        self._classes[attempt] = klass

    def job(self, klass: str, attempt: str) -> Optional[wire.Frame]:
        """The message of a job; None if it cannot be seen here yet."""
        data = self._files.read(_JOBS, klass, attempt)
        return None if data is None else wire.Decoder().feed(data)[0]

    def classes(self) -> List[str]:
        """The classes of resources that jobs were put into."""
        return sorted(self._files.names(_JOBS))

    def class_of(self, attempt: str) -> Optional[str]:
        """The class into which an attempt was put; None if it is not in, or cannot be seen here yet."""
        if attempt not in self._classes:
            for klass in self.classes():
                self._classes.update(dict.fromkeys(self._files.names(_JOBS, klass), klass))
        return self._classes.get(attempt)

    def job_of(self, attempt: str) -> Optional[wire.Frame]:
        """The message of a job of any class; None if it cannot be seen here yet."""
        klass = self.class_of(attempt)
        return None if klass is None else self.job(klass, attempt)

    def all_attempts(self) -> List[str]:
        """The attempts of all classes, in their order."""
        return sorted((one for klass in self.classes() for one in self._files.names(_JOBS, klass)), key=order_of)

    def attempts(self, klass: str) -> List[str]:
        """All attempts of a class, in their order."""
        return sorted(self._files.names(_JOBS, klass), key=order_of)

    def waiting(self, klass: str) -> List[str]:
        """The attempts of a class that nobody is seen to have taken, in their order. Some of them may be taken."""
        taken = self._known_takers()
        return [attempt for attempt in self.attempts(klass) if attempt not in taken]

    def forget(self, attempt: str) -> None:
        """Remove the files of an attempt whose result is stored. Its claim stays, so that it never starts again."""
        klass = self.class_of(attempt)
        if klass is not None:
            self._files.remove(_JOBS, klass, attempt)
        self._files.remove(_STOP, attempt)
        self._files.remove(_ASKED, attempt)

    # -- claims --------------------------------------------------------------------------------------------------

    def take(self, attempt: str) -> Optional[bool]:
        """Take an attempt. Returns whether it is ours; None if that is not known. Then `settled` tells it later, if this is not called again."""
        if attempt not in self._takers:
            try:
                is_ours = self._link(attempt)
            except OSError as error:
                if error.errno == errno.EMLINK:
                    # This file system gives a file no more names.
                    self._id = ""
                    return self.take(attempt)
                self._doubtful[attempt] = None
                return None
            if is_ours:
                self._takers[attempt] = self.taker
        self._doubtful.pop(attempt, None)
        return self._takers.get(attempt) == self.taker

    def _link(self, attempt: str) -> bool:
        if not self._id:
            self._ids += 1
            self._id = self._files.keep(self._name(), _CLAIMS, ".{}.{}".format(self.taker, self._ids))
        return self._files.claim(self._id, self._name(), _CLAIMS, attempt)

    def _name(self) -> bytes:
        return self.taker.encode("ascii")

    def settled(self) -> List[str]:
        """Ask again for attempts that may be ours. Returns those that are."""
        return [attempt for attempt in list(self._doubtful) if self.take(attempt)]

    def takers(self) -> Dict[str, str]:
        """Attempt -> who has taken it, as far as this machine sees."""
        return dict(self._known_takers())

    def _known_takers(self) -> Dict[str, str]:
        for attempt in self._files.names(_CLAIMS):
            if attempt not in self._takers:
                taker = self._files.read(_CLAIMS, attempt)
                if taker is not None:
                    self._takers[attempt] = taker.decode("ascii")
        return self._takers

    # -- ending --------------------------------------------------------------------------------------------------

    def stop(self, attempt: str, stop: Stop) -> None:
        """Ask whoever has an attempt to end it.

        Raises:
            OSError: it is not known whether the request is there.
        """
        self._files.write(
            json.dumps({"kind": stop.kind, "kill": stop.kill, "why": stop.why}).encode("ascii"), _STOP, attempt
        )

    def ask(self, attempt: str) -> None:
        """Ask an attempt that an allocation has to stop at its next report.

        Raises:
            OSError: it is not known whether the request is there.
        """
        self._files.write(b"", _ASKED, attempt)

    def asked(self) -> List[str]:
        """The attempts that are asked, as far as this machine sees."""
        return self._files.names(_ASKED)

    def end(self, turn: int) -> None:
        """Say that no job follows for allocations that submitters up to this turn have asked for.

        Raises:
            OSError: it is not known whether it is said.
        """
        self._files.write(b"", _OVER, str(turn))

    def is_over(self, turn: int) -> bool:
        """Whether that is said for an allocation that the submitter of this turn has asked for."""
        return any(name.isdigit() and int(name) >= turn for name in self._files.names(_OVER))

    def stops(self) -> Dict[str, Stop]:
        """The requests that can be seen here."""
        found = {}
        for attempt in self._files.names(_STOP):
            data = self._files.read(_STOP, attempt)
            if data is not None:
                found[attempt] = Stop(**json.loads(data.decode("ascii")))
        return found


def order_of(attempt: str) -> Tuple[int, int]:
    """Order attempts by job, and then by number.

    Raises:
        ValueError: it is not the name of an attempt.
    """
    num, _, number = attempt.partition(".")
    return int(num), int(number)
