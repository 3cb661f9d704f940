"""Session: an open run. Any thread may submit jobs to it, as to any executor.

Rule: a thread that submits only enqueues, and a thread that wants a result only waits. Hooks fire in the thread that drives the run:
the caller's (`run`, `multirun`, a command, the plugin), or the session's own if it is used as an executor.
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

from launcher.engine.requests import QueuedJob
from launcher.errors import RunDetached, RunInterrupted, SessionError, UsageError
from launcher.hosts.inventory import host_list
from launcher.options import LaunchConf, options_of
from launcher.session.jobs.job import Job, JobState
from launcher.session.resumed import ResumedRun
from launcher.session.run_session import Observer, RunSession, SessionConf
from launcher.session.stopping.ending import what_is_left
from launcher.setup.kinds.run_setup import RunSetup
from launcher.transports.early_connections import EarlyConnections
from remote_agent.config.nodes import is_config

if TYPE_CHECKING:
    from typing_extensions import Self

    from launcher.live.observer import Live
    from launcher.session.thread import SessionThread

__all__ = ["Job", "JobState", "Observer", "ResumedSession", "Session", "SessionConf", "live_of"]

T = TypeVar("T")

#: Seconds between two checks for a second signal while something else is waited for.
_CHECK_EVERY = 0.05
#: Seconds between two checks for requests of other processes while nothing arrives.
_IDLE = 0.5


def live_of(mode: str, options: LaunchConf) -> Live | None:
    """Return what shows in this process what the jobs print; None if the options do not ask for it."""
    if not options.live:
        return None
    from launcher.live.observer import live_here

    return live_here(mode)


class Session(RunSession, concurrent.futures.Executor):
    """A run with hosts, callbacks and a folder, to which jobs are submitted. A `concurrent.futures.Executor`.

    Entering it, or its first job, fires `on_multirun_start` (or `on_run_start`). Leaving it, `shutdown` or `close` waits for all jobs
    and fires the end hook.

    Args:
        setup: everything that the run needs, checked.
    """

    def __init__(self, setup: RunSetup, conf: SessionConf) -> None:
        super().__init__(setup, conf)
        #: A process that is forked of ours has the object, but neither its threads nor a part in the run.
        self._process = os.getpid()
        self._own = self._own_thread() if conf.in_own_thread else None
        self._has_begun = False
        self._is_closing = False
        #: Whether the exception that ended the run was already raised to a caller.
        self._has_told = False
        #: Held while the session begins, while a job gets its number, and while the session closes to further jobs.
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
        """Open a session for plain tasks, with or without `with`. The arguments are those of `multirun`.

        The SSH handshakes begin now. If no job needs a host within some seconds, its connection is dropped, and made again later.

        Raises:
            UsageError: an argument is wrong. Nothing was sent.
        """
        hosts = host_list(hosts)
        options = options_of(options, kw)
        early = EarlyConnections.begin(hosts, options)
        try:
            setup = RunSetup.make(
                "MULTIRUN", None, [], hosts=hosts, callbacks=callbacks, folder=folder, options=options
            )
            conf = SessionConf(observers, in_own_thread=True, early=early, live=live_of("MULTIRUN", options))
            return cls(setup, conf)
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
        """Resume a run. Use it with `with`; leaving it waits for all jobs and fires the end hook.

        Every job that has returned is kept, every job that a host still has is collected, and only jobs that never ran are run.

        Args:
            run: its id, a prefix of that, its folder, or `last`.
            configs: all configs of the run again, if they were given as an iterator that was not used up.
            env: values of the run's variables, which no file has. Missing ones come from the environment.
            results: read values under this policy, instead of the run's.
            allow_types: classes that `safe` makes, besides those that the run allowed.
            live: show what the jobs that have not returned print, from the beginning.

        Raises:
            RunError: there is no such run, it cannot be resumed, or another process drives it.
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
        conf = SessionConf(observers, in_own_thread=True, live=live_of(setup.mode, options))
        return ResumedSession(setup, conf, record, configs=configs)

    def __enter__(self) -> Self:
        self._ensure_begun()
        return self

    def _own_thread(self) -> SessionThread:
        from launcher.session.thread import SessionThread

        return SessionThread(self.begin, self._serve, self.wake)

    @property
    def _is_forked(self) -> bool:
        return os.getpid() != self._process

    def _check_process(self) -> None:
        if self._is_forked:
            raise SessionError(
                f"this session belongs to process {self._process}, and this process ({os.getpid()}) was forked from it; open another session here"
            )

    def _ensure_begun(self) -> None:
        # Check this before taking the gate, which a thread may have held at the fork.
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
            # Handle signals here, because this may be the main thread, and the session's thread is not.
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
        """Take no more jobs. When all have returned, the end hook fires.

        Args:
            wait: return after that; otherwise it goes on in the session's thread.
            cancel_futures: cancel the jobs that wait.

        Raises:
            SessionError: a hook of the session called it, and would wait for itself.
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
            raise SessionError("only the thread that drives this session can close it")
        self.wake()
        if wait:
            with self.interrupts.ours():
                self._close(self._own)

    def close(self) -> None:
        """`shutdown()`."""
        self.shutdown()

    def _close(self, own: SessionThread) -> None:
        """Let the session's thread end the run, and wait for it. After a second signal, wait only a limited time."""
        with self._gate:
            self._is_closing = True
        self.wake()
        while not own.ended.done() and not self.interrupts.must_give_up:
            concurrent.futures.wait([own.ended], timeout=_CHECK_EVERY)
        if not own.ended.done():
            # A hook in that thread cannot be interrupted, so the process is about to be ended.
            raise self.interrupts.error(what_is_left(self.engine, self.run_id, self.interrupts.why))
        # Restore them here, because this may be the main thread.
        self.interrupts.restore_signals()
        failure, self._has_told = None if self._has_told else own.ended.exception(), True
        if failure is not None:
            raise failure

    def _serve(self) -> None:
        """Take arrivals until the session is closed, then end the run. Runs in the session's thread."""
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
        """Leave the run to its hosts when each has its jobs. Nothing is cancelled, and no end hook fires.

        If every job has returned by then, the run does not detach, and ends as usual.

        Args:
            timeout: seconds to wait until hosts are reached and confirm. Jobs that no host has by then stay in the journal, and
                are sent when the run is resumed.

        Returns:
            How many jobs no host has.
        """
        self._check_process()
        if self._own is not None and threading.get_ident() != self._own.ident:
            left: int = self._own.call(lambda: self.detach(why, timeout))
            return left
        return super().detach(why, timeout)

    # -- jobs ------------------------------------------------------------------------------------------------------

    @overload  # type: ignore[override]  # `resources` is not fn's, as with other executors for many hosts
    def submit(
        self, fn: Callable[..., T], /, *args: Any, resources: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Job[T]: ...
    @overload
    def submit(
        self, fn: str | None, /, *args: Any, resources: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Job[Any]: ...
    def submit(
        self,
        fn: Callable[..., Any] | str | None,
        /,
        *args: Any,
        resources: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Job[Any]:
        """Run fn on some host. Returns at once, unless very many jobs are under way. Any thread may call it.

        A single argument that is a mapping, a dataclass or a config is the job's config: fn(config). Other arguments are passed to
        fn as they are, fn(*args, **kwargs), and the job has an empty config.

        Args:
            resources: what this job needs of its host (gpus, cpus, memory; on a Slurm cluster nodes, tasks, time). What it does not say is the run's, and None means none. It is
                not passed to fn.

        Raises:
            UsageError: fn cannot be called, or not with a single config; or `resources` make no sense, or are more than any host has.
            SessionError: the session is closed.
        """
        needs = self.setup.needs_of(resources)
        with_config = len(args) == 1 and not kwargs and _is_config(args[0])

        def make(num: int) -> QueuedJob:
            if with_config:
                made = self.setup.job(num, fn, args[0], ())
            else:
                made = self.setup.call_job(num, fn, args, kwargs)
            made.spec = made.spec._replace(needs=needs)
            return made

        return self._submit_from_anywhere(fn, make, with_config=with_config)

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
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        resources: Mapping[str, Any] | None = None,
    ) -> Iterator[T]:
        """Yield the values of fn over the items of the iterables, in order. A job's exception is raised when its turn comes.

        Args:
            timeout: seconds from the call within which each value must be there.
            chunksize: has no effect, because each item is a job with its own JobReturn.
            resources: what each of these jobs needs; see `submit`.

        Raises:
            TimeoutError: a value is not there in time.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        deadline = None if timeout is None else time.monotonic() + timeout
        jobs = [self.submit(fn, *each, resources=resources) for each in zip(*iterables, strict=False)]

        def values() -> Iterator[T]:
            try:
                jobs.reverse()
                while jobs:
                    # Keep no reference here while the caller works with the value.
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
        """Yield jobs as they return. Those that have already returned come first.

        Args:
            jobs: by default, all jobs of the session that were submitted so far. If nobody has kept the Job of a finished one,
                it is made again.

        Raises:
            TimeoutError: not all have returned within `timeout` seconds of the call.
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
        """Yield finished jobs one by one, because all of them together may not fit into memory. Then yield the others."""
        first, end = self.setup.first_num, self.next_num
        waiting = list(self.unfinished.values())
        for num in sorted(set(range(first, end)).difference(job.num for job in waiting)):
            yield self.returned_job(num)
        yield from waiting


class ResumedSession(ResumedRun, Session):
    """A session that continues another session's run. See `Session.resume`."""


def _is_config(value: Any) -> bool:
    """Whether it is a job's config, and not an argument."""
    return (
        isinstance(value, Mapping)
        or is_config(value)
        or (dataclasses.is_dataclass(value) and not isinstance(value, type))
    )
