"""A Hydra job's config on its way to a host: numbered, with what must not be decided anew put in and what is secret taken out.

Rule: nothing is resolved that is not asked for here by name; a copy is made of nothing, for omegaconf takes milliseconds.
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
#: An interpolation of another key, absolute, by itself or through `hydra:`.
_REFERENCE = re.compile(r"\$\{(?:hydra:)?([A-Za-z_][\w.]*)\}")
#: Where the values that no file may hold are.
_ENV = "hydra.launcher.env"
_HOSTS = "hydra.launcher.hosts"


def numbered(config: DictConfig, num: int, job_id: str) -> DictConfig:
    """The config with `hydra.job.num` and `hydra.job.id` set."""
    from omegaconf import open_dict, read_write

    with read_write(config.hydra.job), open_dict(config.hydra.job):
        config.hydra.job.num = num
        config.hydra.job.id = job_id
    return config


@contextlib.contextmanager
def current(config: DictConfig) -> Iterator[None]:
    """While entered, `${hydra:...}` means this config."""
    from hydra.core.hydra_config import HydraConfig

    holder = HydraConfig.instance()
    before, holder.cfg = holder.cfg, config  # type: ignore[assignment]
    try:
        yield
    finally:
        holder.cfg = before


def without_secrets(config: DictConfig) -> None:
    """Take the values of `hydra.launcher.env`, and of the `env` of its hosts, out of a config; their names stay.

    Configs are saved beside the results and pickled; the values travel to the agents on a way of their own.
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
    """An override without its value, if it sets variables for the jobs; it can still be parsed."""
    key, _, value = override.partition("=")
    name = key.lstrip("+~")
    may_hold_env = f"{_HOSTS}.".startswith(f"{name}.") or name.startswith(f"{_HOSTS}.")
    if not value or not ((may_hold_env and "env" in value + name) or name == _ENV or name.startswith(f"{_ENV}.")):
        return override
    return f"{key}={{}}" if name == _ENV else f"{key}='***'"


def settle(config: DictConfig, output_dir: Path) -> None:
    """Put into the config what the host must not decide anew: the value of each `${now:}`, and the local folder."""
    from omegaconf import open_dict, read_write

    _settle_now(config)
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        # The host puts its own folder here; this is what the JobReturn's hydra_cfg says on the controller.
        config.hydra.runtime.output_dir = literal(str(output_dir))


def _settle_now(config: DictConfig) -> None:
    from omegaconf import AnyNode, OmegaConf

    known = OmegaConf.get_cache(config)["now"]
    for text in {found for value in _texts(config) for found in NOW.findall(value)}:
        if (text[len("${now:") : -1],) in known:
            continue
        # Resolving it once leaves the value in the config's cache, which travels with it.
        AnyNode(text, key="_", parent=config)._dereference_node()


def _texts(node: Any) -> Iterator[str]:
    """Every text in a config that holds a `${now:`, unresolved."""
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
    """A node's text, unresolved."""
    value = node._get_node(key)
    return str(value._value()) if value is not None else ""


def move_to(config: DictConfig, mode: str, folder: Path) -> None:
    """Put another folder in the place of the run's: `hydra.run.dir` or `hydra.sweep.dir`, as a text that refers to nothing."""
    from omegaconf import flag_override

    with flag_override(config.hydra, ["readonly", "struct"], [False, False]):
        node = config.hydra.run if mode == "RUN" else config.hydra.sweep
        node.dir = literal(str(folder))


def times_in(config: DictConfig, text: str, depth: int = 10) -> list[str]:
    """Every `${now:...}` that a text refers to, directly or through other keys."""
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
            continue  # what does not resolve is told when it is resolved
    return found


def raw_texts(node: ListConfig) -> list[str]:
    """A list of texts, unresolved: an override such as `key='${oc.env:NAME}'` is not for this machine to look up."""
    from omegaconf import OmegaConf

    texts: Any = OmegaConf.to_container(node, resolve=False)
    return [str(one) for one in texts]


def subdir_of(config: DictConfig, num: int) -> str:
    """`hydra.sweep.subdir`; Hydra's own default is known without a parser."""
    if raw_text(config.hydra.sweep, "subdir") == "${hydra.job.num}":
        return str(num)
    return str(config.hydra.sweep.subdir)


def split(config: DictConfig) -> DictConfig:
    """Take the `hydra` node out of a config and give it a config of its own, as Hydra's JobReturn has them."""
    from omegaconf import DictConfig, OmegaConf

    node = config.__dict__["_content"].pop("hydra")
    shell = DictConfig({})
    OmegaConf.copy_cache(from_config=config, to_config=shell)
    attach(shell, "hydra", node)
    return shell
