"""A run's machinery without its hooks: journal, scheduler, dispatcher and the sessions with the hosts.

Rule: it knows nothing of callbacks or of Hydra. `submit` goes in, `Returned` and host losses come out, in order of
arrival; whoever drives it fires the hooks on his own thread.
"""

from __future__ import annotations

import concurrent.futures
import queue
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher import events
from launcher.agents.connection import WELCOME_PATIENCE, AgentConnection
from launcher.agents.plan import HostPlan
from launcher.bootstrap.bundle import Bundle, build_bundle
from launcher.bootstrap.start import stage0_command, start_agent
from launcher.engine.dispatcher import Dispatcher
from launcher.engine.requests import QueuedJob, Submit
from launcher.engine.scheduler import HostPhase, Policies, Scheduler
from launcher.errors import ControllerFailed
from launcher.inventory import HostSpec
from launcher.runs.journal import FOLDER, Journal, JournalReader, Returned
from launcher.transports.base import Channel, Transport
from launcher.transports.factory import make_transport
from launcher.util.open_files import make_room

__all__ = ["Engine"]

#: Jobs that wait here before `submit` waits: enough to keep any number of slots busy, little enough to keep in memory.
BACKLOG = 2000
#: Seconds between two looks at whether a wait for room was stopped.
_LOOK = 0.1


@dataclass(frozen=True)
class _Starter:
    """Starts the agent of one host through its transport."""

    spec: HostSpec
    run: str
    bundle: Callable[[], Bundle]
    spare: str | None
    meanwhile: Callable[[], None]

    def __call__(self, transport: Transport) -> tuple[Channel, bytes]:
        bundle = self.bundle()
        role = ["connect", "--run", self.run, "--host", self.spec.name]
        if self.spec.workdir:
            role += ["--workdir", self.spec.workdir]
        if self.spare is not None:
            role += ["--spare", self.spare]
        channel = transport.open(
            stage0_command(bundle.sha256, bundle.size, role, self.spec.python_at_hand, self.spec.workdir)
        )
        self.meanwhile()
        return channel, start_agent(channel, bundle, self.spec.name)


class Engine:
    """Runs jobs on hosts, durably. Not a context manager: `close` says how it ends.

    Args:
        plan_of: called once per host, in a thread of that host, for what it must be told; may raise LauncherError.
        spare_of: the Python that a host's agent starts ahead of time, empty for the agent's own; None for none.
        transport_of: the way to a host; asked once each.
        lock: of the folder, where it was taken for this run.
        meanwhile: called in the thread of each host, between the command that starts its agent and the agent's first word.
        observers: called with every event, in order, on the dispatcher's thread; one that raises is reported and the
            run goes on.
    """

    def __init__(
        self,
        run_id: str,
        folder: Path,
        hosts: Sequence[HostSpec],
        plan_of: Callable[[HostSpec], HostPlan],
        policies: Policies,
        observers: Sequence[Callable[[events.Event], None]] = (),
        spare_of: Callable[[HostSpec], str | None] = lambda spec: None,
        transport_of: Callable[[HostSpec], Transport] = make_transport,
        lock: int | None = None,
        *,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self.run_id = run_id
        self.folder = folder
        self.arrivals: queue.SimpleQueue[Returned | events.HostLost | None] = queue.SimpleQueue()
        self._observers = list(observers)
        self.journal = Journal(folder / FOLDER, lock)
        self._reader: JournalReader | None = None
        self._reader_lock = threading.Lock()
        self.scheduler = Scheduler([spec.name for spec in hosts], policies)
        self._room = threading.Semaphore(BACKLOG)
        self._is_leaving = False
        self._bundle_lock = threading.Lock()
        self._bundle: Bundle | None = None
        self.submitted = 0
        self.returned = 0
        sessions: dict[str, AgentConnection] = {}
        self._sessions = sessions
        self._dispatcher = Dispatcher(self.scheduler, self.journal, sessions, self._deliver, self.observe, self.wake)
        controller = secrets.token_hex(8)
        for spec in hosts:
            sessions[spec.name] = AgentConnection(
                spec.name,
                transport_of(spec),
                _Starter(spec, run_id, self._get_bundle, spare_of(spec), meanwhile),
                _once(plan_of, spec),
                self._dispatcher.put_fact,
                self._dispatcher.folder_of,
                folder / FOLDER / "results",
                controller,
                min(WELCOME_PATIENCE, policies.host_loss_timeout),
            )

    def _get_bundle(self) -> Bundle:
        with self._bundle_lock:
            if self._bundle is None:
                self._bundle = build_bundle()
            return self._bundle

    def start(self, *, connect: bool = True) -> None:
        """Begin: journal what is known, connect to the hosts, unless it is known that none will be needed."""
        lack = make_room(len(self._sessions)) if connect else ""
        self._dispatcher.start(connect=connect)
        if lack:
            self.observe(events.Warned(time.time(), "hosts", lack))

    def restore(self) -> list[int]:
        """Take the run up from its journal, before `start`; returns the jobs that have not returned."""
        unfinished = self._dispatcher.restore(self.reader)
        for name, host in self.scheduler.hosts.items():
            if host.jobs or host.collecting or host.phase in (HostPhase.READY, HostPhase.UNKNOWN):
                self._sessions[name].expect()
        self.submitted = len(unfinished)
        resumed = self.scheduler.resume(time.time(), self.run_id)
        self.journal.append(resumed)
        self.journal.commit()
        for event in resumed:
            self.observe(event)
        return unfinished

    @property
    def reader(self) -> JournalReader:
        """The journal, for reading."""
        with self._reader_lock:
            if self._reader is None:
                self._reader = JournalReader(self.folder / FOLDER)
            return self._reader

    def observe(self, event: events.Event) -> None:
        """Show an event to all observers."""
        if isinstance(event, events.HostLost):
            self.arrivals.put(event)
        for observer in list(self._observers):
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001
                self._observers.remove(observer)
                self.observe(
                    events.Warned(
                        time.time(), "observer", f"{observer!r} raised {type(error).__name__}: {error}; it is left out"
                    )
                )

    def _deliver(self, returned: Returned) -> None:
        self._room.release()
        self.arrivals.put(returned)

    # -- jobs ----------------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """`submit` would not wait."""
        return self._is_leaving or self.submitted - self.returned < BACKLOG

    def submit(
        self,
        job: QueuedJob,
        failure: tuple[str, str] | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Take a job; waits while BACKLOG jobs are under way, or until it is stopped: then the job is not taken (False).

        With failure (kind, message) it is FAILED at once.
        """
        if not self._has_waited_for_room(is_stopped):
            return False
        self.submitted += 1
        if failure is not None:
            self._dispatcher.submit_failed(job, *failure)
        else:
            self._dispatcher.submit(job)
        return True

    def submit_all(self, submits: Sequence[Submit], is_stopped: Callable[[], bool] = lambda: False) -> bool:
        """Take jobs, fewer than BACKLOG, all of which the journal has before the first is sent. As `submit`, all of them or none."""
        if not all(self._has_waited_for_room(is_stopped) for _ in submits):
            return False
        self.submitted += len(submits)
        self._dispatcher.submit_all(tuple(submits))
        return True

    def _has_waited_for_room(self, is_stopped: Callable[[], bool]) -> bool:
        while not self._is_leaving and not self._room.acquire(timeout=_LOOK):
            if is_stopped():
                return False
        return True

    def wait(self, timeout: float | None = None) -> Returned | events.HostLost | None:
        """The next thing that arrived; None when nothing did within timeout seconds, or `wake` was called.

        Raises:
            ControllerFailed: nothing more will arrive.
        """
        try:
            item = self.arrivals.get(timeout=timeout)
        except queue.Empty:
            item = None
        if item is None and self.crash is not None and self.arrivals.empty():
            raise ControllerFailed(
                f"a thread of the controller died of {type(self.crash).__name__}: {self.crash}; this is a defect of the "
                f"launcher; hosts keep what they have, and 'launcher attach {self.run_id}' collects it"
            ) from self.crash
        if isinstance(item, Returned):
            self.returned += 1
        return item

    @property
    def crash(self) -> BaseException | None:
        """What a thread died of that the run cannot do without."""
        return self._dispatcher.crash

    def wake(self) -> None:
        """Have `wait` return, for there is something else to look at."""
        self.arrivals.put(None)

    @property
    def is_idle(self) -> bool:
        """Everything that was submitted has been taken from `wait`."""
        return self.returned >= self.submitted

    def record(
        self,
        happened: Sequence[events.Event] = (),
        meta: dict[str, str] | None = None,
        blobs: dict[str, bytes] | None = None,
    ) -> None:
        """Journal something of the run as a whole, before anything that is submitted after this."""
        self._dispatcher.record(happened, meta, blobs)

    def retry(self, returned: events.JobReturned) -> None:
        """Run a job that had returned once more."""
        self.submitted += 1
        self._dispatcher.retry(returned)

    def lift_backlog(self) -> None:
        """From now on `submit` never waits: all jobs are to be on the hosts before the controller leaves."""
        self._is_leaving = True

    def detach(self, why: str, *, hurry: bool = False) -> None:
        """Give every job to a host; `is_delivered` says when they have them. With hurry, without waiting for any host."""
        self.lift_backlog()
        self._dispatcher.detach(self.run_id, why, hurry=hurry)

    @property
    def is_delivered(self) -> bool:
        """After `detach`: every job is whole on its host."""
        return self._dispatcher.delivered.is_set()

    @property
    def is_own_thread(self) -> bool:
        """This is the thread that decides, in which observers are called."""
        return self._dispatcher.is_own_thread

    @property
    def is_running(self) -> bool:
        """It has been started, and neither closed nor left."""
        return self._dispatcher.is_running

    def leave(self) -> list[str]:
        """End without telling the agents, which go on; returns the hosts that have all their jobs."""
        return self._dispatcher.leave()

    def abandon(self, timeout: float) -> bool:
        """End without waiting for anybody; True where the journal may be written from here on."""
        return self._dispatcher.abandon(timeout)

    def drop_links(self) -> None:
        """Close the connections, in threads of their own: after `abandon`, where the process goes on."""
        for session in self._sessions.values():
            threading.Thread(target=session.close, name=f"close-{session.host}", daemon=True).start()

    @property
    def not_ended(self) -> list[str]:
        """The hosts whose agents have not let go of the run."""
        return self._dispatcher.not_ended

    @property
    def stalled(self) -> str:
        """Why nothing is decided: the journal cannot be written; empty while it can."""
        return self._dispatcher.stalled

    def cancel(self, num: int) -> None:
        """Cancel one job."""
        self._dispatcher.cancel(num)

    def interrupt(self, why: str, *, kill: bool = False) -> None:
        """Cancel everything; with kill, at once."""
        self._dispatcher.interrupt(why, kill=kill)

    def close(self, *, keep: bool = False) -> list[str]:
        """End the run on all hosts; returns those whose agents could not be told."""
        return self._dispatcher.close(keep=keep)

    def close_journal(self, *happened: events.Event) -> None:
        """Write the last events and close the journal."""
        self.journal.append(list(happened))
        self.journal.close()


def _once(plan_of: Callable[[HostSpec], HostPlan], spec: HostSpec) -> Callable[[], HostPlan]:
    """A plan that is made when it is first needed, and kept."""
    future: concurrent.futures.Future[HostPlan] = concurrent.futures.Future()
    lock = threading.Lock()

    def plan() -> HostPlan:
        with lock:
            if not future.done():
                try:
                    future.set_result(plan_of(spec))
                except BaseException as error:  # noqa: BLE001
                    future.set_exception(error)
        return future.result()

    return plan
