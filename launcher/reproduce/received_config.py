"""Reads the YAML of an output directory as data, because a host or the sender of the folder wrote it.

Rule: nothing is imported, built, resolved or looked up for it. Only plain words of its `hydra` node are kept.
Everything that would choose a place to write to, a variable, a logging class or a callback comes from Hydra's own
defaults instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.errors import UsageError
from launcher.util.text.terminal_text import clean, clean_line
from launcher.util.untrusted_files import read_regular
from remote_agent.hydra.compat import minimal_hydra_node

__all__ = ["callbacks_of", "hydra_node", "read"]

#: Bytes of one file.
MAX_BYTES = 4 << 20
MAX_DEPTH = 100
#: Keys of the `hydra` node that describe the job and choose nothing.
_WORDS = {"job": ("id", "config_name", "override_dirname"), "runtime": ("version", "version_base")}


def read(path: Path) -> Any:
    """Read a config from YAML, without resolving its interpolations.

    Raises:
        UsageError: it cannot be read, or is not what Hydra or we would have written.
    """
    from omegaconf import OmegaConf

    try:
        data = read_regular(path, MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{clean_line(path)}: {error.strerror}") from None
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES >> 20} MiB")
        text = data.decode("utf-8")
        _check_shape(text)
        config = OmegaConf.create(text)
    except Exception as error:  # a parser may raise anything for what somebody made up  # noqa: BLE001
        why = clean(error)[:500] or type(error).__name__
        raise UsageError(f"{clean_line(path)} is not a config that was written for a job: {why}") from None
    if not OmegaConf.is_dict(config):
        raise UsageError(f"{clean_line(path)} is not a config that was written for a job: it is not a mapping")
    return config


def _check_shape(text: str) -> None:
    """Refuse deep nesting and aliases.

    A few aliases can stand for more than fits into memory, and no saved config has one.
    """
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has an alias (*)")  # noqa: TRY004 - of the text, not of a type
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH}")


def callbacks_of(told: Any) -> dict[str, Any]:
    """Return the `_target_` nodes of the callbacks, as plain data."""
    found = _plain(told, "hydra").get("callbacks")
    if not isinstance(found, dict):
        return {}
    return {str(name): node for name, node in found.items() if isinstance(node, dict) and "_target_" in node}


def hydra_node(told: Any, *, name: str, cwd: str) -> Any:
    """Return the `hydra` node of a job that runs again, with what may be kept of the stored one.

    Args:
        told: the content of `hydra.yaml`.
        name: the application's name, which is part of the log's name.
        cwd: the folder in which it is started now.
    """
    from omegaconf import OmegaConf

    said = _plain(told, "hydra")
    overrides = _part(said, "overrides").get("task")
    job, runtime = _part(said, "job"), _part(said, "runtime")
    num = job.get("num")
    kept: dict[str, Any] = minimal_hydra_node(
        name=name,
        cwd=cwd,
        num=num if isinstance(num, int) and not isinstance(num, bool) and num >= 0 else None,
        task_overrides=[str(one) for one in overrides] if isinstance(overrides, list) else [],
        chdir=job.get("chdir") if isinstance(job.get("chdir"), bool) else None,
        verbose=said.get("verbose") is True,
    )
    for part, words in _WORDS.items():
        kept[part].update({word: said[part][word] for word in words if _is_word(_part(said, part).get(word))})
    choices = _part(runtime, "choices")
    kept["runtime"]["choices"] = {str(key): value for key, value in choices.items() if _is_word(value)}
    if "job_logging" not in said:
        # The node of a plain function.
        kept["job"]["chdir"] = bool(kept["job"]["chdir"])
        return kept
    return _whole(kept, OmegaConf)


def _whole(kept: dict[str, Any], omegaconf: Any) -> Any:
    """Add Hydra's own schema and logging."""
    import importlib.resources

    from hydra.conf import HydraConf

    kept["job_logging"] = omegaconf.create(
        importlib.resources.files("hydra.conf").joinpath("hydra/job_logging/default.yaml").read_text(encoding="utf-8")
    )
    kept["hydra_logging"] = {}
    kept["runtime"]["config_sources"] = []
    for empty in ("run", "sweep"):
        del kept[empty]
    if kept["job"]["num"] is None:
        del kept["job"]["num"]
    # Hydra's config groups add keys to this.
    schema = omegaconf.structured(HydraConf, flags={"struct": False})
    return omegaconf.merge(schema, kept)


def _plain(config: Any, key: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(config, resolve=False)
    return _part(found, key)


def _part(node: Any, key: str) -> dict[str, Any]:
    found = node.get(key) if isinstance(node, dict) else None
    return found if isinstance(found, dict) else {}


def _is_word(value: Any) -> bool:
    """Whether it is plain text or a number, without interpolations."""
    return isinstance(value, (str, int, float)) and "${" not in str(value) and str(value) != "???"
