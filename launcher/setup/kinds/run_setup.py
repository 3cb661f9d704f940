"""Everything that a run needs, checked before anything is sent: hosts, options, callbacks, code, task.

Rule: anything wrong is refused here, by name. A setup does not change. What becomes known later (the folder that was
taken, the task of the first job) makes a new setup. `RunSetup` is for plain tasks and configs. The setup of Hydra apps
derives from it.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from launcher.code.application.task import (
    Script,
    check_task,
    check_working_folder,
    own_sys_path,
    started_script,
    task_name_of,
    where_from,
)
from launcher.code.files.snapshot import Snapshot
from launcher.config.job_config import without_value
from launcher.config.lazy import checked_config, config_with_node, made_now
from launcher.engine.requests import QueuedJob
from launcher.engine.scheduling.policies import Policies
from launcher.errors import UsageError
from launcher.hosts.host_spec import HostSpec
from launcher.hosts.inventory import check_size, host_specs
from launcher.options import LaunchConf, options_of
from launcher.options import checks as option_checks
from launcher.results.decoding import Decoder
from launcher.runs.folder import Claim, Naming, claim
from launcher.runs.index import new_run_id
from launcher.runs.journal import FOLDER
from launcher.serialization import pickler as pickling
from launcher.serialization.modules import main_module_name
from launcher.setup.callbacks import build_callbacks, callback_nodes
from launcher.setup.code import take_code
from launcher.setup.folders import folder_for
from launcher.setup.jobs.payload import job_payload
from launcher.setup.jobs.run_pickler import RunPickler
from launcher.setup.policies import policies_of
from launcher.setup.prepared import ZYGOTE, PreparedRun, needed, prepare
from launcher.tracing.context import TraceContext, context_of
from launcher.tracing.variables import check_can_send
from remote_agent.callbacks.composite import Callbacks
from remote_agent.config.nodes import literal, make_config, opened, put_text
from remote_agent.hydra.compat import as_hydra, minimal_hydra_node
from remote_agent.job import IMPORTING, JobReturn
from remote_agent.protocol.constants import SPARE_ENVIRONMENT
from remote_agent.protocol.specs.job import JobSpec
from remote_agent.protocol.specs.resources import Resources
from remote_agent.protocol.specs.zygote import Command
from remote_agent.protocol.trace import TRACEPARENT

if TYPE_CHECKING:
    from typing_extensions import Self

    from launcher.environments.lock import Lock
    from launcher.environments.plan import EnvironmentSource
    from launcher.serialization.plain_records import FindType
    from launcher.setup.earlier import EarlierRuns

__all__ = ["RunSetup"]


@dataclasses.dataclass(frozen=True, eq=False)
class RunSetup:
    """A plain run as it was asked for, checked. It is immutable.

    `make` makes it. `in_folder`, `with_task` and `with_code` return a new one that knows more. `prepare` returns what
    hosts are told. Only the config for hooks (`root_config`) and the callbacks are the user's objects, which hooks may
    change.

    Attributes:
        root_config, config_name: what the run hooks get.
        naming: who chose the name of `folder`.
        callback_specs: the callbacks' nodes in each job's `hydra` node.
        script: what the jobs' Python appears to have been started with, if that differs from this Python.
        first_num: the number of the first job.
        snapshot: the code that is sent; None if none is, or if the first job brings it.
        locks: by host, the packages of its environment; a host that is not in it gets none.
        warnings: (source, message) of what the user should know before anything runs.
        notes: less important messages.
        import_keys: by host, under which key it is kept what the host tells of the application's import.
        continues: the earlier runs of the sweep, if it is continued.
        kept_folders: output directories of their jobs, to which no job of this run writes.
        traceparent: the span of the program that started the run, as W3C Trace Context has it; empty for none.
        fired_elsewhere: run hooks that others fire (with the plugin, Hydra itself fires on_multirun_start).
    """

    #: The name of this kind of run in journals, which never changes (see `launcher.setup.from_journal`).
    kind: ClassVar[str] = "function"
    #: Whether it repeats a job of another run.
    is_reproduction: ClassVar[bool] = False

    mode: str
    run_id: str
    folder: Path
    hosts: tuple[HostSpec, ...]
    options: LaunchConf
    callbacks: Callbacks
    task: Any
    task_name: str
    configs: Iterable[Any]
    root_config: Any = None
    config_name: str | None = None
    root: Path | None = None
    main_module: str | None = None
    script: Script | None = None
    callback_specs: dict[str, Any] = dataclasses.field(default_factory=dict)
    first_num: int = 0
    snapshot: Snapshot | None = None
    fired_elsewhere: frozenset[str] = frozenset()
    naming: Naming = Naming.USER
    locks: Mapping[str, Lock] = dataclasses.field(default_factory=dict)
    warnings: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    import_keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    continues: EarlierRuns | None = None
    kept_folders: frozenset[Path] = frozenset()
    traceparent: str = dataclasses.field(default_factory=lambda: os.environ.get(TRACEPARENT, ""))

    # -- making --------------------------------------------------------------------------------------------------

    @classmethod
    def make(
        cls,
        mode: str,
        task: Any,
        configs: Iterable[Any],
        *,
        hosts: Sequence[Any] | None,
        callbacks: Iterable[Any],
        folder: str | os.PathLike[str] | None,
        options: LaunchConf | None,
        **kw: Any,
    ) -> RunSetup:
        """Check what was given.

        Raises:
            UsageError: naming what is wrong.
        """
        check_working_folder()
        importing = os.environ.get(IMPORTING)
        if importing:
            raise UsageError(
                f"{importing} starts a run when it is imported, and every host imports it; put the call below "
                "`if __name__ == '__main__':`"
            )
        options = options_of(options, kw)
        if options.otel:
            check_can_send()
        specs = host_specs(hosts, options)
        if task is not None:
            check_task(task)
        task_name = task_name_of(task)
        root, main_module = where_from(task)
        first, configs = _peek(configs)
        nodes = callback_nodes(first)
        where, naming = folder_for(mode, folder)
        setup = cls(
            mode=mode,
            run_id=new_run_id(),
            folder=where,
            naming=naming,
            hosts=tuple(specs),
            options=options,
            callbacks=build_callbacks(nodes, callbacks, options),
            task=task,
            task_name=task_name,
            configs=configs,
            root=root,
            main_module=main_module,
            callback_specs=nodes,
        )
        setup = dataclasses.replace(setup, root_config=checked_config(first, setup.node(None, ())))
        return setup if setup.waits_for_task else setup.with_code()

    def take_folder(self) -> tuple[Self, Claim]:
        """Claim the folder for this run alone. If the user did not choose its name, another folder beside it may be
        taken.

        Returns:
            The setup of the run in the folder that was taken, and the claim on it.

        Raises:
            RunError: another run drives it.
            UsageError: it cannot be made or written.
        """
        if self.options.continue_sweep and self.continues is None:
            raise UsageError.of_option("continue_sweep", ": it belongs to a sweep, and this is none")
        taken = claim(self.folder, self.naming)
        setup = self.in_folder(taken.folder)
        if setup.continues is not None:
            try:
                earlier = setup.continues.claimed(taken)
                setup = dataclasses.replace(setup, continues=earlier, kept_folders=earlier.kept_folders())
            except BaseException:
                taken.release()
                raise
        return setup, taken

    def in_folder(self, folder: Path) -> Self:
        """Return the same run in another folder. From now on the config for its hooks has that folder."""
        if folder == self.folder:
            return self
        if self.root_config is not None:
            key = "hydra.run.dir" if self.mode == "RUN" else "hydra.sweep.dir"
            put_text(made_now(self.root_config), key, str(folder))
        return dataclasses.replace(self, folder=folder)

    @property
    def waits_for_task(self) -> bool:
        """Whether the first job brings the task, and with it the code that is sent."""
        return self.task is None

    def with_task(self, task: Any, *, with_config: bool = True) -> Self:
        """Return the same run with the task of its first job, unless it already has a task.

        Raises:
            UsageError: it cannot be called with one config, or its code cannot be sent.
        """
        if task is None or not self.waits_for_task:
            return self
        check_task(task, with_config=with_config)
        root, main_module = where_from(task)
        named = dataclasses.replace(self, task_name=task_name_of(task), root=root, main_module=main_module)
        return dataclasses.replace(named.with_code(), task=task)

    def with_code(self, taken: Snapshot | None = None) -> Self:
        """Return the same run with the code snapshot, if the code has to be sent.

        Args:
            taken: the snapshot, if there is one already.

        Raises:
            UsageError: some of the code cannot be sent, or a variable is not set.
        """
        self.options.variables()
        if self.options.otel:
            check_can_send()
        snapshot, main_module = None, self.main_module
        if any(self.sends_code(spec) for spec in self.hosts) and self.root is not None:
            snapshot, main_module = take_code(self.root, main_module, self.options.max_code_bytes, taken)
        for entry in self.callbacks:
            if entry.instance is not None:
                pickling.check_state(entry.name, entry.instance, has_spec=entry.spec is not None)
        locks = self.locks
        # A run that is taken up has those that it had.
        if not locks and (self.options.wants_environment or any(spec.environment for spec in self.hosts)):
            from launcher.setup.environments import locks_of

            locks = locks_of(self.hosts, self.options, self.root, self.script_file())
        setup = dataclasses.replace(self, snapshot=snapshot, main_module=main_module, locks=locks)
        for spec in self.hosts if not self.locks else ():
            setup.package_roots(spec)  # what cannot be sent is refused before a host is asked anything
        return setup

    def environment_source(self, lock: Lock) -> EnvironmentSource:
        """What says what a host installs of a lock."""
        from launcher.setup.environments import source_of

        return source_of(lock, self.folder / FOLDER, self.options)

    def script_file(self) -> Path | None:
        """The file that may say which packages it needs."""
        if self.root is not None and self.root.suffix == ".py":
            return self.root
        script = self.script_started()
        return script.file if script is not None else None

    def sends_code(self, spec: HostSpec) -> bool:
        """Whether the code is sent to this host. If not, it is used in place."""
        return self.options.code != "shared" and not spec.is_local

    @property
    def policies(self) -> Policies:
        """What the scheduler does when something fails."""
        return policies_of(self.options, self.hosts, self.callbacks)

    @property
    def code(self) -> dict[str, Any]:
        """What a JobReturn says about the code."""
        if self.snapshot is None:
            return {}
        return {"hash": self.snapshot.hash, "commit": self.snapshot.commit, "dirty": self.snapshot.dirty}

    @property
    def decoder(self) -> Decoder:
        """The decoder that makes values of results."""
        main_module, allowed = self.main_module, self.options.allow_types
        is_main = main_module is not None and main_module_name() == main_module

        def find(policy: str) -> FindType:
            from launcher.serialization.plain_records import finder

            return finder(allowed, main_module=main_module, is_main=is_main, is_any=policy == "trusted")

        return Decoder(
            self.options.results,
            lambda data: pickling.loads(data, main_module=main_module),
            find,
        )

    @property
    def codec(self) -> str:
        """The form in which hosts send values.

        With `safe` it is plain data, so that there is no pickle to open.
        """
        return "plain" if self.options.results == "safe" else "cloudpickle"

    @functools.cached_property
    def pickler(self) -> RunPickler:
        """The pickler of this run. It remembers what was pickled by value."""
        return RunPickler(self.main_module)

    @functools.cached_property
    def trace(self) -> TraceContext | None:
        """The trace that the run belongs to; None if the user wants none."""
        return context_of(self.run_id, self.traceparent) if self.options.otel else None

    # -- what is sent -------------------------------------------------------------------------------------------

    def prepare(self) -> PreparedRun:
        """Prepare what hosts are told: pickle the task and the callbacks, with their state as it is now, for all jobs.

        Raises:
            CallbackError, CodeError: one of them cannot be pickled.
        """
        return prepare(self)

    def hydra_state(self) -> Any:
        """Return the part of Hydra's own state that the jobs need; empty for a plain task."""
        return None

    def spare_of(self, spec: HostSpec) -> str | None:
        """Return the Python for jobs, if the agent may start it in advance; empty for the agent's own.

        With an environment, it is that which the host had for the same lock before. None if shell lines or variables come before it: they may be secrets, which must not be in a command line.
        """
        options = self.options
        if spec.setup or options.setup or spec.env or options.variables() or options.isolation == "spawn":
            return None
        lock = self.locks.get(spec.name)
        if lock is not None:
            from launcher.setup.environments import LastKey

            key = LastKey(lock, spec, options).read()
            return SPARE_ENVIRONMENT + key if key is not None else None
        return self.python_of(spec) or ""

    def python_of(self, spec: HostSpec) -> str | None:
        """Return the Python for jobs on this host; None for the one that the agent finds."""
        return spec.python or self.options.python or spec.python_at_hand

    def hydra_version(self) -> str | None:
        """Return Hydra's version, if jobs need it."""
        return None

    def command(self, is_sent: bool) -> Command:
        """Return the jobs' `sys.argv`, whose first item is relative to their folder, and how `__main__` appears to have
        been started.

        If no script was started, as in a notebook, the task's name is used.
        """
        script = self.script_started()
        if script is None:
            return Command([self.task_name], argv0_is_absolute=False, main_is_module=False)
        cwd = self.cwd(is_sent)
        path = str(script.file)
        if is_sent and self.snapshot is not None:
            path = self.snapshot.relative(script.file)
            # A script that lies elsewhere does not exist on the host.
            path = os.path.normpath(os.path.join(cwd, script.file.name)) if path == "." else path
        return Command([os.path.relpath(path, cwd), *self.arguments()], script.is_absolute, script.is_module)

    def script_started(self) -> Script | None:
        """Return what the jobs' Python appears to have been started with; None for nothing."""
        return self.script or started_script(self.main_module)

    def arguments(self) -> list[str]:
        """Return the rest of the jobs' `sys.argv`: the arguments of this script, without values of variables."""
        return self.command_line()[1:]

    def command_line(self) -> list[str]:
        """Return the command line of this process without the values of variables."""
        values = [*self.options.env.values(), *(value for spec in self.hosts for value in spec.env.values())]
        hidden = []
        for argument in sys.argv:
            # An override may write a value in quotes, with backslashes, so it is left out as a whole.
            shown_one = without_value(argument)
            for value in filter(None, values):
                shown_one = shown_one.replace(value, "***")
            hidden.append(shown_one)
        return hidden

    def sys_path(self, is_sent: bool) -> list[str]:
        """Return the first entries of the jobs' `sys.path`. Those in code that is sent are relative to it."""
        if not is_sent:
            return [os.path.abspath(path) for path in own_sys_path()]
        if self.root is None or self.snapshot is None:
            return []
        return self.snapshot.sys_path(self.root, sys.path)

    def package_roots(self, spec: HostSpec) -> list[str]:
        """Return the next entries of a host's `sys.path`: those of the local packages that its lock names.

        Raises:
            PackagesError: one cannot be sent.
        """
        lock = self.locks.get(spec.name)
        if lock is None:
            return []
        from launcher.setup.environments import roots_of

        return roots_of(lock, self.sends_code(spec), self.snapshot)

    def cwd(self, is_sent: bool) -> str:
        """Return the folder that the application is started in. In code that is sent, it is relative to it."""
        if not is_sent:
            return os.getcwd()
        if self.snapshot is None:
            return "."
        return self.snapshot.relative(Path.cwd())

    # -- jobs ----------------------------------------------------------------------------------------------------

    def job(self, num: int, task: Any, config: Any, overrides: Sequence[str]) -> QueuedJob:
        """Return a job as it is queued; with a failure if its config cannot be sent.

        Raises:
            UsageError: the task cannot be called with one config.
        """
        return self._job(num, task, config, overrides, None)

    def call_job(self, num: int, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> QueuedJob:
        """Return a job that calls task(*args, **kwargs) and has an empty config.

        Raises:
            UsageError: the task cannot be called.
        """
        return self._job(num, task, None, (), (args, kwargs))

    def _job(
        self,
        num: int,
        task: Any,
        config: Any,
        overrides: Sequence[str],
        call: tuple[tuple[Any, ...], dict[str, Any]] | None,
    ) -> QueuedJob:
        if self.mode == "RUN":
            output_dir, relative = self.folder, "job"
        else:
            output_dir, relative = self.not_kept(self.folder / str(num)), str(num)
        payload, failure = job_payload(self, num, task, config, overrides, call)
        return self.queued(num, overrides, output_dir, relative, payload, failure)

    def not_kept(self, output_dir: Path) -> Path:
        """Return a job's output directory, or one beside it if that has the files of a job of an earlier run."""
        number, free = 0, output_dir
        while free in self.kept_folders:
            number += 1
            free = output_dir.with_name(f"{output_dir.name}.{number}")
        return free

    def queued(
        self,
        num: int,
        overrides: Sequence[str],
        output_dir: Path,
        relative: str,
        payload: bytes,
        failure: tuple[str, str] | None = None,
        needs: Resources | None = None,
    ) -> QueuedJob:
        """Return a job with its spec."""
        options = self.options
        in_place = not any(self.sends_code(spec) for spec in self.hosts)
        spec = JobSpec(
            num=num,
            attempt=0,
            job_id=f"{self.run_id}#{num}",
            zygote=ZYGOTE,
            output_dir=str(output_dir) if in_place else relative,
            timeout=options.timeout,
            grace=options.grace,
            hook_timeout=options.hook_timeout,
            shutdown_timeout=options.shutdown_seconds,
            outputs=options.outputs if isinstance(options.outputs, bool) else list(options.outputs),
            max_output_bytes=options.max_output_bytes,
            children_timeout=options.children_timeout,
            needs=needs,
            earlier=[],
            trace=self.trace.trace if self.trace is not None else "",
        )
        return QueuedJob(num, tuple(overrides), output_dir, payload, spec, failure)

    def needs_of(self, own: Any, field: str = "resources") -> Resources | None:
        """Return what a job needs that says `own` of it; None if that is what the run says. What a job does not say is the run's, and a
        value of None means that nothing of it is needed.

        Raises:
            ConfigError: it makes no sense; the message begins with `field`.
            InventoryError: all hosts are known to be too small.
        """
        if own is None:
            return None
        said = option_checks.resources(own, field)
        run = self.options.resources
        needs = {name: number for name, number in {**run, **said}.items() if own.get(name, number) is not None}
        if own.get("gpus", 1) is None:
            # Where jobs that say nothing get some, this one gets none.
            needs["gpus"] = 0
        if needs == run:
            return None
        check_size(self.hosts, option_checks.check_tasks(needs, field))
        return needed(needs)

    def node(self, num: int | None, overrides: Sequence[str]) -> dict[str, Any]:
        """Return the `hydra` node of a job's config or, without a number, of the run's config."""
        return minimal_hydra_node(
            name=self.task_name,
            num=num if self.mode == "MULTIRUN" else None,
            job_id=f"{self.run_id}#{num}" if num is not None else "",
            cwd=literal(os.getcwd()),
            run_dir=literal(str(self.folder)) if self.mode == "RUN" else "",
            sweep_dir=literal(str(self.folder)) if self.mode == "MULTIRUN" else "",
            sweep_subdir=str(num) if num is not None and self.mode == "MULTIRUN" else "",
            mode=self.mode,
            task_overrides=list(overrides),
            callbacks=self.callback_specs,
        )

    def with_node(self, config: Any, num: int | None, overrides: Sequence[str] = ()) -> Any:
        """Return the config for a hook: a DictConfig with its hydra node."""
        return config_with_node(config, self.node(num, overrides))

    def own_config(self, num: int, payload: bytes) -> tuple[Any, Any]:
        """Return (cfg, hydra_cfg) of a job as they were sent."""
        from omegaconf import OmegaConf

        if not payload:
            return None, None
        content = self.pickler.loads(payload)
        config = content["config"]
        cfg = config if OmegaConf.is_config(config) else make_config(config)
        return cfg, make_config({"hydra": content["hydra"]})

    def hook_config(self, output_dir: str | None, cfg: Any, hydra_cfg: Any) -> Any:
        """Return the config for `on_job_return` and `on_job_report`. `cfg` and `hydra_cfg` come from `own_config`, and are changed here."""
        full = opened(cfg, hydra_cfg)
        if hydra_cfg is not None:
            full.hydra.runtime.output_dir = literal(str(output_dir))
        return full

    def hook_returns(self, returns: Any) -> Any:
        """Return `job_returns` for `on_multirun_end`."""
        return returns

    def finish_return(self, job_return: JobReturn) -> JobReturn:
        """Return the JobReturn for callbacks and callers. It has Hydra's own type if Hydra is loaded."""
        return as_hydra(job_return)


def _peek(configs: Iterable[Any]) -> tuple[Any, Iterable[Any]]:
    """Return the first config, and all of them."""
    import itertools

    iterator = iter(configs)
    first = next(iterator, None)
    if first is None and not isinstance(configs, (list, tuple)):
        return None, []
    if isinstance(configs, (list, tuple)):
        return first, configs
    return first, itertools.chain([first], iterator)
