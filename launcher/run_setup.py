"""Everything that a run needs, checked before anything is sent: hosts, options, callbacks, code, task.

Rule: what is wrong is refused here, by name. `RunSetup` is for plain tasks and configs; the Hydra door derives from it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import remote_agent
from launcher import pickling, run_record
from launcher.callback_setup import build_callbacks, callback_nodes
from launcher.code_snapshot import Snapshot, take
from launcher.errors import CallbackError, CodeError, ConfigError, UsageError
from launcher.host_plan import Blob, HostPlan
from launcher.inventory import HostSpec
from launcher.late_config import check_config_kind, checked_config, made_now, with_node
from launcher.options import LaunchConf, options_of
from launcher.plain_records import finder
from launcher.requests import QueuedJob
from launcher.returns import Decoder
from launcher.run_folder import Claim, Naming, claim
from launcher.run_hosts import host_specs, new_run_id
from launcher.scheduler import Policies
from launcher.shown import shown
from launcher.stayed_here import explained, why_it_stayed
from launcher.task_origin import Script, check_task, own_sys_path, started_script, task_name_of, where_from
from launcher.unresolved import unresolved
from remote_agent.callbacks import Callbacks, travel_entries
from remote_agent.config_nodes import literal, make_config, opened, put_text
from remote_agent.hydra_scope import as_hydra, minimal_hydra_node
from remote_agent.job import IMPORTING
from remote_agent.packages import installed_version, version_note
from remote_agent.shared.job_spec import JobSpec
from remote_agent.shared.zygote_spec import Command, ControllerFacts, ZygoteSpec

if TYPE_CHECKING:
    from launcher.journal import Journal
    from remote_agent.job import JobReturn

__all__ = [
    "RunSetup",
    "build_callbacks",
    "default_folder",
    "folder_for",
    "host_specs",
    "local_folder",
    "texts_of_overrides",
    "where_from",
]

_ZYGOTE = "z1"
#: Seconds that an outcome may be under way beyond all timeouts before its host is given up: a dead link is known as one by then.
_SLACK = 30.0
#: Names of what travels by value that a host is told.
_MAX_NAMED = 5


def default_folder(mode: str) -> Path:
    """`outputs/<date>/<time>` or `multirun/<date>/<time>` below the working folder, as Hydra has it. Claimed as `Naming.NEW`."""
    base = Path("outputs" if mode == "RUN" else "multirun")
    return base / time.strftime("%Y-%m-%d") / time.strftime("%H-%M-%S")


def folder_for(mode: str, folder: str | os.PathLike[str] | None) -> tuple[Path, Naming]:
    """The folder that the user named, or the default one; and whose choice the name is."""
    named = local_folder(folder, "folder")
    if named is not None:
        return named, Naming.USER
    return default_folder(mode).absolute(), Naming.NEW


def local_folder(folder: Any, name: str) -> Path | None:
    """A folder of this machine that was given for a run; None where none was.

    Raises:
        ConfigError: it is no path.
    """
    if folder is None:
        return None
    text = os.fspath(folder) if isinstance(folder, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ConfigError.of_option(name, f": {shown(folder)} is not a path of a folder")
    return Path(text).absolute()


def texts_of_overrides(overrides: Any) -> tuple[str, ...]:
    """The overrides of one job, as they are told with it.

    Raises:
        ConfigError: they are no list of texts; a text's letters are none.
    """
    values = tuple(overrides) if isinstance(overrides, Iterable) and not isinstance(overrides, (str, bytes)) else None
    if values is None or not all(isinstance(one, str) for one in values):
        raise ConfigError(f"overrides: {shown(overrides)} is not a list of texts, as ['lr=0.1']")
    return values


@dataclasses.dataclass
class RunSetup:
    """A plain run, ready to begin. See `make`."""

    #: It runs again what another run ran.
    is_reproduction: ClassVar[bool] = False

    mode: str
    run_id: str
    folder: Path
    hosts: list[HostSpec]
    options: LaunchConf
    callbacks: Callbacks
    task: Any
    task_name: str
    configs: Iterable[Any]
    root_config: Any = None
    root: Path | None = None
    main_module: str | None = None
    #: What the jobs' Python looks as if it had been started with, where that is not what this one was started with.
    script: Script | None = None
    callback_specs: dict[str, Any] = dataclasses.field(default_factory=dict)
    first_num: int = 0
    snapshot: Snapshot | None = None
    by_value: bool = False
    #: Names of what travels by value.
    values: tuple[str, ...] = ()
    shared: bytes = b""
    #: (source, message) of what the user is warned of before anything runs, and what is only worth knowing.
    warnings: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    notes: tuple[str, ...] = ()
    #: Run hooks that somebody else fires (through the plugin, Hydra itself fires on_multirun_start).
    fired_elsewhere: frozenset[str] = frozenset()
    #: Of a run that was taken up: what each host's zygote was told before, without its environment.
    zygotes: dict[str, ZygoteSpec] = dataclasses.field(default_factory=dict)
    naming: Naming = Naming.USER
    claim: Claim | None = None
    #: Modules that are imported on a host when what was pickled is loaded.
    _modules: set[str] = dataclasses.field(default_factory=set)

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
        importing = os.environ.get(IMPORTING)
        if importing:
            raise UsageError(
                f"{importing} starts a run when it is imported, which every host does; put the call below "
                "`if __name__ == '__main__':`"
            )
        options = options_of(options, kw)
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
            hosts=specs,
            options=options,
            callbacks=build_callbacks(nodes, callbacks, options),
            task=task,
            task_name=task_name,
            configs=configs,
            root=root,
            main_module=main_module,
            callback_specs=nodes,
        )
        setup.root_config = checked_config(first, setup._node(None, ()))
        if not setup.waits_for_task:
            setup.check_code()
        return setup

    def take_folder(self) -> Claim:
        """Have the folder for this run alone, or one beside it where the name was not the user's choice.

        Raises:
            RunError: another run drives it.
            UsageError: it cannot be made or written.
        """
        if self.claim is None:
            self.claim = claim(self.folder, self.naming)
            if self.claim.folder != self.folder:
                self.folder = self.claim.folder
                self._moved()
        return self.claim

    def _moved(self) -> None:
        """Put the folder that was taken into the config that the run's hooks get."""
        if self.root_config is not None:
            key = "hydra.run.dir" if self.mode == "RUN" else "hydra.sweep.dir"
            put_text(made_now(self.root_config), key, str(self.folder))

    @property
    def waits_for_task(self) -> bool:
        """The first job brings the task, and with it the code that travels."""
        return self.task is None

    def adopt(self, task: Any, *, with_config: bool = True) -> None:
        """Take the task of the first job as the run's.

        Raises:
            UsageError: it cannot be called with one config, or its code cannot travel.
        """
        if task is None or not self.waits_for_task:
            return
        check_task(task, with_config=with_config)
        self.task_name = task_name_of(task)
        self.root, self.main_module = where_from(task)
        self.check_code()
        self.task = task

    def check_code(self) -> None:
        """Take the code snapshot where the code has to travel; refuse what cannot, and variables that are not there."""
        self.options.environment()
        if any(self._travels(spec) for spec in self.hosts) and self.root is not None:
            self.snapshot = take(self.root, max_bytes=self.options.max_code_bytes)
            self._refuse_agents_namesake(self.snapshot)
            main_file = getattr(sys.modules.get("__main__"), "__file__", None)
            is_main = main_file and self.main_module == pickling.main_module_name()
            if is_main and self.snapshot.relative(Path(str(main_file))) == ".":
                # The script that was started lies elsewhere: hosts cannot import it.
                self.main_module = None
        for entry in self.callbacks:
            if entry.instance is not None:
                pickling.check_state(entry.name, entry.instance, has_spec=entry.spec is not None)

    def _refuse_agents_namesake(self, snapshot: Snapshot) -> None:
        """A `launcher` of the project's own is the application's there, and ours nobody's; the agent is `remote_agent`."""
        assert self.root is not None
        ours = os.path.realpath(str(remote_agent.__file__))
        for folder in snapshot.sys_path(self.root, sys.path):
            for name in ("remote_agent/__init__.py", "remote_agent.py"):
                file = snapshot.root / folder / name
                if snapshot.has_file(str(file)) and os.path.realpath(file) != ours:
                    raise CodeError(
                        f"{file} has the name 'remote_agent', which is also that of the agent on the hosts: the two cannot be "
                        "in one process. Rename it, or move it into a package (mypackage/remote_agent)"
                    )

    def _travels(self, spec: HostSpec) -> bool:
        return self.options.code != "shared" and not spec.is_local

    @property
    def policies(self) -> Policies:
        """What the scheduler does when something fails."""
        options = self.options
        # Every hook may take its time twice: in the job, and in the epilogue where it had to be killed there.
        end = 2 * options.hook_timeout + options.shutdown_timeout + _SLACK
        return Policies(
            retries=options.retries_by_kind,
            on_host_loss=options.on_host_loss,
            host_loss_timeout=options.host_loss_timeout,
            max_failures=1 if options.fail_fast else options.max_failures,
            callbacks=self._told_callbacks,
            slots={spec.name: spec.slots for spec in self.hosts if isinstance(spec.slots, int)},
            job_limit=options.timeout + options.grace + end if options.timeout is not None else None,
            end_limit=options.grace + end,
            kill_limit=end,
        )

    def _told_callbacks(self) -> dict[str, bool]:
        """The callbacks that hosts are given, each with whether a hook of it may stop the run.

        Asked when a host says that one did: the start hook may have changed that. Of a class that is not here only the host knows.
        """
        return {
            entry.name: entry.policy == "abort" or (entry.instance is None and entry.on_error is None)
            for entry in self.callbacks
        }

    @property
    def code(self) -> dict[str, Any]:
        """What a JobReturn says of the code."""
        if self.snapshot is None:
            return {}
        return {"hash": self.snapshot.hash, "commit": self.snapshot.commit, "dirty": self.snapshot.dirty}

    @property
    def decoder(self) -> Decoder:
        """How results become values."""
        main_module, allowed = self.main_module, self.options.allow_types
        is_main = main_module is not None and pickling.main_module_name() == main_module
        return Decoder(
            self.options.results,
            lambda data: pickling.loads(data, main_module=main_module),
            lambda policy: finder(allowed, main_module=main_module, is_main=is_main, is_any=policy == "trusted"),
        )

    @property
    def codec(self) -> str:
        """How hosts are asked for values: under `safe` as plain data, so that there is no pickle to be opened."""
        return "plain" if self.options.results == "safe" else "cloudpickle"

    def record(self, journal: Journal, config_name: str | None = None) -> None:
        """Put down what the run is, so that it can be shown and taken up again."""
        run_record.write_setup(self, journal, config_name, self.dumps_here)

    def record_prepared(self, journal: Journal) -> None:
        """Put down what hosts will be told; after `prepare`."""
        run_record.write_prepared(self, journal, self.dumps_here)

    def dumps_here(self, value: Any) -> bytes:
        """Pickle what only another controller of the run will load."""
        return pickling.dumps(value, main_module=self.main_module).data

    def loads_here(self, data: bytes) -> Any:
        """Load what `dumps_here` made."""
        return pickling.loads(data, main_module=self.main_module)

    # -- what travels --------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Pickle what all jobs share: the task, and the callbacks with the state that they have now."""
        self._modules = set()
        try:
            entries = travel_entries(self.callbacks, self._dumps)
        except ValueError as error:
            raise CallbackError(str(error)) from error
        try:
            self.shared = self._dumps({"task": self.task, "callbacks": entries, "hydra": self.hydra_state()})
        except Exception as error:
            raise CodeError(f"the task {self.task_name} cannot be pickled: {error}") from error
        self.warnings = [("callbacks", note) for note in self.callbacks.notes]
        self.warnings += [("code", text) for text in self._out_of_reach()]
        self.notes = self.snapshot.notes if self.snapshot is not None else ()
        hydra = self.hydra_version()
        if hydra and (note := version_note(hydra)):
            self.notes = (*self.notes, note)

    def _out_of_reach(self) -> list[str]:
        """A line for each module that jobs will import and that no host has: it is neither installed here nor travels."""
        if not any(self._travels(spec) for spec in self.hosts):
            return []
        files = self.snapshot.has_file if self.snapshot is not None else lambda path: False
        return [
            f"module {name} ({file}), which the task or a callback needs, stays here: {self._why_it_stayed(file)}; jobs fail on "
            "a host that does not have it"
            for name, file in pickling.out_of_reach(self._modules, files)
        ]

    def _why_it_stayed(self, file: str) -> str:
        if self.snapshot is None:
            return "no code of a project travels, and it is of no installed package"
        return why_it_stayed(file, self.snapshot)

    def hydra_state(self) -> Any:
        """What the jobs need of Hydra's own state; nothing for a plain task."""
        return None

    def _dumps(self, value: Any) -> bytes:
        dumped = pickling.dumps(value, main_module=self.main_module)
        self.by_value = self.by_value or dumped.by_value
        self.values = tuple(dict.fromkeys([*self.values, *dumped.values]))
        self._modules |= dumped.modules
        return dumped.data

    def plan_of(self, spec: HostSpec) -> HostPlan:
        """What a host must be told."""
        travels = self._travels(spec)
        sha256 = hashlib.sha256(self.shared).hexdigest()
        zygote_spec = self.zygote_spec(spec, travels, sha256)
        plan = HostPlan(
            run=self.run_id,
            slots=spec.slots,
            gpus=spec.gpus if not isinstance(spec.gpus, tuple) else list(spec.gpus),
            zygote=_ZYGOTE,
            zygote_spec=zygote_spec,
            lease=self.options.lease,
            live=bool(self.options.live),
            run_blobs=(Blob(sha256, len(self.shared), lambda: self.shared),),
        )
        snapshot = self.snapshot
        if travels and snapshot is not None:
            manifest = snapshot.manifest_bytes()
            manifest_sha = hashlib.sha256(manifest).hexdigest()
            plan.manifest = Blob(manifest_sha, len(manifest), lambda: manifest)
            plan.files = len(snapshot.files)
            plan.contents = {
                file.sha256: Blob(file.sha256, file.size, _reader(snapshot, file.sha256)) for file in snapshot.files
            }
            plan.zygote_spec = zygote_spec._replace(code_blob=manifest_sha)
            plan.explain = lambda error: explained(error, snapshot)
        return plan

    def zygote_spec(self, spec: HostSpec, travels: bool, shared: str) -> ZygoteSpec:
        """How a host is to prepare the application; its code is the plan's. `shared`: the name of what all jobs share."""
        environ = {**self.options.environment(), **dict(spec.env)}
        if spec.name in self.zygotes:
            return self.zygotes[spec.name]._replace(environ=environ)
        import cloudpickle

        command = self.command(travels)
        return ZygoteSpec(
            sys_path=self._sys_path(travels),
            cwd=self._cwd(travels),
            isolation=self.options.isolation,
            main_module=self.main_module,
            controller=ControllerFacts(
                python=list(sys.version_info[:2]),
                by_value=self.by_value,
                values=list(self.values[:_MAX_NAMED]),
                omegaconf=installed_version("omegaconf"),
                hydra=self.hydra_version(),
                family_python=_python_of_family(),
                cloudpickle=cloudpickle.__version__,
            ),
            argv=command.argv,
            argv0_is_absolute=command.argv0_is_absolute,
            main_is_module=command.main_is_module,
            host=spec.name,
            code=self.code if travels else {},
            environ=environ,
            setup=[*self.options.setup, *spec.setup],
            python=self._python(spec),
            shared=shared,
            values=self.codec,
            code_blob=None,
            code_root=None,
            shared_file="",
            umask=0o022,
        )

    def spare_of(self, spec: HostSpec) -> str | None:
        """The Python that jobs run under, where the agent may start it before it is told what for; empty: the agent's own.

        None where shell lines or variables come before it, which may be secrets and have no place in a command line.
        """
        options = self.options
        if spec.setup or options.setup or spec.env or options.environment() or options.isolation == "spawn":
            return None
        return self._python(spec) or ""

    def _python(self, spec: HostSpec) -> str | None:
        return spec.python or self.options.python or spec.python_at_hand

    def hydra_version(self) -> str | None:
        """Hydra's version, where jobs need it."""
        return None

    def command(self, travels: bool) -> Command:
        """The jobs' `sys.argv`, its first as seen from their folder, and how `__main__` looks started.

        Where no script was started, as in a notebook, the task's name stands for it.
        """
        script = self._script()
        if script is None:
            return Command([self.task_name], argv0_is_absolute=False, main_is_module=False)
        cwd = self._cwd(travels)
        path = str(script.file)
        if travels and self.snapshot is not None:
            path = self.snapshot.relative(script.file)
            # One that lies elsewhere is not there.
            path = os.path.normpath(os.path.join(cwd, script.file.name)) if path == "." else path
        return Command([os.path.relpath(path, cwd), *self.arguments()], script.is_absolute, script.is_module)

    def _script(self) -> Script | None:
        return self.script or started_script(self.main_module)

    def arguments(self) -> list[str]:
        """What follows in the jobs' `sys.argv`: what this script was started with, without values of variables."""
        return run_record.command_line(self)[1:]

    def _sys_path(self, travels: bool) -> list[str]:
        if not travels:
            return [os.path.abspath(path) for path in own_sys_path()]
        if self.root is None or self.snapshot is None:
            return []
        return self.snapshot.sys_path(self.root, sys.path)

    def _cwd(self, travels: bool) -> str:
        if not travels:
            return os.getcwd()
        if self.snapshot is None:
            return "."
        return self.snapshot.relative(Path.cwd())

    # -- jobs ----------------------------------------------------------------------------------------------------

    def job(
        self, num: int, task: Any, config: Any, overrides: tuple[str, ...]
    ) -> tuple[QueuedJob, tuple[str, str] | None]:
        """A job as it is queued, and (kind, message) where it is FAILED before it can be sent.

        Raises:
            UsageError: the task cannot be called with one config.
        """
        return self._job(num, task, config, overrides, None)

    def call_job(
        self, num: int, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[QueuedJob, tuple[str, str] | None]:
        """A job that calls task(*args, **kwargs), and has an empty config.

        Raises:
            UsageError: the task cannot be called.
        """
        return self._job(num, task, None, (), (args, kwargs))

    def _job(
        self,
        num: int,
        task: Any,
        config: Any,
        overrides: tuple[str, ...],
        call: tuple[tuple[Any, ...], dict[str, Any]] | None,
    ) -> tuple[QueuedJob, tuple[str, str] | None]:
        if self.mode == "RUN":
            output_dir, relative = self.folder, "job"
        else:
            output_dir, relative = self.folder / str(num), str(num)
        content: dict[str, Any] = {
            "config": config if config is not None else {},
            "hydra": self._node(num, overrides),
            "overrides": list(overrides),
            "task_name": self.task_name,
        }
        if task is not None and task is not self.task and task != self.task:
            check_task(task, with_config=call is None)
            content["task"] = task
        failure = None
        try:
            if call is not None:
                # In bytes of their own: the config is read twice on the host, these are not.
                content["call"] = self._dumps(call)
            else:
                check_config_kind(config)
            payload = self._dumps(content)
        except ConfigError as error:
            payload, failure = b"", ("config", str(error))
        except Exception as error:  # noqa: BLE001
            payload, failure = (
                b"",
                (
                    "config",
                    f"{'the config' if call is None else 'what it is called with'} cannot be pickled: {type(error).__name__}: {error}",
                ),
            )
        # Looked for in the bytes first: most configs of most sweeps refer to nothing.
        if b"${" in payload:
            for problem in unresolved(self._with_node(config, num, overrides)):
                failure = ("config", f"the config does not resolve: {problem}")
                break
        return self.queued(num, overrides, output_dir, relative, payload), failure

    def queued(
        self, num: int, overrides: tuple[str, ...], output_dir: Path, relative: str, payload: bytes
    ) -> QueuedJob:
        """A job with its spec."""
        options = self.options
        in_place = not any(self._travels(spec) for spec in self.hosts)
        spec = JobSpec(
            num=num,
            attempt=0,
            job_id=f"{self.run_id}#{num}",
            zygote=_ZYGOTE,
            output_dir=str(output_dir) if in_place else relative,
            timeout=options.timeout,
            grace=options.grace,
            hook_timeout=options.hook_timeout,
            shutdown_timeout=options.shutdown_timeout,
            outputs=options.outputs if isinstance(options.outputs, bool) else list(options.outputs),
            max_output_bytes=options.max_output_bytes,
        )
        return QueuedJob(num, overrides, output_dir, payload, spec)

    def _node(self, num: int | None, overrides: Sequence[str]) -> dict[str, Any]:
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

    def _with_node(self, config: Any, num: int | None, overrides: Sequence[str] = ()) -> Any:
        """The config that a hook gets: a DictConfig with its hydra node."""
        return with_node(config, self._node(num, overrides))

    def own_config(self, num: int, payload: bytes) -> tuple[Any, Any]:
        """(cfg, hydra_cfg) of a job as they were sent."""
        from omegaconf import OmegaConf

        if not payload:
            return None, None
        content = pickling.loads(payload, main_module=self.main_module)
        config = content["config"]
        cfg = config if OmegaConf.is_config(config) else make_config(config)
        return cfg, make_config({"hydra": content["hydra"]})

    def hook_config(self, job_return: JobReturn, cfg: Any, hydra_cfg: Any) -> Any:
        """The config that `on_job_return` gets. `cfg` and `hydra_cfg`: from `own_config`, made for this and changed here."""
        full = opened(cfg, hydra_cfg)
        if hydra_cfg is not None:
            put_text(full, "hydra.runtime.output_dir", str(job_return.output_dir))
        return full

    def hook_returns(self, returns: Any) -> Any:
        """`job_returns` as `on_multirun_end` gets them."""
        return returns

    def finish_return(self, job_return: JobReturn) -> JobReturn:
        """The JobReturn as callbacks and callers get it: Hydra's own type where Hydra is loaded."""
        return as_hydra(job_return)


def _peek(configs: Iterable[Any]) -> tuple[Any, Iterable[Any]]:
    """The first config, and all of them."""
    import itertools

    iterator = iter(configs)
    first = next(iterator, None)
    if first is None and not isinstance(configs, (list, tuple)):
        return None, []
    if isinstance(configs, (list, tuple)):
        return first, configs
    return first, itertools.chain([first], iterator)


def _reader(snapshot: Snapshot, sha256: str) -> Callable[[], bytes]:
    return lambda: snapshot.read(sha256)


def _python_of_family() -> list[int]:
    """The oldest Python, (major, minor), that the omegaconf installed here runs under; hosts without one get this one."""
    version = installed_version("omegaconf") or ""
    if version.startswith(("2.0", "2.1", "2.2", "2.3")):
        return []
    from importlib.metadata import metadata

    oldest = re.search(r">=\s*(\d+)\.(\d+)", metadata("omegaconf")["Requires-Python"] or "")
    return [int(part) for part in oldest.groups()] if oldest is not None else []
