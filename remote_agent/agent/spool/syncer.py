"""A thread that syncs the spool's log to the disk, so that the loop of the agent never waits for the disk.

Rule: one sync covers many records: those that are written during a sync wait for the next one.
"""

import threading
from typing import Callable, List, Optional, Tuple

from remote_agent.agent.spool.log import SpoolLog

__all__ = ["Syncer"]


class Syncer:
    """A thread that syncs the log to the disk, many records at a time.

    `request(generation, upto)` asks for a sync. `completed()` returns what is done, **in the agent's thread**. `wake`
    is called in the syncer's thread to wake the agent's. A failed sync is reported as an error text, and tried again
    with the next request.
    """

    def __init__(self, log: SpoolLog, wake: Callable[[], None]) -> None:
        self._log = log
        self._wake = wake
        self._condition = threading.Condition()
        self._wanted: Optional[Tuple[int, int]] = None
        self._done: List[Tuple[int, int, str]] = []
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="spool-sync", daemon=True)
        self._thread.start()

    def request(self, generation: int, upto: int) -> None:
        """Ask for everything up to this offset to be on the disk."""
        with self._condition:
            self._wanted = (generation, upto)
            self._condition.notify()

    def completed(self) -> List[Tuple[int, int, str]]:
        """Return (generation, offset, error text) of each sync since the last call."""
        with self._condition:
            done, self._done = self._done, []
        return done

    def stop(self) -> None:
        """End the thread."""
        with self._condition:
            self._stop = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                while self._wanted is None and not self._stop:
                    self._condition.wait()
                if self._wanted is None:
                    return
                generation, upto = self._wanted
                self._wanted = None
            error = ""
            try:
                self._log.sync()
            except OSError as problem:
                error = "{}: {}".format(self._log.path, problem.strerror or problem)
            with self._condition:
                self._done.append((generation, upto, error))
            self._wake()
