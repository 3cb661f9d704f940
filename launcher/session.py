"""Session: fire the run hooks, drive the engine.

Rule: the end hooks fire whatever happens: a job that fails, a host that is lost, Ctrl-C, an error of our own; only a second signal
leaves them to whoever takes the run up. Controller hooks fire in one thread, so that a callback never meets another: in the one that
drives the run (`run`, `multirun`, a command, the plugin), or, of a session that is used as an executor, in a thread of its own.
Whoever submits, from any thread, only enqueues, and whoever wants a result only waits.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from launcher import events, ownership, run_index, run_record, run_requests
from launcher.dispatcher import Returned
from launcher.driving import Drive
from launcher.early_connect import EarlyConnections
from launcher.engine import Engine
from launcher.errors import RunAborted, RunDetached, RunInterrupted, SessionError, UsageError
from launcher.interrupts import Interrupts
from launcher.job_future import Job, JobState
from launcher.late_config import made_now
from launcher.leaving import abandon, depart, hand_over, waits_for, what_is_left
from launcher.live_output import Live, live_here
from launcher.options import LaunchConf, options_of
from launcher.returns import JobReturns
from launcher.run_hooks import RunHooks
from launcher.run_hosts import host_list
from launcher.run_log import log_problems
from launcher.run_setup import RunSetup
from launcher.session_returns import SessionReturns
from launcher.session_thread import SessionThread
from launcher.transports.make import make_transport
from remote_agent.callbacks import Callbacks
from remote_agent.config_nodes import is_config
from remote_agent.job import JobReturn

if TYPE_CHECKING:
    from typing_extensions import Self

    from launcher.inventory import HostSpec
    from launcher.requests import QueuedJob
    from launcher.resume import ResumedSession
    from launcher.transports.base import Transport

__all__ = ["Job", "JobState", "Observer", "Session"]

Observer = Callable[[events.Event], None]
T = TypeVar("T")

#: Seconds between two looks at whether there was a second signal, where something else is waited for.
_LOOK = 0.05
#: Seconds between two looks at whether another process asks something, while nothing arrives.
_IDLE = 0.5
#: Seconds for a thread to end when all is over.
_PATIENCE = 5.0


class Session(concurrent.futures.Executor):
    """Hosts, callbacks and a run folder; jobs are submitted to it: a `concurrent.futures.Executor`.

    Entering it, or its first job, fires `on_multirun_start` (or `on_run_start`); leaving it, `shutdown` or `close`, waits for all jobs
    and fires the end hook.

    Args:
        setup: everything that the run needs, checked.
        config: the config that the run hooks get.
        observers: called with each event of the run; without any, what goes wrong is logged (logger `launcher`).
        early: connections that were begun before; what the run does not take of them is for the caller to drop.
        live: shows what jobs print; closed when the session is.
        install_signals: handle SIGTERM (cancel) and SIGHUP (detach) while the session is open; main thread only.
        keeps_sigint: so SIGINT (cancel), too; else SIGINT is ours in calls that wait, and in between the caller's.
        in_own_thread: jobs are submitted from any thread; else the thread that enters it drives it.
        owns_process: this process is there for the run alone: after a second signal it is ended in any case.
    """

    def __init__(
        self,
        setup: RunSetup,
        *,
        config: Any = None,
        config_name: str | None = None,
        observers: Sequence[Observer] = (),
        install_signals: bool = True,
        keeps_sigint: bool = True,
        owns_process: bool = False,
        in_own_thread: bool = False,
        early: EarlyConnections | None = None,
        live: Live | None = None,
    ) -> None:
        self.setup = setup
        self._early = early
        self.run_id = setup.run_id
        self.folder = setup.folder
        self._config = config
        self._config_name = config_name
        self._observers = [self._track, *(observers or (log_problems,))]
        self._live_output = live
        #: Called before a hook of the controller that may print: what the jobs have printed comes first.
        self.wait_shown: Callable[[], None] = lambda: None
        if live is not None:
            self._observers.append(live)
            self.wait_shown = live.wait_shown
        self._install_signals = install_signals
        #: Those that have not returned.
        self._jobs: dict[int, Job[Any]] = {}
        #: Those that somebody has.
        self._known_jobs: weakref.WeakValueDictionary[int, Job[Any]] = weakref.WeakValueDictionary()
        #: The thread that takes what arrives, and in which hooks fire.
        self._driver = 0
        self._own: SessionThread | None = None
        if in_own_thread:
            self._own = SessionThread(self._begin, self._serve, self._wake)
        self._has_begun = False
        self._is_closing = False
        #: How the run ended was raised where somebody waited for that.
        self._has_told = False
        #: Held by whoever begins the session, gives a job its number, or closes it to further ones.
        self._gate = threading.RLock()
        self._keeps_sigint = keeps_sigint and not in_own_thread
        self._owns_process = owns_process
        #: While the session is open, where SIGINT is kept.
        self._kept = contextlib.ExitStack()
        self._interrupts = Interrupts(
            self._stop,
            tell=self._tell,
            what_waits=lambda: waits_for(self._engine),
            last_words=lambda: what_is_left(self._engine, self.run_id, self._interrupts.why),
            wake=self._wake,
        )
        self._next_num = setup.first_num
        self._engine: Engine
        self._engine_or_none: Engine | None = None
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
        """A session for plain tasks, with `with` or without. Arguments as those of `multirun`.

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
            live = live_here("MULTIRUN") if options.live else None
            return cls(setup, config=setup.root_config, observers=observers, in_own_thread=True, early=early, live=live)
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
        results: str | None = None,
        allow_types: Iterable[str | type] = (),
        live: bool = False,
    ) -> ResumedSession:
        """A run taken up again, to be entered with `with`; leaving it waits for all jobs and fires the end hook.

        Every job that has returned is kept, every job that a host still has is collected, and only what never ran is run.

        Args:
            run: its id, a prefix of that, its folder, or `last`.
            configs: all configs of the run once more, where they had been given as an iterator that was not yet used up.
            env: values of the run's variables, which no file keeps; what is not here is taken from the environment.
            results: read values under this policy, instead of the run's.
            allow_types: classes that `safe` makes, besides those that the run allowed.
            live: show what the jobs that have not returned print, from its beginning.

        Raises:
            RunError: there is no such run, it cannot be taken up, or another process drives it.
            UsageError: a variable of the run has no value here.
        """
        from launcher.resume import ResumedSession, load_setup

        setup, record = load_setup(run, env=env)
        setup.options = setup.options.replaced(
            results=results if results is not None else setup.options.results,
            allow_types=(*setup.options.allow_types, *allow_types),
            live=live,
        )
        shown = live_here(setup.mode) if live else None
        return ResumedSession(setup, record, configs=configs, observers=observers, in_own_thread=True, live=shown)

    def __enter__(self) -> Self:
        self._ensure_begun()
        return self

    def _ensure_begun(self) -> None:
        with self._gate:
            if self._has_begun:
                return
            self._check_open()
            self._has_begun = True
            if self._own is None:
                try:
                    self._begin()
                except BaseException:
                    self._close_live()
                    raise
                return
            # Here, where it may be the main thread, and not in that of the session.
            self._handle_signals()
            with self._interrupts.ours():
                try:
                    self._own.start()
                except BaseException:
                    self._is_closing = True
                    self._interrupts.restore_signals()
                    self._close_live()
                    raise

    def _check_open(self) -> None:
        if self._is_closing:
            raise SessionError(
                f"cannot schedule new futures after shutdown: the session of run {self.run_id} is closed"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_detached and self._own is None:
            self._close_live()
            return
        with self._interrupts.ours():
            if isinstance(error, KeyboardInterrupt) and not isinstance(error, RunInterrupted):
                self._interrupts.add_ctrl_c()
            elif error is not None and not self._interrupts:
                self._stop(f"{type(error).__name__} in the controller", False)
            if self._own is None:
                try:
                    self._finish()
                finally:
                    self._close_live()
                return
            try:
                self._close(self._own)
            except RunDetached:
                if error is None:
                    raise
        if error is None and self._interrupts.signals:
            raise self._interrupts.error()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further jobs; when all have returned the end hook fires.

        Args:
            wait: return when that is done; else it goes on in the session's thread.
            cancel_futures: cancel the jobs that wait.

        Raises:
            SessionError: a hook of the session would wait for itself.
            RunAborted, RunDetached, RunInterrupted, ControllerFailed: how the run ended, where that is not as it should; with wait.
        """
        if wait and self._own is not None and threading.get_ident() == self._own.ident:
            raise SessionError("a hook of the session closes it and waits: use shutdown(wait=False)")
        with self._gate:
            self._is_closing = True
        if cancel_futures:
            for job in list(self._jobs.values()):
                job._cancel_if_waiting()  # noqa: SLF001
        if not self._has_begun:
            if self._early is not None:
                self._early.close()
            self._close_live()
            return
        if self._own is None:
            raise SessionError("this session is closed by whoever drives it")
        self._wake()
        if wait:
            with self._interrupts.ours():
                self._close(self._own)

    def close(self) -> None:
        """`shutdown()`."""
        self.shutdown()

    def _close(self, own: SessionThread) -> None:
        """Have the session's thread end the run, and wait for it, at most until a second signal had its time."""
        with self._gate:
            self._is_closing = True
        self._wake()
        while not own.ended.done() and not self._interrupts.must_give_up:
            concurrent.futures.wait([own.ended], timeout=_LOOK)
        if not own.ended.done():
            # A hook there cannot be interrupted: the process is about to be ended.
            raise self._interrupts.error(what_is_left(self._engine, self.run_id, self._interrupts.why))
        # From the main thread, where it may be that.
        self._interrupts.restore_signals()
        failure, self._has_told = None if self._has_told else own.ended.exception(), True
        if failure is not None:
            raise failure

    def _serve(self) -> None:
        """In the session's thread: take what arrives until the session is closed, then end the run."""
        error: BaseException = SessionError(f"run {self.run_id} has ended")
        try:
            try:
                own = self._own
                while own is not None and not self._is_closing and not own.must_close:
                    self.pump(_IDLE)
                    own.serve()
            finally:
                with self._gate:
                    self._is_closing = True
                if not self.is_detached:
                    self._finish()
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._close_live()
            for job in list(self._jobs.values()):
                job.has_been_left(error)

    def check_may_wait(self, num: int) -> None:
        """Refuse to wait for a job in a thread without which it does not return.

        Raises:
            SessionError: this is one.
        """
        if not self._has_begun:
            return
        if threading.get_ident() == self._driver:
            raise SessionError(
                f"job {num} is waited for in the thread of the session, by a hook: its JobReturn comes after the hook; keep the "
                "Job, or give it a callback (add_done_callback)"
            )
        if self._engine.is_own_thread:
            raise SessionError(f"job {num} is waited for by an observer: nothing is decided meanwhile")

    def cancel_job_of(self, num: int) -> None:
        """Have a job cancelled."""
        self._engine.cancel(num)

    def _stop(self, why: str, kill: bool) -> None:
        # Before there is an engine nothing is under way; whoever begins looks at the interrupts.
        if self._engine_or_none is not None:
            self._engine_or_none.interrupt(why, kill=kill)

    def _tell(self, text: str) -> None:
        if self._engine_or_none is not None:
            self._hooks.warn("signal", text)

    def _close_live(self) -> None:
        if self._live_output is not None:
            self._live_output.close()

    def _build(self, lock: int | None = None) -> None:
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
            lock,
        )
        self._hooks = RunHooks(setup, self._engine, self._interrupts)
        self._engine_or_none = self._engine
        self._returns = SessionReturns(setup, self._engine)

    def _wake(self) -> None:
        """Have the driver look up."""
        if self._engine_or_none is not None:
            self._engine_or_none.wake()

    def _transport_of(self, spec: HostSpec) -> Transport:
        return (self._early.take(spec) if self._early is not None else None) or make_transport(spec)

    def _begin(self) -> None:
        self._driver = threading.get_ident()
        with self._interrupts.ours():
            self._open()

    def _open(self) -> None:
        claim = self.setup.take_folder()
        self.folder = claim.folder
        if claim.earlier is not None:
            known = run_index.look_up(claim.earlier)
            # What that journal calls itself is not to make us forget a run elsewhere.
            if known is not None and known.folder.resolve() == self.folder.resolve():
                run_index.remove(claim.earlier)
        self._build(claim.take_lock())
        try:
            hosts = tuple(spec.name for spec in self.setup.hosts)
            started = events.RunStarted(time.time(), self.run_id, self.setup.mode, str(self.folder), hosts)
            journal = self._engine.journal
            journal.append([started])
            self.setup.record(journal, self._config_name)
            secret = ownership.make_secret()
            journal.put_meta(**{ownership.KEY: secret})
            journal.commit()
            self._engine.observe(started)
            self._index(started.at, secret)
            if self._own is None:
                self._handle_signals()
            self.wait_shown()
            self._hooks.fire(self._hooks.start_hook, config=self._config, config_name=self._config_name)
            if self._hooks.is_cut:
                raise self._interrupts.error(f"{self._interrupts.why}, twice: nothing was sent to a host")
            if not self._hooks.aborted and not self._interrupts:
                # The state that the callbacks have now is what travels.
                self._prepare_and_start()
            if self._hooks.aborted or not self._engine.is_running:
                self._start_for_nothing()
        except BaseException:
            self._end_at_once()
            raise

    def _start_for_nothing(self) -> None:
        """Have what is submitted, if anything is, come to its end without any host."""
        why = self._hooks.aborted or self._interrupts.why
        if why:
            self._engine.start(connect=False)
            self._engine.interrupt(why)

    def _end_at_once(self) -> None:
        """The run could not begin."""
        try:
            self._engine.close()
            self._fire_end()
            self._engine.close_journal(*([] if self._hooks.is_cut else [self._ended()]))
        finally:
            self._restore_signals()

    def _handle_signals(self) -> None:
        if not self._install_signals:
            return
        self._interrupts.handle_signals()
        if self._keeps_sigint:
            self._kept.enter_context(self._interrupts.ours())

    def _restore_signals(self, *, is_over: bool = True) -> None:
        self._interrupts.restore_signals(is_over=is_over and not self._owns_process)
        self._kept.close()

    def _index(self, at: float, secret: str) -> None:
        try:
            setup = self.setup
            run_index.add(
                run_index.Entry(
                    self.run_id, self.folder, at, setup.mode, setup.task_name, setup.is_reproduction, secret
                )
            )
        except OSError as error:
            self._hooks.warn(
                "index",
                "the run can be named by its folder only, and is taken up again after 'launcher runs --adopt' only: "
                f"{error.filename}: {error.strerror}",
            )

    def _finish(self) -> None:
        try:
            self._drain()
        finally:
            if not self.is_detached:
                self._end()
        if self._hooks.is_cut:
            raise self._interrupts.error(what_is_left(self._engine, self.run_id, self._interrupts.why))
        if self._hooks.aborted:
            raise RunAborted(self._hooks.aborted)

    def _end(self) -> None:
        try:
            self._close_engine()
            if self.unreached:
                lease = self.setup.options.lease
                self._hooks.warn(
                    "hosts",
                    f"not reached to end the run there: {', '.join(self.unreached)}; "
                    + (f"their lease ends their jobs after {lease} s" if lease else "their agents keep their jobs"),
                )
        finally:
            self.wait_shown()
            try:
                self._fire_end()
            finally:
                try:
                    self._close_journal()
                finally:
                    self._restore_signals()

    def _close_journal(self) -> None:
        if self._hooks.is_cut or self._engine.crash is not None:
            # Whoever takes the run up fires what is owed, and collects what is on the hosts.
            self.is_detached = True
            why = f"{self._interrupts.why}, twice; hooks are owed" if self._hooks.is_cut else "the controller failed"
            detached = events.RunDetached(time.time(), self.run_id, why)
            self._engine.observe(detached)
            self._engine.close_journal(detached)
            return
        ended = self._ended()
        self._engine.observe(ended)
        self._engine.close_journal(ended)

    def _close_engine(self) -> None:
        """End the run on all hosts, which a second signal cuts short: then those that have not ended are named.

        Where nothing can be decided any more, hosts are left alone with what they have.
        """
        if self._engine.crash is not None:
            self._engine.abandon(_PATIENCE)
            self._engine.drop_links()
            return
        failed: list[BaseException] = []

        def close() -> None:
            try:
                self.unreached = self._engine.close()
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                failed.append(error)

        closing = threading.Thread(target=close, name="closing", daemon=True)
        closing.start()
        while closing.is_alive() and not self._interrupts.must_leave:
            closing.join(_LOOK)
        if closing.is_alive():
            self.unreached = self._engine.not_ended
        if failed:
            raise failed[0]

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
        if self._own is not None and threading.get_ident() != self._own.ident:
            left: int = self._own.call(lambda: self.detach(why, timeout))
            return left
        hand_over(self._engine, self._pump, why, timeout, lambda: bool(self._interrupts))
        return 0 if self._engine.is_idle or self._interrupts else self._depart(why)

    def _depart(self, why: str) -> int:
        self.left_behind = depart(self._engine, self.setup, self._hooks, why)
        self._restore_signals()
        self.is_detached = True
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

    def _leave_if_must(self) -> None:
        """Leave because of a second signal, when hosts had some time for what they have.

        Raises:
            RunInterrupted: saying what is left where, and how to collect it.
        """
        if not self._hooks.is_cut and not self._interrupts.must_leave:
            return
        self.left_behind = len(self._engine.scheduler.pending)
        left = abandon(self._engine, self.setup, self._interrupts)
        self.is_detached = True
        self._restore_signals()
        raise self._interrupts.error(left)

    # -- jobs ----------------------------------------------------------------------------------------------------

    def _prepare_and_start(self, task: Any = None, *, with_config: bool = True) -> None:
        """Say what travels, and connect. Without a task that is not known yet: the first `submit` brings it."""
        if task is None and self.setup.waits_for_task:
            return
        self.setup.adopt(task, with_config=with_config)
        self.setup.prepare()
        for source, message in self.setup.warnings:
            self._hooks.warn(source, message)
        self._hooks.tell([events.Note(time.time(), note) for note in self.setup.notes])
        self.setup.record_prepared(self._engine.journal)
        self._engine.journal.commit()
        self._engine.start()

    @overload
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Job[T]: ...
    @overload
    def submit(self, fn: str | None, /, *args: Any, **kwargs: Any) -> Job[Any]: ...
    def submit(self, fn: Callable[..., Any] | str | None, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Run fn on some host; returns at once, unless very many jobs are under way. From any thread.

        Exactly one argument that is a mapping, a dataclass or a config is the job's config: fn(config). Anything else is what fn is
        called with: fn(*args, **kwargs), and the job has an empty config.

        Raises:
            UsageError: fn cannot be called, or not with one config.
            SessionError: the session is closed.
        """
        if len(args) == 1 and not kwargs and _is_config(args[0]):
            return self._submit_from_anywhere(fn, lambda num: self.setup.job(num, fn, args[0], ()), with_config=True)
        return self._submit_from_anywhere(fn, lambda num: self.setup.call_job(num, fn, args, kwargs), with_config=False)

    def _submit_from_anywhere(
        self, task: Any, make: Callable[[int], tuple[QueuedJob, tuple[str, str] | None]], *, with_config: bool
    ) -> Job[Any]:
        self._ensure_begun()
        with self._interrupts.held_back() as held, self._gate:
            self._check_open()
            if self.setup.waits_for_task and not self._engine.is_running:
                if task is None:
                    raise UsageError("the task is None; the first job of a session brings it")
                self._prepare_and_start(task, with_config=with_config)
            return self._submit(make, lambda: held.came or self._engine.crash is not None or self.is_detached)

    def _submit(
        self,
        make: Callable[[int], tuple[QueuedJob, tuple[str, str] | None]],
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Job[Any]:
        num = self._next_num
        queued, failure = make(num)
        job = self._jobs[num] = self._new_job(num)
        if not self._engine.submit(queued, failure, is_stopped):
            del self._jobs[num]
            raise SessionError(f"run {self.run_id} takes no new jobs: it has ended or was left")
        self._next_num += 1
        return job

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """The values of fn over the items of the iterables, in their order; raises a job's exception when its turn comes.

        Args:
            timeout: seconds from the call, in which each value must be there.
            chunksize: has no effect: each item is a job, with a JobReturn of its own.

        Raises:
            TimeoutError: a value is not there in time.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        deadline = None if timeout is None else time.monotonic() + timeout
        jobs = [self.submit(fn, *each) for each in zip(*iterables, strict=False)]

        def values() -> Iterator[T]:
            try:
                jobs.reverse()
                while jobs:
                    # No reference is kept here while somebody works with a value.
                    yield jobs.pop().result(None if deadline is None else deadline - time.monotonic())
            finally:
                for job in jobs:
                    job._cancel_if_waiting()  # noqa: SLF001

        return values()

    @overload
    def as_completed(self, jobs: Iterable[Job[T]], timeout: float | None = None) -> Iterator[Job[T]]: ...
    @overload
    def as_completed(self, jobs: None = None, timeout: float | None = None) -> Iterator[Job[Any]]: ...
    def as_completed(self, jobs: Iterable[Job[Any]] | None = None, timeout: float | None = None) -> Iterator[Job[Any]]:
        """Jobs as they return, those that have returned already first.

        Args:
            jobs: default all of the session that were submitted by now; of these, a finished one's Job is made anew where
                nobody has kept it.

        Raises:
            TimeoutError: not all have within timeout seconds of the call.
        """
        chosen = self._all_jobs() if jobs is None else {job.num: job for job in jobs}.values()
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting = []
        for job in chosen:
            if job.done():
                yield job
            else:
                waiting.append(job)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        futures: Iterator[Any] = concurrent.futures.as_completed(waiting, left)
        yield from futures

    def _all_jobs(self) -> Iterator[Job[Any]]:
        """Those that have returned one by one, so that as many as there are need not fit into memory; then the others."""
        first, end = self.setup.first_num, self._next_num
        waiting = list(self._jobs.values())
        for num in sorted(set(range(first, end)).difference(job.num for job in waiting)):
            job = self._known_jobs.get(num)
            if job is None:
                job = self._new_job(num)
                job.has_returned(self.load(num))
            yield job
        yield from waiting

    def _new_job(self, num: int) -> Job[Any]:
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
            RunInterrupted: a second signal came, and the controller has left.
        """
        if self._interrupts.hangup and not self._interrupts:
            self._leave()
        return self._pump(timeout)

    def _pump(self, timeout: float | None) -> JobReturn | None:
        self._leave_if_must()
        self._hear_requests()
        item = self._engine.wait(timeout)
        if item is None:
            return None
        if isinstance(item, events.HostLost):
            self._hooks.fire("on_host_lost", config=self._config, host=item.host, jobs=list(item.jobs))
            return None
        return self._take(item)

    def _take(self, item: Returned, only: Iterable[int] | None = None) -> JobReturn:
        """Make the JobReturn and fire its hook; `only`: the places of the callbacks that have not had it."""
        job_return = self._returns.make(item)
        if self.callbacks.has("on_job_return"):
            self.wait_shown()
            records = self._hooks.fire(
                "on_job_return",
                only=only,
                config=self._hook_config(job_return, item.payload),
                job_return=job_return,
                num=job_return.num,
            )
            bad = [record for record in records if not record["ok"] and record["on_error"] == "fail"]
            if bad:
                self._returns.fail_by_hook(item.event.num, bad[0]["error"])
                job_return = self._returns.make(item)
        job = self._jobs.pop(item.event.num, None)
        if job is not None:
            job.has_returned(job_return)
        return job_return

    def _hook_config(self, job_return: JobReturn, payload: bytes | None) -> Any:
        try:
            return self._returns.hook_config(job_return, payload)
        except Exception as error:  # made of what a user gave: what is wrong with it must not stop the run  # noqa: BLE001
            self._hooks.warn(
                "config", f"job {job_return.num}: its config cannot be decoded: {type(error).__name__}: {error}"
            )
            return None

    def _drain(self) -> None:
        """Take everything that is still to come."""
        while not self._engine.is_idle:
            self.pump(0.5)

    def drive(self, sources: Iterable[tuple[Any, Sequence[str]]], task: Any = None, *, detach: bool = False) -> None:
        """Submit (config, overrides) as there is room, firing hooks as results arrive; returns when all have.

        A sequence of sources is journalled whole before its first job is sent, so that a resumed run has them all.

        Args:
            detach: submit everything, and leave the run as soon as the hosts have it.

        Raises:
            RunInterrupted: by Ctrl-C or SIGTERM, when everything has been collected.
            RunDetached: by SIGHUP, when the hosts have all jobs.
        """
        with self._interrupts.ours():
            self._plan_and_drive(sources, task, detach=detach)

    def _plan_and_drive(self, sources: Iterable[tuple[Any, Sequence[str]]], task: Any, *, detach: bool) -> None:
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
            lambda config, overrides: self._submit(lambda num: self.setup.job(num, task, config, tuple(overrides))),
            self._pump,
            self._leave,
            self.detach,
            is_planned=is_planned,
            is_asked_to_leave=detach,
        )
        if not drive.run() and self._interrupts:
            self._leave_if_must()
            raise self._interrupts.error()

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
                job.has_started()


def _is_config(value: Any) -> bool:
    """It is a job's config, and not an argument."""
    return (
        isinstance(value, Mapping)
        or is_config(value)
        or (dataclasses.is_dataclass(value) and not isinstance(value, type))
    )
