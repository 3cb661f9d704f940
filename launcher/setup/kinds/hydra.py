"""A run of a Hydra app. Its configs are composed here, job by job, and sent whole. Nothing is composed on a host.

Rule: Hydra decides composition, numbering, folders and the order of callbacks. What Hydra would have set in the job's
process (version base, job name, resolvers, the values of `${now:}`) is sent with the job.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import pickle
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from launcher.code.application.functions import innermost
from launcher.code.application.task import Script, script_of, where_from
from launcher.code.files.snapshot import Snapshot
from launcher.config.interpolations import unresolved
from launcher.config.job_config import (
    NOW,
    current,
    move_to,
    raw_text,
    raw_texts,
    settle,
    split,
    subdir_of,
    times_in,
    without_secrets,
    without_value,
)
from launcher.engine.requests import QueuedJob
from launcher.errors import ConfigError, UsageError
from launcher.hosts.inventory import host_specs
from launcher.options import LaunchConf
from launcher.runs.folder import Naming
from launcher.runs.index import new_run_id
from launcher.setup.jobs.resources import PLUGIN, RESOURCES, own_resources, resources_of
from launcher.setup.kinds.plain_app import read_warnings
from launcher.setup.kinds.run_setup import RunSetup
from remote_agent.callbacks.composite import Callbacks, Entry
from remote_agent.config.nodes import attach
from remote_agent.hydra import compat, state
from remote_agent.job import JobReturn

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from typing_extensions import Self

    from launcher.code.application.application import Application

__all__ = ["HydraSetup", "callback_entries", "task_reference", "with_configured"]

#: Keys of a launcher's node that are for Hydra, and not for the launcher.
_OF_INSTANTIATE = ("_target_", "_recursive_")
#: How many jobs of a sweep are looked at before it begins.
_MAX_CHECKED = 500
#: A number, a word or a path as the value of an override. It adds and removes no keys, and refers to nothing.
_PLAIN_VALUE = re.compile(r"(?!null$)[-+\w.,%/ ]+", re.IGNORECASE)
#: Formats whose result differs from one second to the next.
_TO_THE_SECOND = re.compile(r"(?<!%)(?:%%)*%-?[STXcrsf]")


@dataclasses.dataclass(frozen=True, eq=False)
class HydraSetup(RunSetup):
    """A run of a Hydra app, checked.

    `compose(overrides, num, job_id)` returns the config of one job with its `hydra` node, with `num` and `id` set. In
    RUN mode the run's config is its job's config, with the changes that `on_run_start` made.

    Attributes:
        earlier: JobReturns of earlier sessions of the same sweep.
        instead: `hydra.sweep.dir` as it was written, and the folder that was taken instead; None if it was taken
        itself.
        resolving: a cache of the shapes of jobs' configs that are known to resolve.
    """

    kind: ClassVar[str] = "hydra_app"
    compose: Callable[[Sequence[str], int, str], DictConfig] | None = None
    earlier: tuple[JobReturn, ...] = ()
    instead: tuple[str, Path] | None = None
    resolving: set[Any] = dataclasses.field(default_factory=set, repr=False)

    @classmethod
    def of(
        cls,
        mode: str,
        task: Callable[[Any], Any],
        config: DictConfig,
        *,
        compose: Callable[[Sequence[str], int, str], DictConfig],
        callbacks: Callbacks,
        options: LaunchConf,
        hosts: Sequence[Any] | None = None,
        first_num: int = 0,
        script: Script | None = None,
        root: Path | None = None,
        naming: Naming | None = None,
        fired_elsewhere: frozenset[str] = frozenset(),
        earlier: Sequence[JobReturn] = (),
        text_of: Application | None = None,
        taken: Snapshot | None = None,
    ) -> HydraSetup:
        """Check what was given.

        Args:
            mode: RUN or MULTIRUN.
            task: the task function, undecorated.
            config: the config of the whole run, with its `hydra` node. This object is kept, because hooks may edit it.
            script: what jobs appear to have been started with, if this process was started in another way.
            root: the file or folder whose project is sent; by default that of the task.
            naming: who chose the folder's name; by default what the config says.
            fired_elsewhere, earlier: see the class.
            text_of: the application, if it was read from its text, and the task is a stand-in.
            taken: the snapshot of the project, if there is one already.

        Raises:
            UsageError: naming what is wrong.
        """
        from hydra.core.utils import JobRuntime

        found: Path | None
        main_module: str | None
        reference: Any
        if text_of is not None:
            found, main_module, reference = text_of.file, text_of.module_name, text_of.reference
        else:
            found, main_module = where_from(task)
            reference = task_reference(task, main_module)
        setup = cls(
            mode=mode,
            run_id=new_run_id(),
            folder=folder_of_run(mode, config),
            naming=naming if naming is not None else naming_of(mode, config),
            hosts=tuple(host_specs(hosts, options)),
            options=options,
            callbacks=callbacks,
            task=reference,
            task_name=str(JobRuntime.instance().get("name")),
            configs=(),
            root_config=config,
            config_name=config.hydra.job.config_name,
            root=root if root is not None else found,
            main_module=main_module,
            first_num=first_num,
            script=script,
            compose=compose,
            fired_elsewhere=fired_elsewhere,
            earlier=tuple(earlier),
            warnings=read_warnings(text_of) if text_of is not None else (),
        )
        return setup.with_code(taken)

    # -- what is sent -------------------------------------------------------------------------------------------

    def hydra_state(self) -> Any:
        """Return Hydra's own state, for the jobs."""
        # Hosts are not told that these are pickled by value, because the application may register the same resolvers
        # there again.
        return state.capture(self.pickler.dumps_here, self._below)

    def _below(self, path: str) -> str | None:
        """Return a folder's path relative to the code that is sent; None if it is not in that code."""
        if self.snapshot is None:
            return None
        relative = self.snapshot.relative(Path(path))
        there = os.path.realpath(self.snapshot.root / relative)
        return relative if there == os.path.realpath(path) else None

    def hydra_version(self) -> str | None:
        """Return the version of Hydra on the controller."""
        import hydra

        return hydra.__version__

    def script_started(self) -> Script | None:
        """Return the script. If something else was started (an entry point, a test), it is the module of the task."""
        return super().script_started() or script_of(self._module_of_task())

    def arguments(self) -> list[str]:
        """Return the arguments of this application; if it was not started itself, its overrides, as in `python
        my_app.py OVERRIDES`.

        Values of `hydra.launcher.env` are left out, because applications store their command line.
        """
        if self.script is None and super().script_started() is not None:
            return [without_value(one) for one in sys.argv[1:]]
        overrides = self.root_config.hydra.overrides
        return [without_value(one) for one in (*raw_texts(overrides.task), *raw_texts(overrides.hydra))]

    def _module_of_task(self) -> str:
        if isinstance(self.task, str):
            return self.task.partition(":")[0]
        return str(getattr(innermost(self.task), "__module__", None))

    # -- jobs ----------------------------------------------------------------------------------------------------

    def job(self, num: int, task: Any, config: Any, overrides: Sequence[str]) -> QueuedJob:
        """Compose the job with these overrides now. If that fails, it has an error of kind `config`."""
        try:
            composed = self._composed(num, overrides)
            self._check_resolves(composed, overrides)
            output_dir, relative = self._output_dir_of(composed, num)
            needs = self.needs_of(self._own_resources(composed), RESOURCES)
            settle(composed, output_dir)
            content = {
                "config": composed,
                "hydra": None,
                "overrides": raw_texts(composed.hydra.overrides.task),
                "task_name": self.task_name,
            }
            payload = _plain_pickle(content) or self.pickler.dumps(content)
        except Exception as error:  # noqa: BLE001 - a resolver or an object in the config may raise anything
            place = self.folder if self.mode == "RUN" else self.folder / str(num)
            failure = ("config", f"the job's config cannot be made: {type(error).__name__}: {error}")
            return self.queued(num, overrides, place, str(num), b"", failure)
        return self.queued(num, raw_texts(composed.hydra.overrides.task), output_dir, relative, payload, needs=needs)

    def check_sizes(self, jobs: Iterable[Sequence[str]]) -> None:
        """Refuse a sweep with a job that says of what it needs what makes no sense, or more than any host has.

        Args:
            jobs: the overrides of each. Of those beyond the first few hundred, such a job fails when its turn comes.

        Raises:
            ConfigError, InventoryError: naming the job's overrides.
        """
        from omegaconf import OmegaConf

        launcher = self.root_config.hydra.launcher
        depends = OmegaConf.is_dict(launcher) and "${" in OmegaConf.to_yaml(launcher)
        groups = {str(name) for name in self.root_config.hydra.runtime.choices}
        seen = set()
        for overrides in itertools.islice(jobs, _MAX_CHECKED):
            telling = tuple(one for one in overrides if depends or _is_telling(one, groups))
            if not telling or telling in seen:
                continue
            seen.add(telling)
            try:
                own = self._own_resources(self._composed(0, overrides))
            except Exception:  # noqa: BLE001, S112 - this job fails with it when its turn comes
                continue
            try:
                self.needs_of(own, RESOURCES)
            except UsageError as error:
                raise type(error)(f"{error} (job with {' '.join(map(without_value, overrides))})") from None

    def _own_resources(self, composed: DictConfig) -> Any:
        return own_resources(resources_of(composed), self._usual_resources)

    @functools.cached_property
    def _usual_resources(self) -> Any:
        return resources_of(self.root_config)

    def in_folder(self, folder: Path) -> Self:
        """Return the same run in another folder.

        From now on Hydra's config has that folder, also for jobs composed from it.
        """
        if folder == self.folder:
            return self
        instead = self.instead
        if self.root_config is not None:
            instead = raw_text(self._dirs(self.root_config), "dir"), folder
            move_to(self.root_config, self.mode, folder)
        return dataclasses.replace(self, folder=folder, instead=instead)

    def _dirs(self, config: DictConfig) -> DictConfig:
        return config.hydra.run if self.mode == "RUN" else config.hydra.sweep  # type: ignore[no-any-return]

    def _composed(self, num: int, overrides: Sequence[str]) -> DictConfig:
        if self.mode == "RUN":
            config = self.root_config
        else:
            assert self.compose is not None, "`of` sets it"
            config = self.compose(overrides, num, f"{self.run_id}#{num}")
            if self.instead is not None and raw_text(self._dirs(config), "dir") == self.instead[0]:
                move_to(config, self.mode, self.instead[1])
        without_secrets(config)
        return config  # type: ignore[no-any-return]

    def _check_resolves(self, config: DictConfig, overrides: Sequence[str]) -> None:
        """Check once for each shape of the jobs' configs. Plain values do not change which key refers to which.

        Raises:
            ConfigError: an interpolation cannot resolve.
        """
        from omegaconf import OmegaConf

        choices: Any = OmegaConf.to_container(config.hydra.runtime.choices)
        changes = tuple(key if _PLAIN_VALUE.fullmatch(value) else key + value for key, value in map(_halves, overrides))
        shape = (tuple(sorted(map(str, choices.items()))), changes)
        if shape in self.resolving:
            return
        problem = next(unresolved(config, without="hydra"), None)
        if problem is not None:
            raise ConfigError(f"it does not resolve: {problem}")
        self.resolving.add(shape)

    def _output_dir_of(self, config: DictConfig, num: int) -> tuple[Path, str]:
        """Return (local output directory, its path relative to the run's outputs on a host without a shared disk)."""
        with current(config):
            if self.mode == "RUN":
                return Path(os.path.abspath(str(config.hydra.run.dir))), "job"
            subdir = subdir_of(config, num)
            local = self.not_kept(Path(os.path.abspath(os.path.join(self._sweep_dir_of(config), subdir))))
        relative = os.path.normpath(subdir)
        leads_out = os.path.isabs(relative) or relative == "." or ".." in relative.split(os.sep)
        if leads_out or relative == str(num):
            return local, str(num)
        # Jobs may share a folder here. On a host each has its own, because its files are removed after they were sent.
        return local, os.path.join(str(num), relative)

    def _sweep_dir_of(self, config: DictConfig) -> str:
        """Return a job's `hydra.sweep.dir`. It is the sweep's, unless its text differs or depends on the job."""
        text = raw_text(config.hydra.sweep, "dir")
        # Resolving takes a parser a millisecond.
        if text == raw_text(self.root_config.hydra.sweep, "dir") and "${" not in NOW.sub("", text):
            return self._sweep_dir
        return str(config.hydra.sweep.dir)

    @functools.cached_property
    def _sweep_dir(self) -> str:
        return str(self.root_config.hydra.sweep.dir)

    # -- what comes back -----------------------------------------------------------------------------------------

    def own_config(self, num: int, payload: bytes) -> tuple[Any, Any]:
        """Return (cfg, hydra_cfg) of a job as they were sent."""
        if not payload:
            return None, None
        config = self.pickler.loads(payload)["config"]
        return config, split(config)

    def hook_config(self, output_dir: str | None, cfg: Any, hydra_cfg: Any) -> Any:
        """Return the config for `on_job_return` and `on_job_report`: the job's, with its `hydra` node. See `RunSetup`."""
        from omegaconf import OmegaConf

        if cfg is None or hydra_cfg is None:
            return self.root_config
        OmegaConf.set_readonly(cfg, None)
        attach(cfg, "hydra", hydra_cfg.hydra)
        return cfg

    def hook_returns(self, returns: Any) -> Any:
        """Return `job_returns` for `on_multirun_end`: those of all batches, in order."""
        return [*self.earlier, *returns] if self.earlier else returns


def _is_telling(override: str, groups: set[str]) -> bool:
    """Whether an override may change what a job says that it needs: one of Hydra's own keys, or of a config group."""
    key = override.partition("=")[0].lstrip("+~")
    return key.startswith("hydra.") or key.partition("@")[0] in groups or "/" in key


def _halves(override: str) -> tuple[str, str]:
    key, equals, value = override.partition("=")
    return key + equals, value


def folder_of_run(mode: str, config: DictConfig) -> Path:
    """Return the run's local folder: `hydra.run.dir` or `hydra.sweep.dir`."""
    with current(config):
        return Path(os.path.abspath(str(config.hydra.run.dir if mode == "RUN" else config.hydra.sweep.dir)))


def naming_of(mode: str, config: DictConfig) -> Naming:
    """Return who chose the run's folder: the user, unless its name has the time in it."""
    times = times_in(config, raw_text(config.hydra.run if mode == "RUN" else config.hydra.sweep, "dir"))
    if not times:
        return Naming.USER
    return Naming.MOMENT if any(_TO_THE_SECOND.search(one) for one in times) else Naming.TIME


def with_configured(options: LaunchConf, config: DictConfig) -> LaunchConf:
    """Return the options, with the app's own `hydra.launcher` as defaults if that is this launcher.

    A value in `options` that is not the default was asked for, so it counts. Its hosts replace the configured ones.

    Raises:
        ConfigError: a configured option is unknown or not allowed.
    """
    from omegaconf import OmegaConf

    node = config.hydra.launcher
    if not OmegaConf.is_dict(node) or node.get("_target_") != PLUGIN:
        return options
    plain: Any = OmegaConf.to_container(node, resolve=True)
    try:
        configured = LaunchConf.from_mapping({key: value for key, value in plain.items() if key not in _OF_INSTANTIATE})
    except UsageError as error:
        raise error.named(f"hydra.launcher.{error.option}") from None
    default = LaunchConf()
    names = [field.name for field in dataclasses.fields(LaunchConf)]
    asked = {name: getattr(options, name) for name in names if getattr(options, name) != getattr(default, name)}
    if asked.keys() & {"hosts", "hosts_file"}:
        asked = {"hosts": (), "hosts_file": None, **asked}
    for name in ("env", "on_error"):
        if name in asked:
            asked[name] = {**getattr(configured, name), **asked[name]}
    return configured.replaced(**asked)


def _plain_pickle(content: dict[str, Any]) -> bytes | None:
    """Pickle by reference only, in a third of cloudpickle's time. Returns None if that is not enough."""
    import cloudpickle

    if cloudpickle.list_registry_pickle_by_value():
        return None
    try:
        data = pickle.dumps(content, 4)
    except Exception:  # noqa: BLE001 - a lambda, a local class; cloudpickle says what is wrong where it cannot either
        return None
    # Objects of the script must be pickled under its other name.
    return None if b"__main__" in data else data


# -- the task and the callbacks --------------------------------------------------------------------------------------


def task_reference(task: Callable[[Any], Any], main_module: str | None) -> Any:
    """Return `module:qualname` if a host can import the task (undecorated) by that name, or else the task itself.

    Hydra passes the function below `@hydra.main`, but its name leads to the decorated one. So it would be pickled by
    value, as a copy that is not in its own module.
    """
    module = getattr(task, "__module__", None)
    qualname = getattr(task, "__qualname__", "")
    if not isinstance(module, str) or not qualname or "<" in qualname:
        return task
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is None or compat.undecorated(found) is not task:
        return task
    if module == "__main__":
        return f"{main_module}:{qualname}" if main_module is not None else task
    return f"{module}:{qualname}"


def callback_entries(config: DictConfig, instances: Sequence[Any], options: LaunchConf) -> Callbacks:
    """Return the callbacks that Hydra built, with their names in `hydra.callbacks` and their specs.

    Raises:
        CallbackError: `on_error` names a callback or a policy that does not exist.
    """
    from omegaconf import OmegaConf

    from launcher.errors import CallbackError

    nodes = OmegaConf.select(config, "hydra.callbacks") or {}
    names = [str(name) for name in nodes]
    entries = []
    for index, instance in enumerate(instances):
        if instance is None:
            continue
        known = len(names) == len(instances)
        name = names[index] if known else f"{type(instance).__name__}_{index}"
        spec = _plain(nodes, name) if known else None
        entries.append(Entry(name, instance, options.on_error.get(name), spec))
    unknown = [name for name in options.on_error if name not in {entry.name for entry in entries}]
    if unknown:
        known_names = ", ".join(entry.name for entry in entries) or "none"
        raise CallbackError.of_option("on_error", f" names {unknown[0]!r}; the callbacks are {known_names}")
    try:
        return Callbacks(entries)
    except ValueError as error:
        raise CallbackError(str(error)) from error


def _plain(nodes: Any, name: str) -> dict[str, Any] | None:
    """Return a callback's node as plain data; None if it does not resolve, and then its pickle is sent."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        spec = OmegaConf.to_container(nodes[name], resolve=True)
    except OmegaConfBaseException:
        return None
    return {str(key): value for key, value in spec.items()} if isinstance(spec, dict) else None
