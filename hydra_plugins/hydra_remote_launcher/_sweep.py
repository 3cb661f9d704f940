"""One sweep through Hydra's own sweeper: its checks, its session, its batches.

Rule: all batches use one session, so that the agents stay. The guard closes it, which fires `on_multirun_end`.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import configure_log, filter_overrides
from hydra.errors import CompactHydraException
from omegaconf import OmegaConf

from hydra_plugins.hydra_remote_launcher._guard import EndGuard
from launcher import events
from launcher.config.hydra import as_caching_loader
from launcher.config.interpolations import unresolved
from launcher.config.job_config import numbered, without_secrets
from launcher.display.lines import EventLines
from launcher.display.tally import Tally
from launcher.errors import LauncherError, RunDetached, RunInterrupted, UsageError
from launcher.options import LaunchConf
from launcher.session.session import Session, SessionConf
from launcher.setup.earlier import continued
from launcher.setup.kinds.hydra import HydraSetup, callback_entries
from launcher.transports.early_connections import EarlyConnections

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

__all__ = ["RemoteLauncherDetached", "RemoteLauncherError", "Sweep"]

_log = logging.getLogger("hydra_plugins.hydra_remote_launcher")
#: How many distinct tracebacks are remembered.
_MAX_TRACEBACKS = 100
_LEVELS = {"bad": logging.ERROR, "warning": logging.WARNING}


class RemoteLauncherError(CompactHydraException):
    """An error that this package raises on purpose; Hydra shows only its message."""


class RemoteLauncherDetached(RunDetached, CompactHydraException):
    """SIGHUP: the hosts go on with the batch, and `launcher attach` finishes it. No further batch starts."""


class Sweep:
    """See the module's docstring.

    Args:
        options: the fields of `hydra.launcher`.

    Raises:
        LauncherError: it names what is wrong.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
    ) -> None:
        self._options = LaunchConf.from_mapping(_once_resolved(options, config))
        self._loader = as_caching_loader(hydra_context.config_loader)
        self._task = task_function
        self._config = config
        self._callbacks = callback_entries(config, hydra_context.callbacks.callbacks, self._options)
        # What the sweeper saves and what jobs get must have no secret. Jobs are composed from this copy, which only we have.
        self._master = copy.deepcopy(config)
        without_secrets(config)
        self._earlier: list[Any] = []
        self._session: Session | None = None
        # Before the sweeper writes there: if another run has this folder, the config names another one from now on.
        self._setup, self._claim = continued(self._make_setup(0), None).take_folder()

    @classmethod
    def set_up(
        cls,
        options: Mapping[str, Any],
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
    ) -> Sweep:
        """Check everything, and make sure that the end hook fires.

        Raises:
            RemoteLauncherError: it names what is wrong; the end hook has fired.
        """

        def end_at_once(error: BaseException | None) -> None:
            callbacks = callback_entries(config, hydra_context.callbacks.callbacks, LaunchConf())
            name = config.hydra.job.config_name
            callbacks.fire("on_multirun_end", {"config": config, "config_name": name, "job_returns": []})

        guard = EndGuard(hydra_context.callbacks, end_at_once)
        guard.install()
        try:
            sweep = cls(options, hydra_context, task_function, config)
        except BaseException as error:
            guard.fire(error)
            if isinstance(error, UsageError) and error.option:
                raise RemoteLauncherError(f"hydra.launcher.{error}") from None
            if isinstance(error, LauncherError):
                raise RemoteLauncherError(f"hydra.launcher: {error}") from None
            raise
        guard.end = sweep.end
        return sweep

    def _make_setup(self, first_num: int) -> HydraSetup:
        return HydraSetup.of(
            "MULTIRUN",
            self._task,
            self._config,
            compose=self._compose,
            callbacks=self._callbacks,
            options=self._options,
            first_num=first_num,
            # Hydra fires it before it makes the launcher.
            fired_elsewhere=frozenset({"on_multirun_start"}),
            earlier=self._earlier,
        )

    def _compose(self, overrides: Sequence[str], num: int, job_id: str) -> DictConfig:
        config: DictConfig = self._loader.load_sweep_config(self._master, list(overrides))
        return numbered(config, num, job_id)

    # -- batches -------------------------------------------------------------------------------------------------

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        """Run one batch; the JobReturns in the order of job_overrides, FAILED ones among them.

        Raises:
            KeyboardInterrupt: Ctrl-C; finished jobs were collected.
            SystemExit: SIGTERM; finished jobs were collected.
            RemoteLauncherDetached: SIGHUP.
        """
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        is_first = self._session is None and bool(job_overrides)
        with EarlyConnections.begin(None, self._options) if is_first else EarlyConnections() as early:
            if is_first:
                self._check(job_overrides, initial_job_idx)
            session = self._session_at(initial_job_idx, early)
        hosts = ", ".join(spec.name for spec in session.setup.hosts)
        _log.info("Launching %d jobs on %s", len(job_overrides), hosts)
        for num, overrides in enumerate(job_overrides, initial_job_idx):
            _log.info("\t#%d : %s", num, " ".join(filter_overrides(overrides)))
        try:
            # As a list, so that a resumed run has the whole batch.
            session.drive([(None, list(overrides)) for overrides in job_overrides], None)
        except RunInterrupted as error:
            if session.is_detached:
                # After a second signal; Hydra does not show the message.
                _log.error("%s", error)
            raise (SystemExit(143) if error.is_terminated else KeyboardInterrupt) from None
        except RunDetached as error:
            raise RemoteLauncherDetached(str(error)) from None
        return [session.load(num) for num in range(initial_job_idx, initial_job_idx + len(job_overrides))]

    def _check(self, job_overrides: Sequence[Sequence[str]], num: int) -> None:
        """Refuse, before anything is sent, a first config that cannot be resolved, and jobs whose size makes no sense. A job of a later batch
        with such a config fails.
        """
        for problem in unresolved(self._compose(job_overrides[0], num, str(num)), without="hydra"):
            raise RemoteLauncherError(f"the config of job {num} does not resolve: {problem}")
        try:
            self._setup.check_sizes(job_overrides)
        except UsageError as error:
            raise RemoteLauncherError(str(error)) from None

    def _session_at(self, num: int, early: EarlyConnections) -> Session:
        """The session of the last batch if this batch continues its job numbers, else a new one."""
        session = self._session
        if session is not None and session.next_num == num:
            return session
        if session is not None:
            # The sweeper chose other numbers: this is another run, and its results come after the earlier ones.
            session.hooks.leave_to_others("on_multirun_end")
            session.__exit__(None, None, None)
            self._earlier += list(session.returns)
        if session is not None or num != self._setup.first_num:
            before = self._setup
            self._setup = dataclasses.replace(
                self._make_setup(num),
                instead=before.instead,
                continues=before.continues,
                kept_folders=before.kept_folders,
            )
        if session is not None:
            # Its journal is beside the earlier one, which is read until the sweep has ended.
            self._setup = dataclasses.replace(
                self._setup, folder=self._setup.folder / f".launcher.{self._setup.run_id}"
            )
        conf = SessionConf([_Log()], keeps_sigint=False, early=early, claim=self._claim if session is None else None)
        self._session = Session(self._setup, conf)
        return self._session.__enter__()

    def end(self, error: BaseException | None) -> None:
        """Close the session, which fires `on_multirun_end`.

        Raises:
            RemoteLauncherError: a callback aborted the run.
        """
        session, self._session = self._session, None
        if session is None:
            self._claim.release()
            told = {"config": self._config, "config_name": self._setup.config_name, "job_returns": list(self._earlier)}
            self._callbacks.fire("on_multirun_end", told)
            return
        is_stop = isinstance(error, (KeyboardInterrupt, RunDetached)) and not session.interrupts
        if session.engine.is_idle and not is_stop:
            error = None  # no job is running that the error could stop
        try:
            session.__exit__(None if error is None else type(error), error, None)
        except RunDetached:
            raise
        except LauncherError as problem:
            raise RemoteLauncherError(str(problem)) from None


def _once_resolved(options: Mapping[str, Any], config: DictConfig) -> dict[str, Any]:
    """The fields of `hydra.launcher` as plain data, resolved exactly once.

    Hydra gives a launcher values that are resolved already. To resolve them again would turn an escaped `${x}` into an interpolation.
    """
    node = config.hydra.launcher
    asked: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_dict(node) else {}
    plain = {}
    for key, value in options.items():
        if key in asked:
            plain[key] = asked[key]
        else:
            plain[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return plain


class _Log:
    """Writes the events of a run to Hydra's log. A failure has its remote traceback, or names the job with the same one."""

    def __init__(self) -> None:
        self._tally = Tally()
        self._event_lines = EventLines(self._tally)
        #: Traceback -> the first job that had it. If an application lacks a module, all its jobs fail in the same way.
        self._tracebacks: dict[str, int] = {}

    def __call__(self, event: events.Event) -> None:
        self._tally(event)
        for line in self._event_lines.lines(event):
            _log.log(_LEVELS.get(line.tone, logging.INFO), "%s", line.text)
        if isinstance(event, events.JobReturned) and event.error and event.error.get("traceback"):
            traceback = event.error["traceback"].rstrip()
            first = self._tracebacks.get(traceback)
            if first is None and len(self._tracebacks) < _MAX_TRACEBACKS:
                self._tracebacks[traceback] = event.num
            _log.error(
                "job %d, remote traceback:%s", event.num, f"\n{traceback}" if first is None else f" that of job {first}"
            )
