"""Hydra's config loader with a cache: the jobs of a sweep are composed without reading and merging the same files again.

Rule: every composed config equals the one that Hydra composes. The cache holds Hydra's own result for the overrides that choose
groups or set a key of `hydra.*`. Hydra's own function applies the other overrides of a job to a copy of it; Hydra does nothing else
with them either. In these cases that is not certain, and Hydra composes the config itself:

* the key of an override leads through an interpolation, so it may end anywhere;
* there is a `hydra.job.env_copy`, or a defaults list that calls a resolver: what they read may change between two jobs;
* a resolver returns more than a plain value while configs are merged (OmegaConf calls the resolvers of values that are
  overridden, and throws plain values away);
* the config loader of Hydra is not that of 1.3 (see `make_loader` in `launcher.config.hydra`).

Config files and the ConfigStore are read once, when the sweep begins. A config that is not one of a sweep's jobs is always
composed by Hydra, from the files as they were read.
"""

# ruff: noqa: SLF001 - OmegaConf has no public way to look at a node without resolving it.

from __future__ import annotations

import contextlib
import copy
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobRuntime
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from hydra.version import getbase
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer

__all__ = ["CachingConfigLoader"]

#: The search path of configs depends on these: the primary config, and the overrides of `hydra.searchpath`.
_Place = tuple[str | None, tuple[str, ...]]
#: Distinct choices of config groups, and distinct overrides, that are remembered.
_MAX_BASES = 256
_MAX_PARSED = 20_000


class _Copies:
    """Makes equal, independent copies of an object: by pickle, else by deepcopy (twice as slow)."""

    def __init__(self, value: Any) -> None:
        self._value: Any = None
        self._data: bytes | None = None
        try:
            self._data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
            pickle.loads(self._data)  # noqa: S301 - made one line above
        except Exception:  # noqa: BLE001 - a user's objects in a config may raise anything
            self._data = None
            self._value = copy.deepcopy(value)

    def make(self) -> Any:
        if self._data is not None:
            return pickle.loads(self._data)  # noqa: S301 - made by this object
        return copy.deepcopy(self._value)


class _RememberingRepository(ConfigRepository):
    """Hydra's repository of config files and groups, which looks up or loads each only once."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        #: Config files whose defaults list calls a resolver; one object for all copies.
        self.calling_resolvers: set[str] = set()
        super().__init__(config_search_path)

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)
        self._loaded: dict[str, _Copies | None] = {}
        self._exists: dict[tuple[str, ObjectType | None], Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _RememberingRepository:
        # Hydra copies a repository before it may give it other sources: these never change, but may be replaced.
        clone = object.__new__(type(self))
        clone.__dict__.update(self.__dict__)
        return clone

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path not in self._loaded:
            result = super().load_config(config_path)
            if result is not None and any(_calls_resolver(one) for one in result.defaults_list or ()):
                self.calling_resolvers.add(config_path)
            self._loaded[config_path] = None if result is None else _Copies(result)
        copies = self._loaded[config_path]
        return None if copies is None else copies.make()

    def _find_object_source(self, config_path: str, object_type: ObjectType | None) -> Any:
        key = (config_path, object_type)
        if key not in self._exists:
            self._exists[key] = super()._find_object_source(config_path, object_type)
        return self._exists[key]


def _calls_resolver(default: Any) -> bool:
    text = " ".join(str(value) for value in vars(default).values())
    return "${" in text and ":" in text.partition("${")[2]


class CachingConfigLoader(ConfigLoaderImpl):
    """A ConfigLoader for Hydra. Not for use by several threads at once."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._parsed: dict[str, Override] = {}
        self._repositories: dict[Any, CachingConfigRepository] = {}
        self._groups: dict[Any, bool] = {}
        self._bases: dict[Any, _Copies | None] = {}
        self._is_sweeping = False
        self.repository = _RememberingRepository(config_search_path)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return the config of one job of a sweep. See Hydra's ConfigLoader."""
        self._is_sweeping = True
        try:
            return super().load_sweep_config(master_config, sweep_overrides)
        finally:
            self._is_sweeping = False

    def _load_configuration_impl(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        compose = super()._load_configuration_impl
        if not self._is_sweeping:
            return compose(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        try:
            config = self._from_memory(config_name, overrides, run_mode, compose)
        except Exception:  # noqa: BLE001 - Hydra says what is wrong, in its own words and order
            config = None
        return config if config is not None else compose(config_name, overrides, run_mode, from_shell, True)

    def _from_memory(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, compose: Callable[..., DictConfig]
    ) -> DictConfig | None:
        """Return the config made from what is remembered, perhaps since this call; None if that is not possible."""
        parsed = self._parse(overrides)
        if any(override.is_sweep_override() for override in parsed):
            return None
        searchpath = tuple(_line(one) for one in parsed if one.get_key_element() == "hydra.searchpath")
        place = (config_name, searchpath)
        of_base, of_task, values = [], [], []
        for override in parsed:
            if override.key_or_group.startswith("hydra") or self._chooses_group(place, override):
                of_base.append(_line(override))
            else:
                values.append(override)
            if not override.is_hydra_override():
                of_task.append(override)
        key = (place, run_mode, tuple(of_base), os.getcwd(), JobRuntime().get("name"), str(getbase()))
        if key not in self._bases:
            if len(self._bases) >= _MAX_BASES:
                self._bases.clear()
            with _watched_resolvers() as results:
                composed = compose(config_name, of_base, run_mode)
            self._bases[key] = self._base_of(composed, of_base, results)
        base = self._bases[key]
        config: DictConfig | None = None if base is None else base.make()
        if config is None or any(_leads_through_interpolation(config, one.key_or_group) for one in values):
            return None
        self._apply_overrides_to_config(values, config)
        _describe(config, of_task)
        return config

    def _parse(self, lines: list[str]) -> list[Override]:
        """Return the parsed overrides. A sweep is parsed each time, because it may be shuffled, and can be read only once."""
        found = []
        for line in lines:
            override = self._parsed.get(line)
            if override is None:
                override = OverridesParser.create().parse_overrides([line])[0]
                if not override.is_sweep_override():
                    if len(self._parsed) >= _MAX_PARSED:
                        self._parsed.clear()
                    self._parsed[line] = override
            found.append(override)
        return found

    def is_group(self, config_name: str | None, overrides: list[Override], key_or_group: str) -> bool:
        """Whether there is a config group of that name, with the search path of these overrides."""
        searchpath = tuple(_line(one) for one in overrides if one.get_key_element() == "hydra.searchpath")
        return self._is_group((config_name, searchpath), key_or_group)

    def _chooses_group(self, place: _Place, override: Override) -> bool:
        """Whether Hydra reads it as a choice in the defaults list, and not as a value. See its `Overrides`."""
        return not isinstance(override.value(), dict) and self._is_group(place, override.key_or_group)

    def _is_group(self, place: _Place, key_or_group: str) -> bool:
        key = (place, key_or_group)
        if key not in self._groups:
            if place not in self._repositories:
                config_name, searchpath = place
                _, repository = self._parse_overrides_and_create_caching_repo(config_name, list(searchpath))
                self._repositories[place] = repository
            if len(self._groups) >= _MAX_PARSED:
                self._groups.clear()
            self._groups[key] = self._repositories[place].group_exists(key_or_group)
        return self._groups[key]

    def _base_of(self, config: DictConfig, lines: list[str], results: list[Any]) -> _Copies | None:
        """Return what Hydra composed, without the task's overrides; None if it may not be kept."""
        calls_resolver = getattr(self.repository, "calling_resolvers", True)
        if calls_resolver or len(config.hydra.job.env_copy) > 0:
            return None
        if any("${" in line and ":" in line for line in lines if not line.lstrip("+~").startswith("hydra.")):
            return None
        if not all(isinstance(result, (str, int, float)) for result in results):
            return None
        for override in self._parse(lines):
            if not override.is_hydra_override():
                # Not `pop`, because it would resolve what it returns.
                del config.hydra.overrides.task[-1]
        return _Copies(config)


@contextlib.contextmanager
def _watched_resolvers() -> Iterator[list[Any]]:
    """Record what OmegaConf's resolvers return within this context. A failure counts as None."""
    results: list[Any] = []

    def watched(resolver: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            results.append(None)
            results[-1] = result = resolver(*args, **kwargs)
            return result

        return call

    before = BaseContainer._resolvers
    meanwhile = {name: watched(resolver) for name, resolver in before.items()}
    known = dict(meanwhile)
    BaseContainer._resolvers = meanwhile
    try:
        yield results
    finally:
        if BaseContainer._resolvers is meanwhile:
            # Composing may import packages, which may register resolvers: these stay.
            before.update({name: one for name, one in meanwhile.items() if one is not known.get(name)})
            BaseContainer._resolvers = before


def _line(override: Override) -> str:
    return str(override.input_line)


def _describe(config: DictConfig, of_task: list[Override]) -> None:
    """Record the overrides of the task, as Hydra does."""
    for override in of_task:
        config.hydra.overrides.task.append(override.input_line)
    names = config.hydra.job.config.override_dirname
    config.hydra.job.override_dirname = get_overrides_dirname(
        overrides=of_task, kv_sep=names.kv_sep, item_sep=names.item_sep, exclude_keys=names.exclude_keys
    )


def _leads_through_interpolation(config: DictConfig, key: str) -> bool:
    node: Any = config
    for part in key.split(".")[:-1]:
        if not isinstance(node, Container):
            return False
        if node._is_interpolation():
            return True
        if node._is_none() or node._is_missing():
            return False
        if OmegaConf.is_list(node) and not part.isdigit():
            return True
        node = node._get_node(int(part) if OmegaConf.is_list(node) else part, validate_access=False)
    return isinstance(node, Container) and node._is_interpolation()
