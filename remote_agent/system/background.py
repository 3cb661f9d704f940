"""A thread for slow work (writing a tree of files, removing one), so that the loop of the agent never waits for a disk.

Rule: work runs here, its callback runs in the agent's thread.
"""

import queue
import sys
import threading
import traceback
from typing import Any, Callable, List, Optional, Tuple

__all__ = ["BackgroundThread"]

_Done = Optional[Callable[[Optional[BaseException]], None]]


class BackgroundThread:
    """One thread. The agent's thread calls `submit` and, after `wake` was called, `deliver`."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._queue: "queue.Queue[Optional[Tuple[Callable[[], Any], _Done]]]" = queue.Queue()
        self._results: List[Tuple[_Done, Optional[BaseException]]] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], Any], done: _Done) -> None:
        """Run work in the thread, and then done(error or None) in the agent's thread."""
        self._queue.put((work, done))

    def post(self, call: Callable[[], None]) -> None:
        """Have this called in the agent's thread. Any thread may post."""
        with self._lock:
            self._results.append((lambda error: call(), None))
        self._wake()

    def deliver(self) -> None:
        """Run the callbacks of all work that has ended."""
        with self._lock:
            results, self._results = self._results, []
        for done, error in results:
            if done is not None:
                done(error)
            elif error is not None:
                traceback.print_exception(type(error), error, error.__traceback__, file=sys.stderr)

    def stop(self) -> None:
        """End the thread when its work is done."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                return
            work, done = item
            error: Optional[BaseException] = None
            try:
                work()
            except Exception as problem:  # noqa: BLE001
                error = problem
            with self._lock:
                self._results.append((done, error))
            self._wake()
