"""The thread of a session that is used as an executor. It drives the run from the start hook to the end hook.

Rule: it is not a daemon thread, so the process does not end while a run lasts. When the main thread has ended, it closes the session,
as the executors of the standard library do.
"""

from __future__ import annotations

import concurrent.futures
import queue
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["SessionThread"]


class SessionThread:
    """Begins the run and drives it. In the meantime it makes calls for other threads.

    Args:
        begin: opens the run. `start` raises what it raises.
        live: drives the run to its end, and calls `serve` between its waits.
        wake: wakes `live`.
    """

    def __init__(self, begin: Callable[[], None], live: Callable[[], None], wake: Callable[[], None]) -> None:
        self._begin = begin
        self._live = live
        self._wake = wake
        self._begun: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], concurrent.futures.Future[Any]]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="session")

    def start(self) -> None:
        """Begin. Returns when the run is open."""
        self._thread.start()
        self._begun.result()

    @property
    def ident(self) -> int | None:
        """The identifier of the thread."""
        return self._thread.ident

    @property
    def must_close(self) -> bool:
        """Whether the main thread has ended, so that nobody is left to close the session."""
        return not threading.main_thread().is_alive()

    def call(self, function: Callable[[], Any]) -> Any:
        """Call this in the thread, and return what it returns. After the thread's end, call it here."""
        if threading.get_ident() == self.ident or self.ended.done():
            return function()
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._calls.put((function, future))
        self._wake()
        concurrent.futures.wait([future, self.ended], return_when=concurrent.futures.FIRST_COMPLETED)
        return future.result() if future.done() else function()

    def serve(self) -> None:
        """Make the calls that other threads asked for. Runs in the thread."""
        while True:
            try:
                function, future = self._calls.get_nowait()
            except queue.Empty:
                return
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
                if not isinstance(error, Exception):
                    raise

    def _run(self) -> None:
        try:
            self._begin()
        except BaseException as error:  # noqa: BLE001 - `start` raises it
            self.ended.set_result(None)
            self._begun.set_exception(error)
            return
        self._begun.set_result(None)
        try:
            self._live()
        except BaseException as error:  # noqa: BLE001 - raised where somebody waits for the end
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)
