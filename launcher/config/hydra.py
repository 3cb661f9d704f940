"""The configs of a Hydra app: composed as `@hydra.main` composes them, job by job.

Rule: this follows hydra/_internal/utils.py (`_run_hydra`, `_run_app`), hydra/_internal/hydra.py (`Hydra.run`,
`Hydra.multirun`) and Hydra's basic sweeper step by step; what they leave undone until a job starts is left undone here.
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
from omegaconf import OmegaConf, open_dict

from launcher.code.application import Application
from launcher.code.hydra_entry import innermost
from launcher.config.composition import Composition, hydra_errors
from launcher.config.job_config import raw_texts
from launcher.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

__all__ = ["HydraComposition", "as_caching_loader", "make_loader"]

_IS_HYDRA_1_3 = hydra.__version__.startswith("1.3.")
_BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


class HydraComposition(Composition):
    """The configs of a Hydra app's run, composed as `@hydra.main` composes them.

    Attributes:
        config_loader: Hydra's ConfigLoader, with a memory where there is one (see `make_loader`).
    """

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
        """As hydra/_internal/utils.py `_run_app`, then `Hydra.run` or `Hydra.multirun`, do."""
        with hydra_errors():
            configured = self._hydra.get_mode(self.config_name, overrides, **self._expanded(overrides))
        if configured is None or (multirun and configured == RunMode.RUN):
            configured = RunMode.MULTIRUN if multirun else RunMode.RUN
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
        """What Hydra 1.4 wants beside the overrides: the same, parsed, with its aliases replaced."""
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
        """The local folder of the run: `hydra.run.dir` or `hydra.sweep.dir`, resolved once and the same from then on.

        Raises:
            ConfigError: it does not resolve.
        """
        node = self.config.hydra.run if self.mode == "RUN" else self.config.hydra.sweep
        with hydra_errors():
            return Path(os.path.abspath(str(node.dir)))

    def output_dir(self, config: DictConfig) -> Path:
        """A job's local output directory, by its config.

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
        """The app's sweeper is Hydra's own, whose jobs are `job_overrides`; else `sweep_with` runs the one it is."""
        return bool(OmegaConf.select(self.config, "hydra.sweeper._target_") == _BASIC_SWEEPER)

    def job_config(self, num: int, overrides: Sequence[str], job_id: str | None = None) -> DictConfig:
        """The config of one job, by Hydra's `load_sweep_config`; in RUN mode the run's own."""
        if self.mode == "RUN":
            return self.config
        # Resolved before it is copied, so that all jobs agree on the time that ${now:} gives it.
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
        """Run the app's own sweeper, as published, with this launcher; returns what its `sweep` returns.

        Args:
            launcher: a Hydra Launcher; `setup` is called on it by the sweeper's `setup`.
            callbacks: what the HydraContext holds as callbacks.

        Raises:
            ConfigError: the sweeper cannot be built.
            Exception: whatever the sweeper raises.
        """
        plugins = Plugins.instance()

        def given(hydra_context: Any, task_function: Any, config: Any) -> Any:
            launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)
            return launcher

        # A sweeper asks the plugins for "the" launcher, by its config; an attribute of the instance goes before the method.
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
        """Those of the command line, and what the app's config says of the basic sweeper."""
        lines = raw_texts(self.config.hydra.overrides.task)
        params = OmegaConf.select(self.config, "hydra.sweeper.params")
        if params is not None and self.is_basic_sweeper:
            lines = [f"{key}={value}" for key, value in params.items()] + lines
        return OverridesParser.create(config_loader=self.config_loader).parse_overrides(lines)

    def is_group(self, override: Override) -> bool:
        """Hydra finds a group by that name."""
        lines = raw_texts(self.config.hydra.overrides.hydra)
        with hydra_errors():
            parsed = OverridesParser.create().parse_overrides(lines)
            if hasattr(self.config_loader, "is_group"):
                return bool(self.config_loader.is_group(self.config_name, parsed, override.key_or_group))
            places = [str(one.input_line) for one in parsed if one.get_key_element() == "hydra.searchpath"]
            _, repository = self.config_loader._parse_overrides_and_create_caching_repo(self.config_name, places)  # noqa: SLF001 - as Hydra's own loader does
            return bool(repository.group_exists(override.key_or_group))


def _of_plain(
    app: Application,
    config_path: str | None,
    config_dir: str | os.PathLike[str] | None,
    config_name: str | None,
) -> tuple[str | None, str | os.PathLike[str] | None, str | None]:
    """Where the config of a plain function is: in config_dir, else beside its file; `config.yaml` where that is there."""
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
    """Hydra's search path and job name, as hydra/_internal/utils.py `_run_hydra` makes them for a script.

    A module is taken for the file that it is, as it would be if Python had been started with it.
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
    """Hydra's config loader; of Hydra 1.3, with a memory (`launcher.config.caching_loader`, which leans on that version's inside)."""
    if not _IS_HYDRA_1_3:
        return ConfigLoaderImpl(search_path)
    from launcher.config.caching_loader import CachingConfigLoader

    return CachingConfigLoader(search_path)


def as_caching_loader(config_loader: Any) -> Any:
    """A loader that composes what this one does, with a memory; for launchers that Hydra gives its own loader.

    A loader that is not Hydra's own is left as it is.
    """
    if type(config_loader) is not ConfigLoaderImpl:
        return config_loader
    return make_loader(config_loader.get_search_path())
