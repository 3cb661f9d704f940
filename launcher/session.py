"""Session: fire the run hooks, drive the engine.

Rule: the end hooks fire whatever happens: a job that fails, a host that is lost, Ctrl-C, an error of our own. Controller
hooks fire in the thread that made the session, whenever it waits in it, so that a callback never meets another thread.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from launcher import events, run_index, run_record, run_requests
from launcher.dispatcher import Returned
from launcher.driving import Drive
from launcher.early_connect import EarlyConnections
from launcher.engine import Engine
from launcher.errors import RunAborted, RunDetached, RunInterrupted
from launcher.interrupts import CTRL_C, Interrupts
from launcher.job_future import Job, JobState
from launcher.journal import FOLDER, set_aside
from launcher.late_config import made_now
from launcher.leaving import depart, hand_over
from launcher.options import LaunchConf, options_of
from launcher.returns import JobReturns
from launcher.run_hooks import RunHooks
from launcher.run_hosts import host_list
from launcher.run_log import log_problems
from launcher.run_setup import RunSetup, texts_of_overrides
from launcher.session_returns import SessionReturns
from launcher.transports.make import make_transport
from remote_agent.callbacks import Callbacks
from remote_agent.job import JobReturn

if TYPE_CHECKING:
    from typing_extensions import Self

    from launcher.inventory import HostSpec
    from launcher.resume import ResumedSession
    from launcher.transports.base import Transport

__all__ = ["Job", "JobState", "Observer", "Session"]

Observer = Callable[[events.Event], None]


class Session:
    """Hosts, callbacks and a run folder; jobs are submitted to it.

    Entering fires `on_multirun_start` (or `on_run_start`), leaving waits for all jobs and fires the end hook.

    Args:
        setup: everything that the run needs, checked.
        config: the config that the run hooks get.
        observers: called with each event of the run; without any, what goes wrong is logged (logger `launcher`).
        early: connections that were begun before; what the run does not take of them is for the caller to drop.
        install_signals: handle SIGTERM (cancel) and SIGHUP (detach) while the session is open; main thread only.
    """

    def __init__(
        self,
        setup: RunSetup,
        *,
        config: Any = None,
        config_name: str | None = None,
        observers: Sequence[Observer] = (),
        install_signals: bool = True,
        early: EarlyConnections | None = None,
    ) -> None:
        self.setup = setup
        self._early = early
        self.run_id = setup.run_id
        self.folder = setup.folder
        self._config = config
        self._config_name = config_name
        self._observers = [self._track, *(observers or (log_problems,))]
        self._install_signals = install_signals
        #: Those that have not returned.
        self._jobs: dict[int, Job] = {}
        #: Those that somebody has.
        self._known_jobs: weakref.WeakValueDictionary[int, Job] = weakref.WeakValueDictionary()
        self._thread = threading.get_ident()
        self._condition = threading.Condition()
        self._interrupts = Interrupts(lambda why, kill: self._engine.interrupt(why, kill=kill))
        self._next_num = setup.first_num
        self._engine: Engine
        self._hooks: RunHooks
        self._returns: SessionReturns
        self._next_hearing = 0.0
        self.unreached: list[str] = []
        #: The controller has left; the hosts go on, and another controller may take the run up.
        self.is_detached = False
        #: Jobs that no host had when the controller left.
        self.left_behind = 0
        self.callbacks: Callbacks = setup.callbacks

    # -- opening and closing -------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        *,
        hosts: Sequence[Any] | None = None,
        callbacks: Iterable[Any] = (),
        folder: str | os.PathLike[str] | None = None,
        options: LaunchConf | None = None,
        observers: Sequence[Observer] = (),
        **kw: Any,
    ) -> Session:
        """A session for plain tasks, to be entered with `with`. Arguments as those of `multirun`.

        Hosts are shaken hands with from here on; where no job asks for one within some seconds, that is dropped, and done anew.

        Raises:
            UsageError: something is wrong with what was given; nothing was sent.
        """
        hosts = host_list(hosts)
        options = options_of(options, kw)
        early = EarlyConnections.begin(hosts, options)
        try:
            setup = RunSetup.make(
                "MULTIRUN", None, [], hosts=hosts, callbacks=callbacks, folder=folder, options=options
            )
            return cls(setup, config=setup.root_config, observers=observers, early=early)
        except BaseException:
            early.close()
            raise

    @staticmethod
    def resume(
        run: str | os.PathLike[str],
        *,
        configs: Iterable[Any] | None = None,
        env: Mapping[str, str] | None = None,
        observers: Sequence[Observer] = (),
    ) -> ResumedSession:
        """A run taken up again, to be entered with `with`; leaving it waits for all jobs and fires the end hook.

        Every job that has returned is kept, every job that a host still has is collected, and only what never ran is run.

        Args:
            run: its id, a prefix of that, its folder, or `last`.
            configs: all configs of the run once more, where they had been given as an iterator that was not yet used up.
            env: values of the run's variables, which no file keeps; what is not here is taken from the environment.

        Raises:
            RunError: there is no such run, it cannot be taken up, or another process drives it.
            UsageError: a variable of the run has no value here.
        """
        from launcher.resume import ResumedSession, load_setup

        setup, record = load_setup(run, env=env)
        return ResumedSession(setup, record, configs=configs, observers=observers)

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_detached:
            return
        if isinstance(error, KeyboardInterrupt):
            self._interrupts.add(CTRL_C)
        elif error is not None:
            self._engine.interrupt(f"{type(error).__name__} in the controller")
        self._finish()

    def _build(self) -> None:
        setup = self.setup
        self._engine = Engine(
            self.run_id,
            self.folder,
            setup.hosts,
            setup.plan_of,
            setup.policies,
            self._observers,
            setup.spare_of,
            self._transport_of,
        )
        self._hooks = RunHooks(setup, self._engine, self._interrupts)
        self._returns = SessionReturns(setup, self._engine)

    def _transport_of(self, spec: HostSpec) -> Transport:
        return (self._early.take(spec) if self._early is not None else None) or make_transport(spec)

    def _begin(self) -> None:
        earlier = set_aside(self.folder / FOLDER)
        if earlier is not None:
            run_index.remove(earlier)
        self._build()
        try:
            hosts = tuple(spec.name for spec in self.setup.hosts)
            started = events.RunStarted(time.time(), self.run_id, self.setup.mode, str(self.folder), hosts)
            journal = self._engine.journal
            journal.append([started])
            self.setup.record(journal, self._config_name)
            journal.commit()
            self._engine.observe(started)
            self._index(started.at)
            self._handle_signals()
            self._hooks.fire(self._hooks.start_hook, config=self._config, config_name=self._config_name)
            if not self._hooks.aborted:
                # The state that the callbacks have now is what travels.
                self._prepare_and_start()
            if self._hooks.aborted:
                self._engine.start(connect=False)
                self._engine.interrupt(self._hooks.aborted)
        except BaseException:
            self._interrupts.restore_signals()
            self._engine.close()
            self._fire_end()
            self._engine.close_journal(self._ended())
            raise

    def _handle_signals(self) -> None:
        if self._install_signals:
            self._interrupts.handle_signals()

    def _index(self, at: float) -> None:
        try:
            setup = self.setup
            run_index.add(
                run_index.Entry(
                    self.run_id, self.folder, at, setup.mode, setup.task_name, is_reproduction=setup.is_reproduction
                )
            )
        except OSError as error:
            self._hooks.warn("index", f"the run can be named by its folder only: {error.filename}: {error.strerror}")

    def _finish(self) -> None:
        try:
            self._drain()
        finally:
            if not self.is_detached:
                self._end()
        if self._hooks.aborted:
            raise RunAborted(self._hooks.aborted)

    def _end(self) -> None:
        self.unreached = self._engine.close()
        if self.unreached:
            lease = self.setup.options.lease
            self._hooks.warn(
                "hosts",
                f"not reached to end the run there: {', '.join(self.unreached)}; "
                + (f"their lease ends their jobs after {lease} s" if lease else "their agents keep their jobs"),
            )
        try:
            self._fire_end()
        finally:
            self._interrupts.restore_signals()
            ended = self._ended()
            self._engine.observe(ended)
            self._engine.close_journal(ended)

    def _ended(self) -> events.RunEnded:
        counts = self._engine.scheduler.counts
        return events.RunEnded(time.time(), self.run_id, counts["COMPLETED"], counts["FAILED"], dict(counts))

    def _fire_end(self) -> None:
        def job_return() -> dict[str, Any]:
            has_returned = self._next_num > self.setup.first_num and self._engine.is_idle
            return {"job_return": self.returns[0] if has_returned else None}

        def job_returns() -> dict[str, Any]:
            return {"job_returns": self.setup.hook_returns(self.returns)}

        what = job_return if self.setup.mode == "RUN" else job_returns
        self._hooks.fire_end(lambda: {"config": self._config, "config_name": self._config_name, **what()})

    @property
    def config(self) -> Any:
        """The config that the run hooks get."""
        return made_now(self._config)

    # -- leaving -------------------------------------------------------------------------------------------------

    def detach(self, why: str = "asked to", timeout: float = 60.0) -> int:
        """Leave the run to its hosts, once each has its jobs; nothing is cancelled, and no end hook fires.

        Where every job has returned by then, nobody is left to do anything: the run is not left, and ends as usual.

        Args:
            timeout: seconds to wait for hosts to be reached and to confirm; jobs that no host has by then stay in the
                journal and are handed out when the run is taken up again.

        Returns:
            How many jobs no host has.
        """
        hand_over(self._engine, self._pump, why, timeout)
        return 0 if self._engine.is_idle else self._depart(why)

    def _depart(self, why: str) -> int:
        self.left_behind = depart(self._engine, self.setup, self._hooks, self._interrupts, why)
        with self._condition:
            self.is_detached = True
            self._condition.notify_all()
        return self.left_behind

    def _leave(self) -> None:
        """Leave because the terminal is gone.

        Raises:
            RunDetached: unless every job has returned.
        """
        why = self._interrupts.hangup
        self.detach(why)
        if not self.is_detached:
            return
        raise RunDetached(
            f"run {self.run_id} goes on without this process ({why}); 'launcher attach {self.run_id}' collects it"
        )

    # -- jobs ----------------------------------------------------------------------------------------------------

    def _prepare_and_start(self, task: Any = None) -> None:
        """Say what travels, and connect. Without a task that is not known yet: the first `submit` brings it."""
        if task is None and self.setup.waits_for_task:
            return
        self.setup.adopt(task)
        self.setup.prepare()
        for source, message in self.setup.warnings:
            self._hooks.warn(source, message)
        self._hooks.tell([events.Note(time.time(), note) for note in self.setup.notes])
        self.setup.record_prepared(self._engine.journal)
        self._engine.journal.commit()
        self._engine.start()

    def submit(
        self, task: Callable[[Any], Any] | None = None, config: Any = None, *, overrides: Sequence[str] = ()
    ) -> Job:
        """Run task(config) on some host; returns at once.

        Raises:
            UsageError: the task cannot be called with one config.
        """
        if self.setup.waits_for_task:
            self._prepare_and_start(task)
        num = self._next_num
        queued, failure = self.setup.job(num, task, config, texts_of_overrides(overrides))
        self._next_num += 1
        job = self._jobs[num] = self._new_job(num)
        self._engine.submit(queued, failure)
        return job

    def map(self, task: Callable[[Any], Any], configs: Iterable[Any]) -> Iterator[Any]:
        """The values of task over configs, in their order; raises a job's exception when its turn comes."""
        jobs = [self.submit(task, config) for config in configs]
        return (job.result() for job in jobs)

    def as_completed(self, jobs: Iterable[Job] | None = None, timeout: float | None = None) -> Iterator[Job]:
        """Jobs as they return, those that have returned already first.

        Args:
            jobs: default all of the session that were submitted by now; of these, a finished one's Job is made anew where
                nobody has kept it.

        Raises:
            TimeoutError: not all have within timeout seconds of the call.
        """
        chosen = self._all_jobs() if jobs is None else {job.num: job for job in jobs}.values()
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting = {}
        for job in chosen:
            if job.done():
                yield job
            else:
                waiting[job.num] = job
        while waiting:
            done = [num for num, job in waiting.items() if job.done()]
            for num in done:
                yield waiting.pop(num)
            if done:
                continue
            left = None if deadline is None else deadline - time.monotonic()
            self._wait_for(lambda: any(job.done() for job in waiting.values()), left)

    def _all_jobs(self) -> Iterator[Job]:
        """Those that have returned one by one, so that as many as there are need not fit into memory; then the others."""
        first, end = self.setup.first_num, self._next_num
        with self._condition:
            waiting = list(self._jobs.values())
        for num in sorted(set(range(first, end)).difference(job.num for job in waiting)):
            job = self._known_jobs.get(num)
            if job is None:
                job = self._new_job(num)
                job._job_return = self.load(num)  # noqa: SLF001
            yield job
        yield from waiting

    def _new_job(self, num: int) -> Job:
        job = self._known_jobs[num] = Job(self, num)
        return job

    @property
    def is_interrupted(self) -> bool:
        """Ctrl-C or SIGTERM came."""
        return bool(self._interrupts)

    @property
    def is_idle(self) -> bool:
        """No job is under way."""
        return self._engine.is_idle

    @property
    def next_num(self) -> int:
        """The number that the next job gets."""
        return self._next_num

    @property
    def returns(self) -> JobReturns:
        """The JobReturns of all jobs that were submitted; each must have returned when it is read."""
        return JobReturns(self._next_num - self.setup.first_num, lambda index: self.load(self.setup.first_num + index))

    def load(self, num: int) -> JobReturn:
        """A job's JobReturn, from the journal."""
        return self._returns.load(num)

    # -- waiting -------------------------------------------------------------------------------------------------

    def pump(self, timeout: float | None) -> JobReturn | None:
        """Take the next arrival, fire its hook, and return its JobReturn; None if it was none, or none came in time.

        Raises:
            RunDetached: SIGHUP came, and the controller has left.
        """
        if self._interrupts.hangup:
            self._leave()
        return self._pump(timeout)

    def _pump(self, timeout: float | None) -> JobReturn | None:
        self._hear_requests()
        item = self._engine.wait(timeout)
        if item is None:
            return None
        if isinstance(item, events.HostLost):
            self._hooks.fire("on_host_lost", config=self._config, host=item.host, jobs=list(item.jobs))
            return None
        return self._take(item)

    def _take(self, item: Returned) -> JobReturn:
        job_return = self._returns.make(item)
        if self.callbacks.has("on_job_return"):
            records = self._hooks.fire(
                "on_job_return",
                config=self._hook_config(job_return, item.payload),
                job_return=job_return,
                num=job_return.num,
            )
            bad = [record for record in records if not record["ok"] and record["on_error"] == "fail"]
            if bad:
                self._returns.fail_by_hook(item.event.num, bad[0]["error"])
                job_return = self._returns.make(item)
        with self._condition:
            job = self._jobs.pop(item.event.num, None)
            if job is not None:
                job._job_return = job_return  # noqa: SLF001
            self._condition.notify_all()
        return job_return

    def _hook_config(self, job_return: JobReturn, payload: bytes | None) -> Any:
        try:
            return self._returns.hook_config(job_return, payload)
        except Exception as error:  # made of what a user gave: what is wrong with it must not stop the run  # noqa: BLE001
            self._hooks.warn(
                "config", f"job {job_return.num}: its config cannot be decoded: {type(error).__name__}: {error}"
            )
            return None

    def _wait_for(self, is_true: Callable[[], bool], timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        if threading.get_ident() != self._thread:
            with self._condition:
                if not self._condition.wait_for(lambda: is_true() or self.is_detached, timeout):
                    raise TimeoutError
            if not is_true():
                raise RunDetached(f"run {self.run_id} goes on without this process")
            return
        while not is_true():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            self.pump(0.5 if left is None else min(left, 0.5))

    def _drain(self) -> None:
        """Take everything that is still to come; Ctrl-C once cancels, twice kills."""
        while not self._engine.is_idle:
            try:
                self.pump(0.5)
            except KeyboardInterrupt:
                self._interrupts.add(CTRL_C)

    def drive(self, sources: Iterable[tuple[Any, Sequence[str]]], task: Any = None, *, detach: bool = False) -> None:
        """Submit (config, overrides) as there is room, firing hooks as results arrive; returns when all have.

        A sequence of sources is journalled whole before its first job is sent, so that a resumed run has them all.

        Args:
            detach: submit everything, and leave the run as soon as the hosts have it.

        Raises:
            RunInterrupted: by Ctrl-C or SIGTERM, when everything has been collected.
            RunDetached: by SIGHUP, when the hosts have all jobs.
        """
        is_planned = isinstance(sources, Sequence)
        if isinstance(sources, Sequence):
            self._engine.record(meta={"total": str(self._next_num - self.setup.first_num + len(sources))})
            for name, data in run_record.planned_blobs(self._next_num, sources, self.setup.dumps_here).items():
                self._engine.record(blobs={name: data})
        self._drive(iter(sources), task, detach=detach, is_planned=is_planned)

    def _drive(self, source: Iterator[tuple[Any, Sequence[str]]], task: Any, *, detach: bool, is_planned: bool) -> None:
        if not is_planned:
            self._engine.record(meta={"open": str(self._next_num)})
        drive = Drive(
            self._engine,
            self._interrupts,
            source,
            lambda config, overrides: self.submit(task, config, overrides=overrides),
            self._pump,
            self._leave,
            self.detach,
            is_planned=is_planned,
            is_asked_to_leave=detach,
        )
        if not drive.run() and self._interrupts:
            raise RunInterrupted(self._interrupts.why)

    def _hear_requests(self) -> None:
        """Do what another process asks; looked for twice a second at most."""
        now = time.monotonic()
        if now < self._next_hearing:
            return
        self._next_hearing = now + 0.5
        for request in run_requests.take(self.folder):
            why = request.why or "cancelled by another process"
            if request.num is not None:
                self._engine.cancel(request.num)
            else:
                self._interrupts.add(why, kill=request.kill)

    def _track(self, event: events.Event) -> None:
        if isinstance(event, events.AttemptStarted):
            job = self._jobs.get(event.num)
            if job is not None:
                job._has_started = True  # noqa: SLF001
