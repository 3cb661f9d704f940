"""The config that the run's hooks get: a DictConfig that is made when somebody reads it.

Rule: no refusal is delayed. OmegaConf accepts purely plain data without interpolations as it is, so checking it does
not need omegaconf. Its import is delayed until the host has its command, when this process waits anyway. Every other
config is made, or refused, at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from launcher.errors import ConfigError
from remote_agent.config.nodes import make_config
from remote_agent.job import same, with_article

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["LazyConfig", "check_config_kind", "checked_config", "config_with_node", "import_omegaconf", "made_now"]

_LEAVES = (str, int, float, bool, type(None))
#: How deep data may be nested to be checked here. OmegaConf may refuse deeper data.
_MAX_DEPTH = 50
#: Characters of OmegaConf's message.
_MAX_SAID = 300


def checked_config(config: Any, node: dict[str, Any]) -> DictConfig | LazyConfig:
    """Check a run's config, and return it with its `hydra` node, for `made_now`.

    Raises:
        ConfigError: it is not a config, or does not resolve.
    """
    if (config is None or type(config) is dict) and _is_plain([config, node]):
        return LazyConfig(config, node)
    made = config_with_node(config, node)
    from launcher.config.interpolations import unresolved

    for problem in unresolved(made):
        raise ConfigError(f"the config does not resolve: {problem}")
    return made


def check_config_kind(config: Any) -> None:
    """Refuse text. OmegaConf would accept it as YAML, in which any word is a mapping, but nobody means that.

    Raises:
        ConfigError: it is text.
    """
    if isinstance(config, (str, bytes)):
        raise ConfigError(
            f"the config is {with_article(type(config).__name__)}, not a mapping, dataclass or DictConfig"
        )


def config_with_node(config: Any, node: dict[str, Any]) -> DictConfig:
    """Return the config for a hook: a DictConfig with its `hydra` node.

    Raises:
        ConfigError: it is not a config.
    """
    from omegaconf import DictConfig, OmegaConf

    check_config_kind(config)
    try:
        full = OmegaConf.create(config if config is not None else {}, flags={"allow_objects": True})
    except Exception as error:
        what = (
            "cannot be taken" if isinstance(config, Mapping) else "is neither a mapping, a dataclass nor a DictConfig"
        )
        # In further lines OmegaConf names the whole path, which can be very long.
        raise ConfigError(f"the config {what}: {str(error).partition(chr(10))[0][:_MAX_SAID]}") from error
    if not isinstance(full, DictConfig):
        raise ConfigError(
            f"the config is {with_article(type(config).__name__)}, not a mapping, dataclass or DictConfig"
        )
    OmegaConf.set_struct(full, False)
    OmegaConf.set_readonly(full, False)
    full["hydra"] = OmegaConf.create(node)
    return full


#: Journals look it up under this name (docs/stored.md).
config_with_node.__module__ = "launcher.pickled"


class LazyConfig:
    """A config that is not made yet. Its pickle is that of the made config."""

    def __init__(self, config: dict[str, Any] | None, node: dict[str, Any]) -> None:
        # The data as it is now. Later changes of the caller's object do not change the run.
        self._parts = (_copied(config), node)
        self._made: DictConfig | None = None

    @property
    def made(self) -> DictConfig:
        """The config. All hooks share it, with the changes that they make."""
        if self._made is None:
            self._made = config_with_node(*self._parts)
        return self._made

    @property
    def unread(self) -> dict[str, Any] | None:
        """Its data without the `hydra` node; None if it was made, because then a hook may have changed it."""
        return self._parts[0] or {} if self._made is None else None

    def __reduce__(self) -> tuple[Any, ...]:
        return (same, (self._made,)) if self._made is not None else (config_with_node, self._parts)


def made_now(config: Any) -> Any:
    """Return the made config for a LazyConfig, and anything else unchanged."""
    return config.made if isinstance(config, LazyConfig) else config


def import_omegaconf() -> None:
    """Import omegaconf, which makes the first JobReturn's config."""
    make_config({})


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether OmegaConf accepts it without further checks. Data that contains itself counts as too deep."""
    kind = type(value)
    if kind is str:
        return "${" not in value
    if kind in _LEAVES:
        return True
    if depth > _MAX_DEPTH:
        return False
    if kind is dict:
        return all(type(key) is str and _is_plain(item, depth + 1) for key, item in value.items())
    return kind is list and all(_is_plain(item, depth + 1) for item in value)


def _copied(value: Any) -> Any:
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if type(value) is list else value
