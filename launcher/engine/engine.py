"""A run's machinery without its hooks: the dispatcher with real hosts, a limit on jobs under way, and the arrivals.

Rule: it knows nothing of callbacks or Hydra. Jobs go in by `submit`; `Returned` and lost hosts come out, in order of arrival. Its
driver fires the hooks in its own thread.
"""

from __future__ import annotations

import concurrent.futures
import queue
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from launcher import events
from launcher.agents.connect_limit import ConnectLimit
from launcher.agents.connection import WELCOME_PATIENCE, AgentConnection
from launcher.agents.plan import HostPlan
from launcher.bootstrap.bundle import Bundle, build_bundle
from launcher.bootstrap.start import open_agent
from launcher.engine.dispatcher import Dispatcher
from launcher.engine.requests import Detach, QueuedJob, Retry, Submit
from launcher.engine.scheduling.policies import Policies
from launcher.engine.scheduling.scheduler import Scheduler
from launcher.engine.scheduling.state import HostPhase
from launcher.errors import ControllerFailed
from launcher.hosts.host_spec import HostSpec
from launcher.runs.journal import FOLDER, Journal, Returned
from launcher.transports.base import Channel, Transport
from launcher.transports.factory import make_transport
from launcher.util.frozen import frozen
from launcher.util.open_files import make_room

__all__ = ["Engine", "NewReports"]

#: How many jobs may be under way before `submit` waits: enough for any number of slots, and not too many for the memory.
BACKLOG = 2000
#: Seconds between two checks whether a wait for room should stop.
_CHECK_EVERY = 0.1

#: How many reports of a job wait for its hook. If the hook is too slow for them, it gets the last ones.
MAX_WAITING = 100

T = TypeVar("T")


@frozen
class NewReports:
    """A job has reported; see `Engine.pop_reports`."""

    num: int


class Engine(Dispatcher):
    """Runs jobs on hosts, durably. It is not a context manager, because there are several ways to end it.

    Args:
        plan_of: makes the plan of a host. Called once per host, in a thread of that host. May raise LauncherError.
        spare_of: the Python that a host's agent starts ahead of time, empty for the agent's own; None for none.
        transport_of: makes the transport to a host. Called once per host.
        lock: the lock of the folder, if the caller has taken it for this run.
        meanwhile: called in a thread for each host, when the command that starts its agent is on its way.
        is_cold: no host uses what waits there for a run.
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
        meanwhile: Callable[[], None] | None = None,
        is_cold: bool = False,
    ) -> None:
        super().__init__(
            Scheduler([spec.name for spec in hosts], policies),
            Journal(folder / FOLDER, lock),
            {},
            self._add_arrival,
            self.observe,
            self.wake,
        )
        self.run_id = run_id
        self.folder = folder
        self.arrivals: queue.SimpleQueue[Returned | events.HostLost | NewReports | None] = queue.SimpleQueue()
        #: Whether `wait` tells of reports, because there is a hook for them.
        self.tells_reports = False
        self._reports: dict[int, list[events.JobReported]] = {}
        self._reports_lock = threading.Lock()
        self._observers = list(observers)
        self._room = threading.Semaphore(BACKLOG)
        self._is_unlimited = False
        self.submitted = 0
        self.returned = 0
        controller = secrets.token_hex(8)
        bundle = _once(build_bundle)
        connect_limit = ConnectLimit(len(hosts))
        for spec in hosts:
            self.connections[spec.name] = AgentConnection(
                spec.name,
                transport_of(spec),
                _opener(spec, run_id, bundle, spare_of(spec), meanwhile, is_cold=is_cold),
                _once(partial(plan_of, spec)),
                self.put_fact,
                self.decider.effects.folder_of,
                folder / FOLDER / "results",
                controller,
                min(WELCOME_PATIENCE, policies.host_loss_timeout),
                connect_limit,
            )

    def start(self, *, connect: bool = True) -> None:
        """Start the dispatcher, and connect to the hosts unless it is known that none will be needed."""
        lack = make_room(len(self.connections)) if connect else ""
        super().start(connect=connect)
        if lack:
            self.observe(events.Warned(time.time(), "hosts", lack))

    def restore(self) -> list[int]:
        """Restore the run from its journal, before `start`. Returns the jobs that have not returned."""
        unfinished = self.decider.restore(self.reader)
        for name, host in self.scheduler.hosts.items():
            if host.jobs or host.collecting or host.phase in (HostPhase.READY, HostPhase.UNKNOWN):
                self.connections[name].expect()
        self.submitted = len(unfinished)
        resumed = self.scheduler.resume(time.time(), self.run_id)
        self.journal.append(resumed)
        self.journal.commit()
        for event in resumed:
            self.observe(event)
        return unfinished

    def observe(self, event: events.Event) -> None:
        """Show an event to all observers."""
        if isinstance(event, events.HostLost):
            self.arrivals.put(event)
        elif isinstance(event, events.JobReported) and self.tells_reports:
            self._add_report(event)
        for observer in list(self._observers):
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001
                self._observers.remove(observer)
                self.observe(
                    events.Warned(
                        time.time(),
                        "observer",
                        f"{observer!r} raised {type(error).__name__}: {error}; it is not called any more",
                    )
                )

    def _add_report(self, event: events.JobReported) -> None:
        with self._reports_lock:
            waiting = self._reports.setdefault(event.num, [])
            waiting.append(event)
            if len(waiting) == 1:
                self.arrivals.put(NewReports(event.num))
            del waiting[:-MAX_WAITING]

    def pop_reports(self, num: int) -> list[events.JobReported]:
        """Return the reports of a job that came since the last call: the last ones, if there were very many."""
        with self._reports_lock:
            return self._reports.pop(num, [])

    def _add_arrival(self, returned: Returned) -> None:
        self._room.release()
        self.arrivals.put(returned)

    # -- jobs ----------------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether `submit` would not wait."""
        return self._is_unlimited or self.submitted - self.returned < BACKLOG

    def submit(self, jobs: Sequence[QueuedJob], is_stopped: Callable[[], bool], *, is_complete: bool = False) -> bool:
        """Submit fewer than BACKLOG jobs: all or none. The journal has all of them before the first one is sent.

        `is_complete`: the run gets no others. Waits while BACKLOG jobs are under way. Returns False, without submitting any, if the wait was stopped.
        """
        if not all(self._has_waited_for_room(is_stopped) for _ in jobs):
            return False
        self.submitted += len(jobs)
        self.ask(Submit(tuple(jobs), is_complete))
        return True

    def _has_waited_for_room(self, is_stopped: Callable[[], bool]) -> bool:
        while not self._is_unlimited and not self._room.acquire(timeout=_CHECK_EVERY):
            if is_stopped():
                return False
        return True

    def wait(self, timeout: float | None = None) -> Returned | events.HostLost | NewReports | None:
        """Return the next result, lost host, or job that has reported; None if nothing came within `timeout` seconds, or `wake` was called.

        Raises:
            ControllerFailed: nothing more will arrive.
        """
        try:
            item = self.arrivals.get(timeout=timeout)
        except queue.Empty:
            item = None
        if item is None and self.crash is not None and self.arrivals.empty():
            raise ControllerFailed(
                f"a thread of the controller died of {type(self.crash).__name__}: {self.crash}; this is a bug in the "
                f"launcher; hosts keep what they have, and 'launcher attach {self.run_id}' collects it"
            ) from self.crash
        if isinstance(item, Returned):
            self.returned += 1
        return item

    def wake(self) -> None:
        """Make `wait` return, because there is something else to do."""
        self.arrivals.put(None)

    @property
    def is_idle(self) -> bool:
        """Whether `wait` has returned everything that was submitted."""
        return self.returned >= self.submitted

    def retry(self, returned: events.JobReturned) -> None:
        """Run a job that has returned once more."""
        self.submitted += 1
        self.ask(Retry(returned))

    def lift_limit(self) -> None:
        """Never let `submit` wait from now on, because all jobs must be on the hosts before the controller detaches."""
        self._is_unlimited = True

    def prepare_to_detach(self, why: str, *, hurry: bool = False) -> None:
        """Give every job to a host. `delivered` says when the hosts have them. With `hurry`, do not wait for hosts."""
        self.lift_limit()
        self.ask(Detach(self.run_id, why, hurry))


def _opener(
    spec: HostSpec,
    run: str,
    bundle: Callable[[], Bundle],
    spare: str | None,
    meanwhile: Callable[[], None] | None,
    *,
    is_cold: bool,
) -> Callable[[Transport], tuple[Channel, bytes]]:
    """Return a function that connects to the run's agent on a host, and starts one if there is none."""
    role = ["connect", "--run", run, "--host", spec.name, *(["--spare", spare] if spare is not None else [])]
    if is_cold:
        role += ["--cold", "yes"]
    if spec.slurm is not None:
        role = ["connect", "--run", run, "--host", spec.name, "--batch", "slurm"]
    return lambda transport: open_agent(spec, transport, bundle(), role, meanwhile=meanwhile)


def _once(make: Callable[[], T]) -> Callable[[], T]:
    """Return a function that calls `make` on its first call, and returns or raises the same on every call."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    lock = threading.Lock()

    def get() -> T:
        with lock:
            if not future.done():
                try:
                    future.set_result(make())
                except BaseException as error:  # noqa: BLE001
                    future.set_exception(error)
        return future.result()

    return get
