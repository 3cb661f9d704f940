"""Drives a run: fires its hooks, gives its jobs to the engine, takes arrivals, and in the end closes the run or detaches from it.

Rule: the end hooks fire whatever happens: a failed job, a lost host, Ctrl-C, an error of our own. Only after a second signal they wait
until the run is resumed. Controller hooks fire in one thread, so that no two run at the same time: the thread that begins the run and
takes arrivals.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from launcher import events
from launcher.agents.plan import HostPlan
from launcher.config.lazy import import_omegaconf
from launcher.engine.engine import Engine, NewReports
from launcher.engine.requests import QueuedJob
from launcher.errors import RunAborted, RunDetached, SessionError
from launcher.hosts.host_spec import HostSpec
from launcher.results.job_returns import JobReturns
from launcher.runs import cancel_requests, index
from launcher.runs import record as run_record
from launcher.session.hooks import RunHooks
from launcher.session.jobs.arrivals import Arrivals
from launcher.session.jobs.job import Job
from launcher.session.jobs.returns import SessionReturns
from launcher.session.log import log_problems
from launcher.session.loop import drive
from launcher.session.opening import claim_folder, forget_earlier, record_run
from launcher.session.stopping.ending import (
    detach,
    detach_at_once,
    end_on_hosts,
    last_event,
    prepare_to_detach,
    waits_for,
    what_is_left,
)
from launcher.session.stopping.interrupts import Interrupts
from launcher.transports.base import Transport
from launcher.transports.factory import make_transport
from launcher.util.frozen import frozen
from launcher.util.text.html import table_html
from remote_agent.callbacks.composite import Callbacks
from remote_agent.job import JobReturn
from remote_agent.protocol.report import Report

if TYPE_CHECKING:
    from launcher.live.observer import Live
    from launcher.runs.folder import Claim
    from launcher.setup.kinds.run_setup import RunSetup
    from launcher.setup.prepared import PreparedRun
    from launcher.transports.early_connections import EarlyConnections

__all__ = ["Observer", "RunSession", "SessionConf"]

Observer = Callable[[events.Event], None]


@frozen
class SessionConf:
    """What a session has of this process, besides the setup of its run.

    Attributes:
        observers: called with each event of the run; without any, what goes wrong is logged (logger `launcher`).
        keeps_sigint: handle SIGINT (cancel) while the session is open, as SIGTERM (cancel) and SIGHUP (detach); else SIGINT is ours in calls
            that wait, and in between the caller's.
        owns_process: this process is there for the run alone: after a second signal it is ended in any case.
        in_own_thread: another thread than the caller's drives it, and jobs are submitted from any; who starts that one handles the signals.
        early: connections that were begun before; what the run does not take of them is for the caller to drop.
        live: shows what jobs print; closed when the session is.
        claim: on the folder of the setup, where it has been taken for the run already.
    """

    observers: Sequence[Observer] = ()
    keeps_sigint: bool = True
    owns_process: bool = False
    in_own_thread: bool = False
    early: EarlyConnections | None = None
    live: Live | None = None
    claim: Claim | None = None


class RunSession:
    """The machinery of a session. Users see it as `launcher.session.Session`.

    A derived class may override `open_run` (to resume a run), `drain` and `end` (to do more), and `fire_end`. `begin` and `finish` are
    called once each, in the thread that drives the run. So is everything between them, unless it says otherwise. The attributes below
    exist after `begin`.

    Args:
        setup: everything that the run needs, checked.

    Attributes:
        setup: the present setup. It is replaced when the folder is claimed, and when the first job brings the task.
        prepared: what hosts are told; None until that is known.
        engine, hooks, interrupts: the run without its hooks, its hooks, and the signals that came.
        made_returns: makes the JobReturns.
        arrivals: fires the hooks of jobs.
        next_num: the number that the next job gets.
        unfinished: number of a job -> a job that has not returned.
        taken: the numbers of jobs that were taken over from earlier runs.
        wait_shown: called before a hook of the controller that may print, so that the jobs' output comes first.
        unreached: hosts that could not be told that the run has ended.
        is_over: whether the run had already ended, so that it can only be read.
        is_detached: whether the controller has left. The hosts go on, and another controller may resume the run.
        left_behind: how many jobs no host had when the controller left.
    """

    hooks: RunHooks
    made_returns: SessionReturns

    def __init__(self, setup: RunSetup, conf: SessionConf) -> None:
        self.setup = setup
        self.conf = conf
        self.prepared: PreparedRun | None = None
        self.run_id = setup.run_id
        self.folder = setup.folder
        self.callbacks: Callbacks = setup.callbacks
        self.wait_shown: Callable[[], None] = lambda: None
        if conf.live is not None:
            self.wait_shown = conf.live.wait_shown
        self.unfinished: dict[int, Job[Any]] = {}
        self.taken: set[int] = set()
        #: Number of a job -> its Job, if somebody has a reference to it.
        self._known_jobs: weakref.WeakValueDictionary[int, Job[Any]] = weakref.WeakValueDictionary()
        #: The thread that takes arrivals and fires hooks.
        self._driver = 0
        #: While the session is open, where SIGINT is kept.
        self._kept = contextlib.ExitStack()
        self.interrupts = Interrupts(
            self.stop,
            tell=self.show_signal,
            waits_for=lambda: waits_for(self.engine),
            what_is_left=lambda: what_is_left(self.engine, self.run_id, self.interrupts.why),
            wake=self.wake,
        )
        self.next_num = setup.first_num
        self._engine: Engine | None = None
        self._next_hearing = 0.0
        self.arrivals = Arrivals(self)
        self.unreached: list[str] = []
        self.is_over = False
        self.is_detached = False
        self.left_behind = 0

    # -- properties ------------------------------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The run without its hooks. It exists after `begin`."""
        assert self._engine is not None, "the run has not begun"
        return self._engine

    @property
    def returns(self) -> JobReturns:
        """The JobReturns of all submitted jobs. When one is read, its job must have returned."""
        first = self.setup.first_num
        return JobReturns(
            self.next_num - first, lambda index: self.load(first + index), self._dataframe, self._repr_html_
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: how far the run is, and a table of its jobs."""
        if self._engine is None:
            return table_html(f"run {self.run_id}: it has not begun", (), ())
        from launcher.tables.notebook import run_html
        from launcher.tables.table import read_table

        return run_html(read_table(index.find(self.folder)))

    def _dataframe(self) -> Any:
        from launcher.tables.files import columns_of, dataframe
        from launcher.tables.table import read_table

        return dataframe(columns_of([read_table(index.find(self.folder))]))

    # -- opening ---------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Open the run in this thread, which drives it from now on."""
        self._driver = threading.get_ident()
        with self.interrupts.ours():
            self.open_run()

    def build(self, lock: int | None = None) -> None:
        """Make the engine, the hooks and the maker of JobReturns.

        Args:
            lock: the lock of the folder, if it was taken for this run.
        """
        setup = self.setup
        engine = Engine(
            self.run_id,
            self.folder,
            setup.hosts,
            self._plan_of,
            setup.policies,
            [self._track, *(self.conf.observers or (log_problems,)), *([self.conf.live] if self.conf.live else [])],
            setup.spare_of,
            self._transport_of,
            lock,
            # Import it while the host's login shell and agent start, because nothing else can be done for the host then.
            meanwhile=import_omegaconf,
            is_cold=setup.options.warm == 0,
        )
        self.hooks = RunHooks(setup, engine, self.interrupts)
        engine.tells_reports = setup.callbacks.has("on_job_report") and "on_job_report" not in setup.fired_elsewhere
        self._engine = engine
        self.made_returns = SessionReturns(lambda: self.setup, engine)

    def _plan_of(self, spec: HostSpec) -> HostPlan:
        assert self.prepared is not None, "no host is connected before the run is prepared"
        return self.prepared.plan_of(spec)

    def _transport_of(self, spec: HostSpec) -> Transport:
        early = self.conf.early
        return (early.pop(spec) if early is not None else None) or make_transport(spec)

    def open_run(self) -> None:
        """Claim the folder, journal what the run is, fire the start hook, and connect to the hosts."""
        self.setup, claim = claim_folder(self.setup, self.conf.claim)
        self.folder = claim.folder
        self.build(claim.take_lock())
        try:
            record_run(self.setup, self.engine, self.hooks)
            forget_earlier(claim)
            if not self.conf.in_own_thread:
                self.handle_signals()
            self.wait_shown()
            self.hooks.fire(self.hooks.start_hook, **self._hook_arguments())
            if self.hooks.is_cut:
                raise self.interrupts.error(f"{self.interrupts.why}, twice: nothing was sent to a host")
            if not self.hooks.aborted and not self.interrupts:
                # Hosts get the callbacks in the state that they have now.
                self.prepare_and_start()
            if self.hooks.aborted or not self.engine.is_running:
                self._start_for_nothing()
        except BaseException:
            self._end_at_once()
            raise

    def _start_for_nothing(self) -> None:
        """Make all jobs return at once, without hosts, because the run was cancelled before it could connect."""
        why = self.hooks.aborted or self.interrupts.why
        if why:
            self.engine.start(connect=False)
            self.engine.interrupt(why)

    def prepare_and_start(self, task: Any = None, *, with_config: bool = True) -> None:
        """Prepare what hosts are told, and connect. If the task is unknown, wait for the first `submit`, which brings it."""
        if task is None and self.setup.waits_for_task:
            return
        self.setup = self.setup.with_task(task, with_config=with_config)
        prepared = self.prepared = self.setup.prepare()
        for source, message in prepared.warnings:
            self.hooks.warn(source, message)
        self.hooks.publish([events.Note(time.time(), note) for note in prepared.notes])
        run_record.write_prepared(prepared, self.engine.journal)
        self.engine.journal.commit()
        self.engine.start()

    def _end_at_once(self) -> None:
        """End a run that could not begin."""
        try:
            self.engine.close()
            self.fire_end()
            self.engine.close_journal(*([] if self.hooks.is_cut else [self.ended_event()]))
        finally:
            self.restore_signals()

    def drop_early(self) -> None:
        """Drop the early connections, because no host is needed."""
        if self.conf.early is not None:
            self.conf.early.close()

    # -- signals and waiting ---------------------------------------------------------------------------------------

    def handle_signals(self) -> None:
        """Handle signals as requests from here on, if this is the main thread."""
        self.interrupts.handle_signals()
        if self.conf.keeps_sigint and not self.conf.in_own_thread:
            self._kept.enter_context(self.interrupts.ours())

    def restore_signals(self, *, is_over: bool = True) -> None:
        """Put back the earlier handlers."""
        self.interrupts.restore_signals(is_over=is_over and not self.conf.owns_process)
        self._kept.close()

    def stop(self, why: str, kill: bool) -> None:
        """Cancel everything. Any thread may call it."""
        # Without an engine nothing is under way, and `begin` checks the interrupts.
        if self._engine is not None:
            self._engine.interrupt(why, kill=kill)

    @property
    def runs_hook(self) -> bool:
        """Whether a hook runs here now."""
        return self._engine is not None and self.hooks.thread is not None

    def show_signal(self, text: str) -> None:
        """Show the user what follows from a signal."""
        if self._engine is not None:
            self.hooks.warn("signal", text)

    def wake(self) -> None:
        """Wake the thread that drives the run. Any thread may call it."""
        if self._engine is not None:
            self._engine.wake()

    def close_live(self) -> None:
        """Stop showing what the jobs print."""
        if self.conf.live is not None:
            self.conf.live.close()

    def check_may_wait(self, num: int) -> None:
        """Refuse to wait for a job in the thread that must bring its JobReturn.

        Raises:
            SessionError: this is that thread.
        """
        if self._engine is None:
            return
        if threading.get_ident() == self._driver:
            raise SessionError(
                f"a hook waits for job {num} in the thread of the session, but its JobReturn comes after the hook; "
                "keep the Job, or give it a callback (add_done_callback)"
            )
        if self.engine.is_own_thread:
            raise SessionError(f"an observer waits for job {num}, but nothing is decided while an observer runs")

    def cancel_job_of(self, num: int) -> None:
        """Ask for a job to be cancelled. Any thread may call it."""
        self.engine.cancel(num)

    def stop_job_of(self, num: int) -> None:
        """Ask for a job to be asked to stop. Any thread may call it."""
        self.engine.stop_job(num)

    def reports_of(self, num: int) -> list[Report]:
        """Return what a job has reported so far. Any thread may call it."""
        return self.engine.reader.reports(num)

    # -- the end ---------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Take everything that is still to come, and end the run.

        Raises:
            RunInterrupted: a second signal came.
            RunAborted: a hook has aborted the run.
        """
        try:
            self.drain()
        finally:
            if not self.is_detached:
                self.end()
        if self.hooks.is_cut:
            raise self.interrupts.error(what_is_left(self.engine, self.run_id, self.interrupts.why))
        if self.hooks.aborted:
            raise RunAborted(self.hooks.aborted)

    def drain(self) -> None:
        """Take everything that is still to come."""
        while not self.engine.is_idle:
            self.pump(0.5)

    def end(self) -> None:
        """End the run on its hosts, fire the end hook, close the journal."""
        try:
            self.unreached = end_on_hosts(self.engine, self.interrupts)
            if self.unreached:
                lease = self.setup.options.lease
                self.hooks.warn(
                    "hosts",
                    f"hosts that could not be reached to end the run: {', '.join(self.unreached)}; "
                    + (f"their lease ends their jobs after {lease} s" if lease else "their agents keep their jobs"),
                )
        finally:
            self.wait_shown()
            try:
                self.fire_end()
            finally:
                try:
                    last = last_event(self.engine, self.hooks, self.interrupts, self.ended_event())
                    self.is_detached = isinstance(last, events.RunDetached)
                    self.engine.observe(last)
                    self.engine.close_journal(last)
                    self._send_trace()
                finally:
                    self.restore_signals()

    def _send_trace(self) -> None:
        """Send the trace of the run, if the user wants one, and the run has ended."""
        if not self.setup.options.otel or self.is_detached:
            return
        from launcher.tracing.sending import problem_of_sending

        problem = problem_of_sending(index.find(self.folder))
        if problem:
            self.hooks.warn("otel", problem)

    def ended_event(self) -> events.RunEnded:
        """Return the event with which the journal records the end."""
        counts = self.engine.scheduler.counts
        return events.RunEnded(time.time(), self.run_id, counts["COMPLETED"], counts["FAILED"], dict(counts))

    def fire_end(self) -> None:
        """Fire the end hook."""

        def job_return() -> dict[str, Any]:
            has_returned = self.next_num > self.setup.first_num and self.engine.is_idle
            return {"job_return": self.returns[0] if has_returned else None}

        def job_returns() -> dict[str, Any]:
            return {"job_returns": self.setup.hook_returns(self.returns)}

        what = job_return if self.setup.mode == "RUN" else job_returns
        self.hooks.fire_end(lambda: {**self._hook_arguments(), **what()})

    def _hook_arguments(self) -> dict[str, Any]:
        """What both run hooks get."""
        return {"config": self.setup.root_config, "config_name": self.setup.config_name}

    # -- detaching -------------------------------------------------------------------------------------------------

    def detach(self, why: str = "as asked", timeout: float = 60.0) -> int:
        """Detach from the run when each host has its jobs. Returns how many jobs no host has. See `Session.detach`."""
        prepare_to_detach(self.engine, self.receive_next, why, timeout, lambda: bool(self.interrupts))
        return 0 if self.engine.is_idle or self.interrupts else self.detach_now(why)

    def detach_now(self, why: str) -> int:
        """Detach from the run as it is now. Returns how many jobs no host has."""
        self.left_behind = detach(self.engine, self.setup, self.hooks, why)
        self.restore_signals()
        self.is_detached = True
        return self.left_behind

    def detach_at_hangup(self) -> None:
        """Detach because the terminal is gone.

        Raises:
            RunDetached: unless every job has returned.
        """
        why = self.interrupts.hangup
        self.detach(why)
        if not self.is_detached:
            return
        raise RunDetached(
            f"run {self.run_id} goes on without this process ({why}); 'launcher attach {self.run_id}' collects it"
        )

    def detach_if_must(self) -> None:
        """Detach if there was a second signal and hosts had some time to send what they have.

        Raises:
            RunInterrupted: the text says what is left where, and how to collect it.
        """
        if not self.hooks.is_cut and not self.interrupts.must_detach:
            return
        self.left_behind = len(self.engine.scheduler.pending)
        left = detach_at_once(self.engine, self.setup, self.interrupts)
        self.is_detached = True
        self.restore_signals()
        raise self.interrupts.error(left)

    # -- jobs ------------------------------------------------------------------------------------------------------

    def submit_made(
        self, queued: Sequence[QueuedJob], is_cut: Callable[[], bool] = lambda: False, *, is_complete: bool = False
    ) -> list[Job[Any]]:
        """Give the next jobs to the engine, all or none. Waits while very many are under way, or until the wait is stopped.

        `is_complete`: the run gets no others.

        Raises:
            SessionError: the run takes no jobs any more.
        """
        if self.is_over:
            raise SessionError(
                f"run {self.run_id} has ended, so it takes no new jobs; open a new run for them (launcher.Session.open)"
            )
        jobs = {one.num: self.new_job(one.num) for one in queued}
        self.unfinished.update(jobs)
        if not self.engine.submit(
            queued,
            lambda: is_cut() or self.engine.crash is not None or self.is_detached,
            is_complete=is_complete,
        ):
            for num in jobs:
                del self.unfinished[num]
            raise SessionError(f"run {self.run_id} takes no new jobs: it has ended or was left")
        if queued:
            self.next_num = queued[-1].num + 1
        return list(jobs.values())

    def take_over(self, sources: Sequence[tuple[Any, Sequence[str]]], task: Any) -> None:
        """Take over the next jobs that an earlier run has completed, if the run continues one. They do not run, and their hooks do not fire."""
        from launcher.session.jobs.continuing import take_over

        self.setup, taken = take_over(self.setup, self.engine, self.hooks, self.next_num, sources, task)
        self.taken |= taken

    def new_job(self, num: int) -> Job[Any]:
        """Make a Job for a number that has none."""
        job = self._known_jobs[num] = Job(self, num)
        return job

    def returned_job(self, num: int) -> Job[Any]:
        """Return the Job of a number that has returned: the one that somebody has, or a new one from the journal."""
        job = self._known_jobs.get(num)
        if job is None:
            job = self.new_job(num)
            job.has_returned(self.load(num))
        return job

    def load(self, num: int) -> JobReturn:
        """Return a job's JobReturn, from the journal."""
        return self.made_returns.load(num)

    # -- arrivals --------------------------------------------------------------------------------------------------

    def pump(self, timeout: float | None) -> JobReturn | None:
        """Take the next arrival, fire its hook, and return its JobReturn; None if the arrival has none, or nothing came in time.

        Raises:
            RunDetached: SIGHUP came, and the controller has detached.
            RunInterrupted: a second signal came, and the controller has detached.
        """
        if self.interrupts.hangup and not self.interrupts:
            self.detach_at_hangup()
        return self.receive_next(timeout)

    def receive_next(self, timeout: float | None) -> JobReturn | None:
        """Like `pump`, but does not detach if the terminal is gone."""
        self.detach_if_must()
        self._handle_requests()
        item = self.engine.wait(timeout)
        if item is None:
            return None
        if isinstance(item, events.HostLost):
            self.hooks.fire("on_host_lost", config=self.setup.root_config, host=item.host, jobs=list(item.jobs))
            return None
        if isinstance(item, NewReports):
            self.arrivals.fire_reports(item.num)
            return None
        return self.arrivals.receive(item)

    def drive(self, sources: Iterable[tuple[Any, Sequence[str]]], task: Any = None, *, detach: bool = False) -> None:
        """Submit (config, overrides) while there is room, and fire hooks as results arrive. Returns when all have arrived.

        A sequence of sources is journalled completely before its first job is sent, so that a resumed run has all of them.

        Args:
            detach: submit everything, and leave the run as soon as the hosts have it.

        Raises:
            RunInterrupted: after Ctrl-C or SIGTERM, when everything has been collected.
            RunDetached: after SIGHUP, when the hosts have all jobs.
        """
        with self.interrupts.ours():
            drive(self, sources, task, detach=detach)

    def _handle_requests(self) -> None:
        """Handle requests of other processes. Looks for them at most twice a second."""
        now = time.monotonic()
        if now < self._next_hearing:
            return
        self._next_hearing = now + 0.5
        for request in cancel_requests.pop_all(self.folder):
            why = request.why or "cancelled by another process"
            if request.num is not None:
                self.engine.cancel(request.num)
            else:
                self.interrupts.add(why, kill=request.kill)

    def _track(self, event: events.Event) -> None:
        if isinstance(event, events.AttemptStarted):
            job = self.unfinished.get(event.num)
            if job is not None:
                job.has_started()
