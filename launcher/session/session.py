"""Session: a run that is open: jobs are submitted to it, from any thread, as to any executor.

Rule: whoever submits only enqueues, and whoever wants a result only waits. Hooks fire in the thread that drives the run: the caller's
(`run`, `multirun`, a command, the plugin), or, of a session that is used as an executor, in a thread of its own.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from launcher.errors import RunDetached, RunInterrupted, SessionError, UsageError
from launcher.inventory import host_list
from launcher.options import LaunchConf, options_of
from launcher.session.ending import what_is_left
from launcher.session.job import Job, JobState
from launcher.session.live_output import live_here
from launcher.session.resumed import ResumedRun
from launcher.session.run_session import Observer, RunSession, SessionConf
from launcher.session.thread import SessionThread
from launcher.setup.run_setup import RunSetup
from launcher.transports.early_connections import EarlyConnections
from remote_agent.config.nodes import is_config

if TYPE_CHECKING:
    from typing_extensions import Self

    from launcher.engine.requests import QueuedJob

__all__ = ["Job", "JobState", "Observer", "ResumedSession", "Session", "SessionConf"]

T = TypeVar("T")

#: Seconds between two looks at whether there was a second signal, where something else is waited for.
_LOOK = 0.05
#: Seconds between two looks at whether another process asks something, while nothing arrives.
_IDLE = 0.5


class Session(RunSession, concurrent.futures.Executor):
    """Hosts, callbacks and a run folder; jobs are submitted to it: a `concurrent.futures.Executor`.

    Entering it, or its first job, fires `on_multirun_start` (or `on_run_start`); leaving it, `shutdown` or `close`, waits for all jobs
    and fires the end hook.

    Args:
        setup: everything that the run needs, checked.
    """

    def __init__(self, setup: RunSetup, conf: SessionConf) -> None:
        super().__init__(setup, conf)
        #: A process that is forked of ours has the object, but neither its threads nor a part in the run.
        self._process = os.getpid()
        self._own = SessionThread(self.begin, self._serve, self.wake) if conf.in_own_thread else None
        self._has_begun = False
        self._is_closing = False
        #: How the run ended was raised where somebody waited for that.
        self._has_told = False
        #: Held by whoever begins the session, gives a job its number, or closes it to further ones.
        self._gate = threading.RLock()

    # -- opening and closing ---------------------------------------------------------------------------------------

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
            return cls(setup, SessionConf(observers, in_own_thread=True, early=early, live=live))
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
        from launcher.setup.from_journal import load_setup

        setup, record = load_setup(run, env=env)
        options = setup.options.replaced(
            results=results if results is not None else setup.options.results,
            allow_types=(*setup.options.allow_types, *allow_types),
            live=live,
        )
        setup = dataclasses.replace(setup, options=options)
        shown = live_here(setup.mode) if live else None
        conf = SessionConf(observers, in_own_thread=True, live=shown)
        return ResumedSession(setup, conf, record, configs=configs)

    def __enter__(self) -> Self:
        self._ensure_begun()
        return self

    @property
    def _is_forked(self) -> bool:
        return os.getpid() != self._process

    def _check_process(self) -> None:
        if self._is_forked:
            raise SessionError(
                f"this session belongs to process {self._process}, and this process ({os.getpid()}) was forked from it; open another session here"
            )

    def _ensure_begun(self) -> None:
        # Before the gate, which a thread may have held when this process was forked.
        self._check_process()
        with self._gate:
            if self._has_begun:
                return
            self._check_open()
            self._has_begun = True
            if self._own is None:
                try:
                    self.begin()
                except BaseException:
                    self.close_live()
                    raise
                return
            # Here, where it may be the main thread, and not in that of the session.
            self.handle_signals()
            with self.interrupts.ours():
                try:
                    self._own.start()
                except BaseException:
                    self._is_closing = True
                    self.interrupts.restore_signals()
                    self.close_live()
                    raise

    def _check_open(self) -> None:
        if self._is_closing:
            raise SessionError(
                f"cannot schedule new futures after shutdown: the session of run {self.run_id} is closed"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_forked:
            return
        if self.is_detached and self._own is None:
            self.close_live()
            return
        with self.interrupts.ours():
            if isinstance(error, KeyboardInterrupt) and not isinstance(error, RunInterrupted):
                self.interrupts.add_ctrl_c()
            elif error is not None and not self.interrupts:
                self.stop(f"{type(error).__name__} in the controller", False)
            if self._own is None:
                try:
                    self.finish()
                finally:
                    self.close_live()
                return
            try:
                self._close(self._own)
            except RunDetached:
                if error is None:
                    raise
        if error is None and self.interrupts.signals:
            raise self.interrupts.error()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further jobs; when all have returned the end hook fires.

        Args:
            wait: return when that is done; else it goes on in the session's thread.
            cancel_futures: cancel the jobs that wait.

        Raises:
            SessionError: a hook of the session would wait for itself.
            RunAborted, RunDetached, RunInterrupted, ControllerFailed: how the run ended, where that is not as it should; with wait.
        """
        if self._is_forked:
            return
        if wait and self._own is not None and threading.get_ident() == self._own.ident:
            raise SessionError("a hook cannot close its own session and wait for it: use shutdown(wait=False)")
        with self._gate:
            self._is_closing = True
        if cancel_futures:
            for job in list(self.unfinished.values()):
                job.cancel_if_waiting()
        if not self._has_begun:
            self.drop_early()
            self.close_live()
            return
        if self._own is None:
            raise SessionError("whoever drives this session closes it")
        self.wake()
        if wait:
            with self.interrupts.ours():
                self._close(self._own)

    def close(self) -> None:
        """`shutdown()`."""
        self.shutdown()

    def _close(self, own: SessionThread) -> None:
        """Have the session's thread end the run, and wait for it, at most until a second signal had its time."""
        with self._gate:
            self._is_closing = True
        self.wake()
        while not own.ended.done() and not self.interrupts.must_give_up:
            concurrent.futures.wait([own.ended], timeout=_LOOK)
        if not own.ended.done():
            # A hook there cannot be interrupted: the process is about to be ended.
            raise self.interrupts.error(what_is_left(self.engine, self.run_id, self.interrupts.why))
        # From the main thread, where it may be that.
        self.interrupts.restore_signals()
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
                    self.finish()
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.close_live()
            for job in list(self.unfinished.values()):
                job.has_no_return(error)

    def detach(self, why: str = "as asked", timeout: float = 60.0) -> int:
        """Leave the run to its hosts, once each has its jobs; nothing is cancelled, and no end hook fires.

        Where every job has returned by then, nobody is left to do anything: the run is not left, and ends as usual.

        Args:
            timeout: seconds to wait for hosts to be reached and to confirm; jobs that no host has by then stay in the
                journal and are handed out when the run is taken up again.

        Returns:
            How many jobs no host has.
        """
        self._check_process()
        if self._own is not None and threading.get_ident() != self._own.ident:
            left: int = self._own.call(lambda: self.detach(why, timeout))
            return left
        return super().detach(why, timeout)

    # -- jobs ------------------------------------------------------------------------------------------------------

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

    def _submit_from_anywhere(self, task: Any, make: Callable[[int], QueuedJob], *, with_config: bool) -> Job[Any]:
        self._ensure_begun()
        with self.interrupts.held_back() as held, self._gate:
            self._check_open()
            if self.setup.waits_for_task and not self.engine.is_running:
                if task is None:
                    raise UsageError("the task is None; the first job of a session brings it")
                self.prepare_and_start(task, with_config=with_config)
            return self.submit_made([make(self.next_num)], lambda: held.came)[0]

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
                    job.cancel_if_waiting()

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
        first, end = self.setup.first_num, self.next_num
        waiting = list(self.unfinished.values())
        for num in sorted(set(range(first, end)).difference(job.num for job in waiting)):
            yield self.returned_job(num)
        yield from waiting


class ResumedSession(ResumedRun, Session):
    """A session of a run that another one began. See `Session.resume`."""


def _is_config(value: Any) -> bool:
    """It is a job's config, and not an argument."""
    return (
        isinstance(value, Mapping)
        or is_config(value)
        or (dataclasses.is_dataclass(value) and not isinstance(value, type))
    )
