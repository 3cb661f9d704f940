"""The one thread that decides: it takes what came, has the decider work it out, journals it, acts, and tells who watches.

Rule: while the journal cannot be written, nothing more is decided; the jobs on the hosts go on, and their results wait there. Every
method may be called from any thread: a request is put into the inbox, and the thread takes it from there.
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
from launcher.engine.requests import AddToJournal, Cancel, Interrupt, Request
from launcher.engine.scheduler import HostPhase, Scheduler
from launcher.errors import JournalError, JournalMoved, RunError
from launcher.host_limits import limit
from launcher.results.owners import Ownership
from launcher.runs.journal import Journal, JournalReader, Returned
from remote_agent.job import JobError

__all__ = ["Dispatcher"]

_JOURNAL_RETRY = 1.0
#: At most so many items are decided in one round, and so in one write of the journal.
_ROUND = 2000
#: A round costs the same for one item as for many. If this many jobs are under way and there were this many rounds within a second,
#: the next round waits for _PAUSE seconds. The hosts have queued jobs for longer than that.
_BUSY_JOBS = 16
_BUSY_ROUNDS = 20
_PAUSE = 0.02


class _SystemClock:
    """The clocks of this machine."""

    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class _Stop:
    """End the loop."""


class Dispatcher:
    """Drives a run: `start`, then requests from anybody and facts from the connections, then `close` or `detach`.

    Args:
        connections: by host; may be filled after this is made.
        deliver: takes each JobReturn, once.
        observe: takes each event, after it was journalled.
        wake: called when a thread has died that the run cannot do without.

    Attributes:
        scheduler, journal, connections: as they were given.
        decider: decides; to be restored before `start`.
        delivered: set while every job that hosts can have is whole on its host; looked at when the controller detaches.
        crash: what a thread died of that the run cannot do without.
        stalled: why the journal cannot be written, so that nothing is decided; empty while it can.
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
        self._inbox: Inbox[facts.Fact | Request | _Stop] = Inbox()
        self._acknowledger = Acknowledger(connections, journal.folder, self._fail, lambda: journal.is_in_place)
        self._reader: JournalReader | None = None
        self._reader_lock = threading.Lock()
        self._reader_process = os.getpid()
        self._inherited: JournalReader | None = None
        # The earlier of our clock and that of the disk: the times of files are compared with it.
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
        #: What hosts said at the end, after the thread had ended.
        self._last_words: deque[facts.Noted] = deque(maxlen=limit("notes"))
        self.crash: BaseException | None = None
        self.stalled = ""

    # -- from any thread -----------------------------------------------------------------------------------------

    def start(self, *, connect: bool = True) -> None:
        """Start the thread and begin to connect, unless it is known that no host will be needed."""
        self._thread.start()
        if connect:
            for connection in self.connections.values():
                connection.start()

    @property
    def is_running(self) -> bool:
        """The thread runs: what is put into the inbox is decided."""
        return self._thread.is_alive()

    @property
    def is_own_thread(self) -> bool:
        """The caller runs in the thread that decides."""
        return threading.get_ident() == self._thread.ident

    def put_fact(self, fact: facts.Fact) -> None:
        """Put a fact into the inbox; waits while the inbox is full."""
        if self._stopping.is_set() and isinstance(fact, facts.Noted):
            self._last_words.append(fact)
            return
        self._inbox.put_bulk(fact, sum(map(_weight, vars(fact).values())), fact.host)

    def ask(self, request: Request) -> None:
        """Put a request into the inbox; never waits."""
        self._inbox.put(request)

    def cancel(self, num: int) -> None:
        """Cancel one job."""
        self.ask(Cancel(num))

    def interrupt(self, why: str, *, kill: bool = False) -> None:
        """Cancel everything; with kill, at once."""
        self.ask(Interrupt(why, kill))

    def record(
        self,
        happened: Sequence[events.Event] = (),
        meta: dict[str, str] | None = None,
        blobs: dict[str, bytes] | None = None,
    ) -> None:
        """Journal something of the run as a whole, before anything that is submitted after this."""
        self.ask(AddToJournal(tuple(happened), meta or {}, blobs or {}))

    @property
    def reader(self) -> JournalReader:
        """The journal, for reading."""
        if os.getpid() != self._reader_process:
            # Forked of ours: what is open there is not read from two processes, nor closed here; a thread may have held the lock.
            self._inherited, self._reader = self._reader, None
            self._reader_lock, self._reader_process = threading.Lock(), os.getpid()
        with self._reader_lock:
            if self._reader is None:
                self._reader = JournalReader(self.journal.folder)
            return self._reader

    def _shares_folder(self, num: int, folder: Path) -> bool:
        """Tell whether another job of the run writes to this folder, too; True if the journal cannot be read."""
        try:
            return self.reader.shares_folder(num, folder)
        except (JournalError, RunError):
            return True

    def _hold(self) -> None:
        """Wait until the journal is in its place: what is made meanwhile would take the place of a folder that was moved away.

        Called by the sessions' readers, which read nothing then, so that a host has to wait with what it sends.

        Raises:
            OSError: the run ends before that; what was to be written is kept on its host.
        """
        while not self.journal.is_in_place:
            if self._stopping.wait(_JOURNAL_RETRY):
                why = "the run's folder is not in its place"
                raise OSError(errno.ESTALE, why, str(self.journal.folder))

    # -- ending --------------------------------------------------------------------------------------------------

    def detach(self) -> list[str]:
        """End, and let the agents go on; returns the hosts that have all their jobs."""
        self._stop()
        close_all(self.connections.values())
        return [name for name in self.connections if name in self.decider.effects.confirmed]

    def detach_at_once(self, timeout: float) -> bool:
        """End without waiting for hosts, which are told nothing. What is in the inbox is journalled if there is time.

        Returns:
            True if the thread has ended, so that the caller may write the journal.
        """
        self._stopping.set()
        self._inbox.put(_Stop())
        if self._thread.ident is not None:
            self._thread.join(timeout)
        self._inbox.close()
        self._acknowledger.stop_at_once()
        return not self._thread.is_alive()

    def drop_links(self) -> None:
        """Close each connection in a thread of its own; to be called after `detach_at_once` if the process goes on."""
        for connection in self.connections.values():
            threading.Thread(target=connection.close, name=f"close-{connection.host}", daemon=True).start()

    @property
    def not_ended(self) -> list[str]:
        """The hosts whose agents have not ended the run yet."""
        return [name for name, connection in self.connections.items() if not connection.wait_finished(0.0)]

    def close(self, *, keep: bool = False) -> list[str]:
        """End the run on all hosts; returns those whose agents could not be told."""
        self._stop()
        unreached = []
        told = []
        for name, connection in self.connections.items():
            if connection.is_connected:
                connection.finish(keep=keep)
                told.append(connection)
            elif self.scheduler.hosts[name].phase in (HostPhase.UNKNOWN, HostPhase.LOST):
                unreached.append(name)
        unreached += wait_for_ends(told, lambda message: self._tell(events.Note(time.time(), message)))
        self._hear_last_words()
        close_all(self.connections.values())
        return unreached

    def _hear_last_words(self) -> None:
        """Show what hosts said after the thread had ended. These are notes, from which nothing follows."""
        if self._last_words and not self._thread.is_alive():
            self.decider.decide(iter(self._last_words))
            self._commit()

    def _stop(self) -> None:
        self._acknowledger.flush()
        self._stopping.set()
        self._inbox.put(_Stop())
        if self._thread.ident is not None:
            self._thread.join()
        self._inbox.close()
        self._acknowledger.stop()

    def close_journal(self, *happened: events.Event) -> None:
        """Write the last events and close the journal. Its writer is the last to close it: a reader cannot remove the log."""
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
        except BaseException as error:  # noqa: BLE001 - a defect here must not leave the caller waiting for ever
            self._fail(error)
        finally:
            self._inbox.close()

    def _fail(self, crash: BaseException) -> None:
        """Tell whoever waits for the run that a thread has died, with the traceback."""
        told = "".join(traceback.format_exception(crash))
        self.crash = self.crash or crash
        self._tell(events.Warned(time.time(), "controller", f"{type(crash).__name__}: {crash}", told))
        self._wake()

    def _turn(self) -> bool:
        self._let_more_come()
        deadline = self.decider.deadline()
        timeout = None if deadline is None else max(0.0, deadline - self._clock.monotonic()) + 0.01
        items = self._inbox.get(_ROUND, timeout)
        going = not any(isinstance(item, _Stop) for item in items)
        self.decider.decide(item for item in items if not isinstance(item, _Stop))
        if self._commit() and self.decider.effects.has_delivered:
            self.delivered.set()
        return going

    def _let_more_come(self) -> None:
        """Pause under load, so that a round decides several items at once."""
        now = time.monotonic()
        is_fast = now - self._rounds[0] < 1.0
        self._rounds.append(now)
        if is_fast and len(self.scheduler.jobs) >= _BUSY_JOBS:
            self._stopping.wait(_PAUSE)

    def _commit(self) -> bool:
        """Journal the round and act on it. While it cannot be written, wait; False if the thread was told to end meanwhile."""
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
    """The approximate number of bytes that a fact takes in memory: a text or a list may be as long as a frame."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, dict):
        return 64 + sum(_weight(one) for pair in value.items() for one in pair)
    if isinstance(value, (list, tuple)):
        return 64 + sum(map(_weight, value))
    if isinstance(value, JobError):
        return _weight(vars(value))
    return 8
