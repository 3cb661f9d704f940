"""The configs of a Hydra app: composed as `@hydra.main` composes them, job by job.

Rule: this follows hydra/_internal/utils.py (`_run_hydra`, `_run_app`), hydra/_internal/hydra.py (`Hydra.run`,
`Hydra.multirun`) and Hydra's basic sweeper step by step. What they do only when a job starts is not done here either.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import _get_module_name_override, create_automatic_config_search_path, detect_task_name
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import validate_config_path
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from launcher.code.application.application import Application
from launcher.code.application.functions import innermost
from launcher.config.composition import Composition, hydra_errors
from launcher.config.job_config import raw_texts
from launcher.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

__all__ = ["HydraComposition", "as_caching_loader", "compose_once", "make_loader"]

_IS_HYDRA_1_3 = hydra.__version__.startswith("1.3.")
_BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


class HydraComposition(Composition):
    """The configs of a Hydra app's run, composed as `@hydra.main` composes them.

    Attributes:
        config_loader: Hydra's ConfigLoader, with a cache if possible (see `make_loader`).
    """

    config: DictConfig
    is_hydra = True

    def __init__(
        self,
        app: Application,
        overrides: Sequence[str] = (),
        *,
        multirun: bool = False,
        config_path: str | None = None,
        config_name: str | None = None,
        config_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.app = app
        self._is_closed = False
        if not app.is_hydra:
            config_path, config_dir, config_name = _of_plain(app, config_path, config_dir, config_name)
            version.setbase(None)
        self.config_name = config_name if config_name is not None else app.config_name
        GlobalHydra.instance().clear()
        with hydra_errors():
            path = config_path if config_path is not None else app.config_path
            search_path, self.task_name = _search_path(app, path, config_dir)
            self.config_loader = make_loader(search_path)
            self._hydra = Hydra(task_name=self.task_name, config_loader=self.config_loader)
        GlobalHydra.instance().initialize(self._hydra)
        try:
            self._compose(list(overrides), multirun=multirun)
        except BaseException:
            self.close()
            raise

    def _compose(self, overrides: list[str], *, multirun: bool) -> None:
        """Compose as hydra/_internal/utils.py `_run_app` does, and then `Hydra.run` or `Hydra.multirun`."""
        asked = RunMode.MULTIRUN if multirun else RunMode.RUN
        config = compose_once(self._hydra, self.config_name, overrides, asked) if _IS_HYDRA_1_3 else None
        if config is not None:
            self.config, self.mode = config, asked.name
            return
        with hydra_errors():
            configured = self._hydra.get_mode(self.config_name, overrides, **self._expanded(overrides))
        if configured is None or (multirun and configured == RunMode.RUN):
            configured = asked
            overrides = [*overrides, f"hydra.mode={configured.name}"]
        self.mode = configured.name
        with hydra_errors():
            self.config = self._hydra.compose_config(
                config_name=self.config_name,
                overrides=overrides,
                run_mode=configured,
                **self._expanded(overrides),
                **({} if _IS_HYDRA_1_3 else {"activate_config_repository": True}),
            )
            if configured == RunMode.RUN and self.config.hydra.mode is None:
                self.config.hydra.mode = RunMode.RUN

    def _expanded(self, overrides: list[str]) -> dict[str, Any]:
        """Return what else Hydra 1.4 needs: the same overrides, parsed, with their aliases replaced."""
        if _IS_HYDRA_1_3:
            return {}
        return {"parsed_overrides": self.config_loader.parse_overrides(self.config_name, overrides)}

    def close(self) -> None:
        """Clear Hydra's global state."""
        if not self._is_closed:
            self._is_closed = True
            GlobalHydra.instance().clear()

    @property
    def folder(self) -> Path:
        """The local folder of the run: `hydra.run.dir` or `hydra.sweep.dir`. It is resolved only once.

        Raises:
            ConfigError: it does not resolve.
        """
        node = self.config.hydra.run if self.mode == "RUN" else self.config.hydra.sweep
        with hydra_errors():
            return Path(os.path.abspath(str(node.dir)))

    def output_dir(self, config: DictConfig) -> Path:
        """Return a job's local output directory, from its config.

        Raises:
            ConfigError: it does not resolve.
        """
        if self.mode == "RUN":
            return self.folder
        with hydra_errors():
            sweep = config.hydra.sweep
            return Path(os.path.abspath(os.path.join(str(sweep.dir), str(sweep.subdir))))

    @property
    def is_basic_sweeper(self) -> bool:
        """Whether the app's sweeper is Hydra's own, whose jobs are `job_overrides`. If not, `sweep_with` runs it."""
        return bool(OmegaConf.select(self.config, "hydra.sweeper._target_") == _BASIC_SWEEPER)

    def job_config(self, num: int, overrides: Sequence[str], job_id: str | None = None) -> DictConfig:
        """Compose the config of one job with Hydra's `load_sweep_config`. In RUN mode it is the run's own."""
        if self.mode == "RUN":
            return self.config
        # It is resolved before it is copied, so that all jobs get the same time from ${now:}.
        _ = self.folder
        with hydra_errors():
            config: DictConfig = self.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = str(num) if job_id is None else job_id
                config.hydra.job.num = num
        return config

    def save_multirun(self, folder: Path) -> None:
        """Write `multirun.yaml` into the run's folder, as Hydra's basic sweeper does."""
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")

    def sweep_with(self, launcher: Any, callbacks: Any) -> Any:
        """Run the app's own, unchanged sweeper with this launcher. Returns what its `sweep` returns.

        Args:
            launcher: a Hydra Launcher. The sweeper's `setup` calls its `setup`.
            callbacks: what the HydraContext holds as callbacks.

        Raises:
            ConfigError: the sweeper cannot be built.
            Exception: whatever the sweeper raises.
        """
        plugins = Plugins.instance()

        def given(hydra_context: Any, task_function: Any, config: Any) -> Any:
            launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)
            return launcher

        # A sweeper asks the plugins for the launcher of its config. An attribute of the instance takes precedence over
        # the method.
        plugins.__dict__["instantiate_launcher"] = given
        try:
            with hydra_errors(ImportError, RuntimeError):
                sweeper = plugins.instantiate_sweeper(
                    config=self.config,
                    hydra_context=HydraContext(config_loader=self.config_loader, callbacks=callbacks),
                    task_function=self.app.task,
                )
        finally:
            del plugins.__dict__["instantiate_launcher"]
        return sweeper.sweep(arguments=raw_texts(self.config.hydra.overrides.task))

    def swept(self) -> list[Override]:
        """Return the overrides of the command line, and those that the app's config gives to the basic sweeper."""
        lines = raw_texts(self.config.hydra.overrides.task)
        params = OmegaConf.select(self.config, "hydra.sweeper.params")
        if params is not None and self.is_basic_sweeper:
            lines = [f"{key}={value}" for key, value in params.items()] + lines
        return OverridesParser.create(config_loader=self.config_loader).parse_overrides(lines)

    def is_group(self, override: Override) -> bool:
        """Whether Hydra finds a group with that name."""
        lines = raw_texts(self.config.hydra.overrides.hydra)
        with hydra_errors():
            parsed = OverridesParser.create().parse_overrides(lines)
            if hasattr(self.config_loader, "is_group"):
                return bool(self.config_loader.is_group(self.config_name, parsed, override.key_or_group))
            places = [str(one.input_line) for one in parsed if one.get_key_element() == "hydra.searchpath"]
            _, repository = self.config_loader._parse_overrides_and_create_caching_repo(self.config_name, places)  # noqa: SLF001 - as Hydra's own loader does
            return bool(repository.group_exists(override.key_or_group))


def compose_once(hydra: Hydra, config_name: str | None, overrides: list[str], asked: RunMode) -> DictConfig | None:
    """Compose without the composition by which Hydra finds the configured mode. That takes as long again.

    Returns None if that might not give the same, because another mode is configured, or something is wrong.
    """
    try:
        config = hydra.compose_config(config_name=config_name, overrides=overrides, run_mode=asked)
        configured = config.hydra.mode
    except Exception:  # noqa: BLE001 - Hydra says what is wrong, in its own words and order
        return None
    if configured == RunMode.MULTIRUN != asked:
        return None
    if configured != asked:
        # What the override does that Hydra adds.
        config.hydra.mode = asked
        config.hydra.overrides.hydra.append(f"hydra.mode={asked.name}")
    return config


def _of_plain(
    app: Application,
    config_path: str | None,
    config_dir: str | os.PathLike[str] | None,
    config_name: str | None,
) -> tuple[str | None, str | os.PathLike[str] | None, str | None]:
    """Return where a plain function's config is: in config_dir, or else beside its file, as `config.yaml` if that
    exists.
    """
    folder = Path(config_path or config_dir or (app.file.parent if app.file is not None else Path.cwd()))
    if not folder.is_absolute() and config_path is not None and app.file is not None:
        folder = app.file.parent / folder
    folder = Path(os.path.abspath(folder))
    if not folder.is_dir():
        raise ConfigError(f"the config directory {folder} does not exist")
    if config_name is None and (folder / "config.yaml").is_file():
        config_name = "config"
    return str(folder), None, config_name


def _search_path(
    app: Application, config_path: str | None, config_dir: str | os.PathLike[str] | None
) -> tuple[ConfigSearchPath, str]:
    """Return Hydra's search path and job name, as hydra/_internal/utils.py `_run_hydra` makes them for a script.

    A module counts as its file, as if Python had been started with it.
    """
    function: Any = innermost(app.task)
    calling_module = _get_module_name_override()
    calling_file: str | None = None
    if calling_module is None:
        try:
            calling_file = inspect.getfile(function)
        except TypeError:
            calling_module = app.module_name
    validate_config_path(config_path)
    search_path = create_automatic_config_search_path(calling_file, calling_module, config_path)
    if config_dir is not None:
        folder = os.path.abspath(config_dir)
        if not os.path.isdir(folder):
            raise ConfigError(f"Additional config directory '{folder}' not found")
        search_path.prepend(provider="command-line", path=f"file://{folder}", anchor=SearchPathQuery(provider="schema"))
    return search_path, detect_task_name(calling_file, calling_module)


def make_loader(search_path: ConfigSearchPath) -> Any:
    """Make Hydra's config loader.

    For Hydra 1.3 it has a cache (`launcher.config.caching_loader` depends on that version's internals).
    """
    if not _IS_HYDRA_1_3:
        return ConfigLoaderImpl(search_path)
    from launcher.config.caching_loader import CachingConfigLoader

    return CachingConfigLoader(search_path)


def as_caching_loader(config_loader: Any) -> Any:
    """Return a loader that composes the same as this one, with a cache. It is for launchers that Hydra gives its own
    loader.

    A loader that is not Hydra's own is returned unchanged.
    """
    if type(config_loader) is not ConfigLoaderImpl:
        return config_loader
    return make_loader(config_loader.get_search_path())
