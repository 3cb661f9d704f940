"""The one thread that decides: it takes items from the inbox, lets the decider decide, writes the journal, acts, and tells observers.

Rule: while the journal cannot be written, nothing more is decided. Jobs on the hosts go on, and their results wait there. Every
method may be called from any thread: it puts a request into the inbox, and the dispatcher's thread takes it from there.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from launcher import events
from launcher.agents import facts
from launcher.agents.connection import AgentConnection
from launcher.engine.acknowledger import Acknowledger
from launcher.engine.decider import Decider
from launcher.engine.disconnect import close_all, wait_for_ends
from launcher.engine.inbox import Inbox
from launcher.engine.requests import AddToJournal, Cancel, Interrupt, Request, Stop, TakenOver, TakeOver
from launcher.engine.scheduling.scheduler import Scheduler
from launcher.engine.scheduling.state import HostPhase
from launcher.errors import JournalError, JournalMoved, RunError, SessionError
from launcher.hosts.limits import limit
from launcher.results.owners import Ownership
from launcher.runs.journal import Journal, JournalReader, Returned
from remote_agent.job import JobError

__all__ = ["Dispatcher"]

_JOURNAL_RETRY = 1.0
#: The largest number of items in one round, and so in one write of the journal.
_ROUND = 2000
#: A round costs the same for one item as for many. If this many jobs are under way and a second had this many rounds, the next round
#: waits for _PAUSE seconds. The hosts' queues last longer than that.
_BUSY_JOBS = 16
_BUSY_ROUNDS = 20
_PAUSE = 0.02


class _SystemClock:
    """The clocks of this machine."""

    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class _End:
    """End the loop."""


class Dispatcher:
    """Drives a run: `start`, then requests from any thread and facts from the connections, then `close` or `detach`.

    Args:
        connections: by host; may be filled after this object is made.
        deliver: called with each JobReturn, once.
        observe: called with each event after it was journalled.
        wake: called when a thread that the run needs has died.

    Attributes:
        scheduler, journal, connections: the arguments.
        decider: makes the decisions. A resumed run restores it before `start`.
        delivered: set while every job that a host can have is complete on its host. It counts when the controller detaches.
        crash: the exception that killed a thread that the run needs.
        stalled: why the journal cannot be written and so nothing is decided; empty while it can be written.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        journal: Journal,
        connections: dict[str, AgentConnection],
        deliver: Callable[[Returned], None],
        observe: Callable[[events.Event], None],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.scheduler = scheduler
        self.journal = journal
        self.connections = connections
        self._wake = wake
        self._deliver_job = deliver
        self._tell = observe
        self._clock = _SystemClock()
        self._inbox: Inbox[facts.Fact | Request | _End] = Inbox()
        self._acknowledger = Acknowledger(connections, journal.folder, self._fail, lambda: journal.is_in_place)
        self._reader: JournalReader | None = None
        self._reader_lock = threading.Lock()
        self._reader_process = os.getpid()
        self._inherited: JournalReader | None = None
        # The earlier time of our clock and the disk's clock, because the times of files are compared with it.
        began = min(time.time(), os.stat(journal.folder).st_ctime)
        self.decider = Decider(
            scheduler,
            journal,
            connections,
            self._acknowledger.add,
            self._deliver,
            observe,
            self._clock,
            Ownership(began, self._shares_folder),
            self._hold,
        )
        self.delivered = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        self._stopping = threading.Event()
        self._rounds: deque[float] = deque([0.0], _BUSY_ROUNDS)
        #: Notes from hosts that came after the thread had ended.
        self._late_notes: deque[facts.Noted] = deque(maxlen=limit("notes"))
        self.crash: BaseException | None = None
        self.stalled = ""

    # -- from any thread -----------------------------------------------------------------------------------------

    def start(self, *, connect: bool = True) -> None:
        """Start the thread, and begin to connect unless it is known that no host will be needed."""
        self._thread.start()
        if connect:
            for connection in self.connections.values():
                connection.start()

    @property
    def is_running(self) -> bool:
        """Whether the thread runs, so that items in the inbox are decided."""
        return self._thread.is_alive()

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller runs in the thread that decides."""
        return threading.get_ident() == self._thread.ident

    def put_fact(self, fact: facts.Fact) -> None:
        """Put a fact into the inbox. Waits while the inbox is full."""
        if self._stopping.is_set() and isinstance(fact, facts.Noted):
            self._late_notes.append(fact)
            return
        self._inbox.put_bulk(fact, sum(map(_weight, vars(fact).values())), fact.host)

    def ask(self, request: Request) -> None:
        """Put a request into the inbox. Never waits."""
        self._inbox.put(request)

    def cancel(self, num: int) -> None:
        """Cancel one job."""
        self.ask(Cancel(num))

    def stop_job(self, num: int) -> None:
        """Ask one job to stop at its next report."""
        self.ask(Stop(num))

    def interrupt(self, why: str, *, kill: bool = False) -> None:
        """Cancel everything. With `kill`, jobs get no grace period."""
        self.ask(Interrupt(why, kill))

    def take_over(self, jobs: Sequence[TakenOver]) -> None:
        """Add jobs that an earlier run has completed. Returns when the journal has them.

        Raises:
            SessionError: the run ended before that.
        """
        done = threading.Event()
        self.ask(TakeOver(tuple(jobs), done))
        while not done.wait(_JOURNAL_RETRY):
            if self.crash is not None or self._stopping.is_set():
                raise SessionError("the run ended while it took over jobs of earlier runs; continue it again")

    def record(
        self,
        happened: Sequence[events.Event] = (),
        meta: dict[str, str] | None = None,
        blobs: dict[str, bytes] | None = None,
    ) -> None:
        """Journal something about the whole run, before anything that is submitted after this."""
        self.ask(AddToJournal(tuple(happened), meta or {}, blobs or {}))

    @property
    def reader(self) -> JournalReader:
        """The journal, for reading."""
        if os.getpid() != self._reader_process:
            # This is a fork of our process. Two processes must not read the same open file, so keep it open and open another.
            # The lock is new, because a thread may have held it at the fork.
            self._inherited, self._reader = self._reader, None
            self._reader_lock, self._reader_process = threading.Lock(), os.getpid()
        with self._reader_lock:
            if self._reader is None:
                self._reader = JournalReader(self.journal.folder)
            return self._reader

    def _shares_folder(self, num: int, folder: Path) -> bool:
        """Whether another job of the run writes to this folder, too. True if the journal cannot be read."""
        try:
            return self.reader.shares_folder(num, folder)
        except (JournalError, RunError):
            return True

    def _hold(self) -> None:
        """Wait until the journal is in its place. If the run's folder was moved away, a new folder must not take its place.

        The connections' readers call this. They read nothing in the meantime, so the host must wait.

        Raises:
            OSError: the run ends before that. The host keeps what could not be written.
        """
        while not self.journal.is_in_place:
            if self._stopping.wait(_JOURNAL_RETRY):
                why = "the run's folder is not in its place"
                raise OSError(errno.ESTALE, why, str(self.journal.folder))

    # -- ending --------------------------------------------------------------------------------------------------

    def detach(self) -> list[str]:
        """End, and let the agents go on. Returns the hosts that have all their jobs."""
        self._stop()
        close_all(self.connections.values())
        return [name for name in self.connections if name in self.decider.effects.confirmed]

    def detach_at_once(self, timeout: float) -> bool:
        """End without waiting for hosts or telling them. What is in the inbox is journalled if there is time.

        Returns:
            Whether the thread has ended, so that the caller may write the journal.
        """
        self._stopping.set()
        self._inbox.put(_End())
        if self._thread.ident is not None:
            self._thread.join(timeout)
        self._inbox.close()
        self._acknowledger.stop_at_once()
        return not self._thread.is_alive()

    def drop_links(self) -> None:
        """Close each connection in its own thread. Call it after `detach_at_once` if the process goes on."""
        for connection in self.connections.values():
            threading.Thread(target=connection.close, name=f"close-{connection.host}", daemon=True).start()

    @property
    def not_ended(self) -> list[str]:
        """Return the hosts whose agents have not ended the run yet."""
        return [name for name, connection in self.connections.items() if not connection.wait_finished(0.0)]

    def close(self, *, keep: bool = False) -> list[str]:
        """End the run on all hosts. Returns those whose agents could not be told."""
        self._stop()
        unreached = []
        told = []
        for name, connection in self.connections.items():
            if connection.is_connected:
                connection.finish(keep=keep, interrupted=self.scheduler.interrupted is not None)
                told.append(connection)
            elif self.scheduler.hosts[name].phase in (HostPhase.UNKNOWN, HostPhase.LOST):
                unreached.append(name)
        unreached += wait_for_ends(told, lambda message: self._tell(events.Note(time.time(), message)))
        self._show_late_notes()
        close_all(self.connections.values())
        return unreached

    def _show_late_notes(self) -> None:
        """Show the notes from hosts that came after the thread had ended. Nothing follows from them."""
        if self._late_notes and not self._thread.is_alive():
            self.decider.decide(iter(self._late_notes))
            self._commit()

    def _stop(self) -> None:
        self._acknowledger.flush()
        self._stopping.set()
        self._inbox.put(_End())
        if self._thread.ident is not None:
            self._thread.join()
        self._inbox.close()
        self._acknowledger.stop()

    def close_journal(self, *happened: events.Event) -> None:
        """Write the last events and close the journal. The writer closes it last, because a reader cannot remove the log."""
        with self._reader_lock:
            if self._reader is not None:
                self._reader.close()
        self.journal.append(list(happened))
        self.journal.close()

    # -- the loop ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:  # noqa: BLE001 - after a defect here, the caller must not wait for ever
            self._fail(error)
        finally:
            self._inbox.close()

    def _fail(self, crash: BaseException) -> None:
        """Record that a thread has died, with the traceback, and wake whoever waits for the run."""
        told = "".join(traceback.format_exception(crash))
        self.crash = self.crash or crash
        self._tell(events.Warned(time.time(), "controller", f"{type(crash).__name__}: {crash}", told))
        self._wake()

    def _turn(self) -> bool:
        self._pause_under_load()
        deadline = self.decider.deadline()
        timeout = None if deadline is None else max(0.0, deadline - self._clock.monotonic()) + 0.01
        items = self._inbox.get(_ROUND, timeout)
        going = not any(isinstance(item, _End) for item in items)
        self.decider.decide(item for item in items if not isinstance(item, _End))
        if self._commit() and self.decider.effects.has_delivered:
            self.delivered.set()
        return going

    def _pause_under_load(self) -> None:
        """Pause under load, so that a round decides several items at once."""
        now = time.monotonic()
        is_fast = now - self._rounds[0] < 1.0
        self._rounds.append(now)
        if is_fast and len(self.scheduler.jobs) >= _BUSY_JOBS:
            self._stopping.wait(_PAUSE)

    def _commit(self) -> bool:
        """Journal the round and act on it. Waits while it cannot be written. Returns False if the thread should end by then."""
        while True:
            try:
                self.decider.commit()
            except JournalError as error:
                if self.stalled != str(error):
                    self.stalled = str(error)
                    step = "put it back as it was" if isinstance(error, JournalMoved) else "free some space"
                    message = (
                        f"{error}; no more jobs are sent until it can be written ({step}); running jobs go on, and the "
                        "hosts keep their results"
                    )
                    self._tell(events.Warned(time.time(), "journal", message))
                if self._stopping.wait(_JOURNAL_RETRY):
                    return False
                continue
            if self.stalled:
                self.stalled = ""
                self._tell(events.Note(time.time(), "the journal can be written again"))
            return True

    def _deliver(self, returned: Returned) -> None:
        self._acknowledger.wrote_to(returned.output_dir)
        self._deliver_job(returned)


def _weight(value: Any) -> int:
    """Return roughly how many bytes a fact takes in memory. A text or a list may be as long as a frame."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, dict):
        return 64 + sum(_weight(one) for pair in value.items() for one in pair)
    if isinstance(value, (list, tuple)):
        return 64 + sum(map(_weight, value))
    if isinstance(value, JobError):
        return _weight(vars(value))
    return 8
