"""The config that the run's hooks get: a DictConfig, made when somebody looks at it.

Rule: nothing that could be refused is put off. What is plain data through and through, and refers to nothing, OmegaConf takes
as it is; no check needs omegaconf for it. So its import waits until the host has its command, where this process waits
anyway. Everything else is made, and refused, at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from launcher.config.interpolations import unresolved
from launcher.errors import ConfigError
from remote_agent.config.nodes import make_config
from remote_agent.job import same, with_article

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["LazyConfig", "check_config_kind", "checked_config", "config_with_node", "import_omegaconf", "made_now"]

_LEAVES = (str, int, float, bool, type(None))
#: How deep data may lie to be looked through here; OmegaConf may have something to say of what is deeper.
_MAX_DEPTH = 50
#: Characters of what OmegaConf says.
_MAX_SAID = 300


def checked_config(config: Any, node: dict[str, Any]) -> DictConfig | LazyConfig:
    """A run's config with its `hydra` node, for `made_now`.

    Raises:
        ConfigError: it is no config, or does not resolve.
    """
    if (config is None or type(config) is dict) and _is_plain([config, node]):
        return LazyConfig(config, node)
    made = config_with_node(config, node)
    for problem in unresolved(made):
        raise ConfigError(f"the config does not resolve: {problem}")
    return made


def check_config_kind(config: Any) -> None:
    """Refuse what OmegaConf would take and nobody means: it reads text as YAML, of which any word is a mapping.

    Raises:
        ConfigError: it is text.
    """
    if isinstance(config, (str, bytes)):
        raise ConfigError(
            f"the config is {with_article(type(config).__name__)}, not a mapping, dataclass or DictConfig"
        )


def config_with_node(config: Any, node: dict[str, Any]) -> DictConfig:
    """The config that a hook gets: a DictConfig with its `hydra` node.

    Raises:
        ConfigError: it is no config.
    """
    from omegaconf import DictConfig, OmegaConf

    check_config_kind(config)
    try:
        full = OmegaConf.create(config if config is not None else {}, flags={"allow_objects": True})
    except Exception as error:
        what = (
            "cannot be taken" if isinstance(config, Mapping) else "is neither a mapping, a dataclass nor a DictConfig"
        )
        # OmegaConf names the whole path in further lines, which is as long as the config is deep.
        raise ConfigError(f"the config {what}: {str(error).partition(chr(10))[0][:_MAX_SAID]}") from error
    if not isinstance(full, DictConfig):
        raise ConfigError(
            f"the config is {with_article(type(config).__name__)}, not a mapping, dataclass or DictConfig"
        )
    OmegaConf.set_struct(full, False)
    OmegaConf.set_readonly(full, False)
    full["hydra"] = OmegaConf.create(node)
    return full


#: Journals ask for it there (docs/stored.md).
config_with_node.__module__ = "launcher.pickled"


class LazyConfig:
    """One that is not made yet. It pickles as what would be made."""

    def __init__(self, config: dict[str, Any] | None, node: dict[str, Any]) -> None:
        # As it is now: what becomes of the caller's own is not the run's.
        self._parts = (_copied(config), node)
        self._made: DictConfig | None = None

    @property
    def made(self) -> DictConfig:
        """The config: one for all hooks, with what they made of it."""
        if self._made is None:
            self._made = config_with_node(*self._parts)
        return self._made

    def __reduce__(self) -> tuple[Any, ...]:
        return (same, (self._made,)) if self._made is not None else (config_with_node, self._parts)


def made_now(config: Any) -> Any:
    """A config for somebody who looks at it; what is none stays as it is."""
    return config.made if isinstance(config, LazyConfig) else config


def import_omegaconf() -> None:
    """Import what the first JobReturn's config will be made with."""
    make_config({})


def _is_plain(value: Any, depth: int = 0) -> bool:
    """OmegaConf takes it without looking at it closely. What holds itself is too deep."""
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
