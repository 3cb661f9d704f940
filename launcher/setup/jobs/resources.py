"""What a job needs of its host, as its own composed config says it in `hydra.launcher.resources`.

Rule: only what differs from the config of the run is the job's own word. The rest is for the run's options to say, which may also come from
the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from launcher.config.job_config import current

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["PLUGIN", "RESOURCES", "own_resources", "resources_of"]

#: `hydra.launcher._target_` of this launcher.
PLUGIN = "hydra_plugins.hydra_remote_launcher.remote_launcher.RemoteLauncher"
RESOURCES = "hydra.launcher.resources"


def resources_of(config: DictConfig) -> Any:
    """Return `hydra.launcher.resources` of a composed config as plain data, resolved; nothing if that launcher is not this one.

    Raises:
        OmegaConfBaseException: it does not resolve.
    """
    from omegaconf import OmegaConf

    launcher = OmegaConf.select(config, "hydra.launcher")
    if not OmegaConf.is_dict(launcher) or launcher.get("_target_") != PLUGIN:
        return {}
    with current(config):
        given = launcher.get("resources")
        return OmegaConf.to_container(given, resolve=True) if OmegaConf.is_config(given) else given


def own_resources(given: Any, usual: Any) -> Any:
    """Return what a job says itself. A key that only the run has is None: the job needs nothing of it."""
    if not isinstance(given, Mapping) or not isinstance(usual, Mapping):
        return given if given != usual else None
    own = {name: value for name, value in given.items() if name not in usual or usual[name] != value}
    return {**own, **{name: None for name in usual if name not in given}}
