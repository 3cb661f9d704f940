"""Prepares a Hydra job's config for a host: it sets the job's number, fixes values that must not change there, and
removes secrets.

Rule: only what is named here is resolved. Nothing is copied, because that takes omegaconf milliseconds.
"""

# ruff: noqa: SLF001 - OmegaConf has no public way to look at a node without resolving it, or to move one.

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_agent.config.nodes import attach, literal

if TYPE_CHECKING:
    from omegaconf import DictConfig, ListConfig

__all__ = [
    "NOW",
    "current",
    "move_to",
    "numbered",
    "raw_text",
    "raw_texts",
    "settle",
    "split",
    "subdir_of",
    "times_in",
    "without_secrets",
    "without_value",
]

#: An interpolation of the time.
NOW = re.compile(r"\$\{now:[^${}]*\}")
#: An absolute interpolation of another key, directly or through `hydra:`.
_REFERENCE = re.compile(r"\$\{(?:hydra:)?([A-Za-z_][\w.]*)\}")
#: Where the values are that must not be in any file.
_ENV = "hydra.launcher.env"
_HOSTS = "hydra.launcher.hosts"


def numbered(config: DictConfig, num: int, job_id: str) -> DictConfig:
    """Set `hydra.job.num` and `hydra.job.id` in the config, and return it."""
    from omegaconf import open_dict, read_write

    with read_write(config.hydra.job), open_dict(config.hydra.job):
        config.hydra.job.num = num
        config.hydra.job.id = job_id
    return config


@contextlib.contextmanager
def current(config: DictConfig) -> Iterator[None]:
    """Within this context, `${hydra:...}` means this config."""
    from hydra.core.hydra_config import HydraConfig

    holder = HydraConfig.instance()
    before, holder.cfg = holder.cfg, config  # type: ignore[assignment]
    try:
        yield
    finally:
        holder.cfg = before


def without_secrets(config: DictConfig) -> None:
    """Remove the values of `hydra.launcher.env`, and of its hosts' `env`, from a config. Their names stay.

    Configs are pickled, and saved beside the results. The values are sent to the agents separately.
    """
    from omegaconf import OmegaConf, flag_override

    launcher = config.hydra.launcher
    if not OmegaConf.is_dict(launcher):
        return
    hosts = OmegaConf.select(launcher, "hosts") or ()
    owners = [one for one in (launcher, *hosts) if OmegaConf.is_dict(one) and one.get("env")]
    if not owners:
        return
    with flag_override(config.hydra, ["readonly", "struct"], [False, False]):
        for owner in owners:
            owner.env = dict.fromkeys(owner.env, "***")
        given = config.hydra.overrides.hydra
        for index, one in enumerate(raw_texts(given)):
            given[index] = without_value(one)


def without_value(override: str) -> str:
    """Return an override without its value if it sets variables for the jobs. The result can still be parsed."""
    key, _, value = override.partition("=")
    name = key.lstrip("+~")
    may_hold_env = f"{_HOSTS}.".startswith(f"{name}.") or name.startswith(f"{_HOSTS}.")
    if not value or not ((may_hold_env and "env" in value + name) or name == _ENV or name.startswith(f"{_ENV}.")):
        return override
    return f"{key}={{}}" if name == _ENV else f"{key}='***'"


def settle(config: DictConfig, output_dir: Path) -> None:
    """Set in the config what the host must not decide again: the value of each `${now:}`, and the local folder."""
    from omegaconf import open_dict, read_write

    _settle_now(config)
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        # The host sets its own folder here. This is the one in the JobReturn's hydra_cfg on the controller.
        config.hydra.runtime.output_dir = literal(str(output_dir))


def _settle_now(config: DictConfig) -> None:
    from omegaconf import AnyNode, OmegaConf

    known = OmegaConf.get_cache(config)["now"]
    for text in {found for value in _texts(config) for found in NOW.findall(value)}:
        if (text[len("${now:") : -1],) in known:
            continue
        # After it is resolved once, the value is in the config's cache, which is sent with the config.
        AnyNode(text, key="_", parent=config)._dereference_node()


def _texts(node: Any) -> Iterator[str]:
    """Yield every text in a config with a `${now:` in it, unresolved."""
    content = node.__dict__.get("_content")
    if isinstance(content, dict):
        for value in content.values():
            yield from _texts(value)
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value)
    else:
        value = content if content is not None else node.__dict__.get("_val")
        if isinstance(value, str) and "${now:" in value:
            yield value


def raw_text(node: DictConfig, key: str) -> str:
    """Return a node's text, unresolved."""
    value = node._get_node(key)
    return str(value._value()) if value is not None else ""


def move_to(config: DictConfig, mode: str, folder: Path) -> None:
    """Replace the run's folder, `hydra.run.dir` or `hydra.sweep.dir`, with text without interpolations."""
    from omegaconf import flag_override

    with flag_override(config.hydra, ["readonly", "struct"], [False, False]):
        node = config.hydra.run if mode == "RUN" else config.hydra.sweep
        node.dir = literal(str(folder))


def times_in(config: DictConfig, text: str, depth: int = 10) -> list[str]:
    """Return every `${now:...}` that a text refers to, directly or through other keys."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    found = NOW.findall(text)
    for key in _REFERENCE.findall(text) if depth else ():
        parent, _, name = key.rpartition(".")
        try:
            node = OmegaConf.select(config, parent) if parent else config
            if OmegaConf.is_dict(node):
                found += times_in(config, raw_text(node, name), depth - 1)
        except (OmegaConfBaseException, AttributeError):
            continue  # an error is shown when it is resolved
    return found


def raw_texts(node: ListConfig) -> list[str]:
    """Return a list of texts, unresolved, because an override such as `key='${oc.env:NAME}'` must not be looked up
    here.
    """
    from omegaconf import OmegaConf

    texts: Any = OmegaConf.to_container(node, resolve=False)
    return [str(one) for one in texts]


def subdir_of(config: DictConfig, num: int) -> str:
    """Return `hydra.sweep.subdir`. Hydra's own default needs no parser."""
    if raw_text(config.hydra.sweep, "subdir") == "${hydra.job.num}":
        return str(num)
    return str(config.hydra.sweep.subdir)


def split(config: DictConfig) -> DictConfig:
    """Move the `hydra` node out of a config into its own config, as in Hydra's JobReturn."""
    from omegaconf import DictConfig, OmegaConf

    node = config.__dict__["_content"].pop("hydra")
    shell = DictConfig({})
    OmegaConf.copy_cache(from_config=config, to_config=shell)
    attach(shell, "hydra", node)
    return shell
