"""Workers: the processes that take job after job (`isolation: reuse`), as the agent sees them.

Rule: a worker gets only jobs with the variables of its first one, and only when the log says that the one before is over. So no signal and no message for
a job can reach the next one, and no later agent takes the process for an earlier job's. Whatever is in doubt ends the worker.
"""

import array
import socket
from typing import Any, Dict, Iterator, List, Optional

from remote_agent.agent.spool.attempt import Attempt
from remote_agent.agent.zygotes.client import ZygoteClient

__all__ = ["Worker", "Workers"]


class Worker:
    """One process.

    Attributes:
        attempt: the job that it has; None while it waits.
        pid, started: what identifies the process; None until its zygote has reported it.
        sock: our end of its socket.
        is_last: it gets no further job, and ends by itself.
        spent, peak_memory: seconds of CPU time, and the greatest peak, of the jobs that it has done.
    """

    def __init__(
        self, attempt: Attempt, zygote: ZygoteClient, environment: Dict[str, str], sock: socket.socket
    ) -> None:
        #: By this name its zygote reports it: that of its first job.
        self.name = attempt.id
        self.zygote = zygote
        self.environment = environment
        self.attempt: Optional[Attempt] = attempt
        self.pid: Optional[int] = None
        self.started = ""
        self.sock = sock
        self.is_last = False
        self.spent = 0.0
        self.peak_memory = 0

    def send(self, data: bytes, fds: List[int]) -> bool:
        """Send it a job. Returns False if it did not get all of it; it cannot begin the job then."""
        ancillary: Any = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        try:
            return self.sock.sendmsg([data], ancillary) == len(data)
        except OSError:
            return False


class Workers:
    """The workers of all zygotes, until their end is reported."""

    def __init__(self) -> None:
        self._by_name: Dict[str, Worker] = {}

    def add(self, worker: Worker) -> None:
        """Add a worker that was just handed its first job."""
        self._by_name[worker.name] = worker

    def get(self, name: str) -> Optional[Worker]:
        """Return the worker of that name, if it is one."""
        return self._by_name.get(name)

    def remove(self, name: str) -> Optional[Worker]:
        """Remove and return the worker of that name: its process, or its zygote, is gone."""
        worker = self._by_name.pop(name, None)
        if worker is not None:
            worker.is_last = True
        return worker

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._by_name.values()))

    def idle(self) -> List[Worker]:
        """Return the workers that wait; the one that was made first comes first."""
        return [one for one in self._by_name.values() if one.attempt is None and not one.is_last]
