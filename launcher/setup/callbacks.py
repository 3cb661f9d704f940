"""Builds the callbacks of a run, once, from the nodes of the config and from what was given.

Rule: an object that is not a callback is refused by name. A class that only hosts can import remains a spec, and the
run warns of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from launcher.errors import CallbackError, ConfigError
from launcher.options import LaunchConf
from launcher.util.text.quoting import shown
from remote_agent.callbacks.base import HOOKS
from remote_agent.callbacks.composite import Callbacks, Entry
from remote_agent.config.nodes import is_config
from remote_agent.hydra.compat import instantiate

__all__ = ["build_callbacks", "callback_nodes", "only_on_hosts"]


def _is_import_error(error: BaseException) -> bool:
    return isinstance(error, ImportError)


def build_callbacks(
    nodes: dict[str, Any],
    given: Iterable[Any],
    options: LaunchConf,
    *,
    is_missing: Callable[[BaseException], bool] = _is_import_error,
) -> Callbacks:
    """Build the composite callback: those of the config, in its order, then those that were given.

    Args:
        given: callbacks, or entries of those that only hosts build.
        is_missing: whether an error of an import means that only hosts can build the callback; an ImportError always does.

    Raises:
        CallbackError: one of them is not a callback, or cannot be built.
    """
    policies = dict(options.on_error)
    entries = [_entry(name, node, policies.get(name), is_missing) for name, node in nodes.items()]
    names = {entry.name for entry in entries}
    if not isinstance(given, Iterable):
        raise CallbackError(f"callbacks: {shown(given)} is not a list of callbacks")
    for callback in given:
        if isinstance(callback, Entry):
            name = _free(callback.name, names)
            entries.append(callback._replace(name=name, on_error=policies.get(name)))
            continue
        if isinstance(callback, type) or not any(callable(getattr(callback, hook, None)) for hook in HOOKS):
            raise CallbackError(
                f"{callback!r} is not a callback: it has none of {', '.join(HOOKS)}"
                + (" (a class was given; give an instance)" if isinstance(callback, type) else "")
            )
        name = _free(type(callback).__name__, names)
        entries.append(Entry(name, callback, policies.get(name)))
    unknown = [name for name in policies if name not in names]
    if unknown:
        known = ", ".join(sorted(names)) or "none"
        raise CallbackError.of_option("on_error", f" names {unknown[0]!r}; the callbacks are {known}")
    try:
        return Callbacks(entries)
    except ValueError as error:
        raise CallbackError(str(error)) from error


def _free(base: str, names: set[str]) -> str:
    """A name that no callback has; it is taken from now on."""
    name, number = base, 2
    while name in names:
        name, number = f"{base}_{number}", number + 1
    names.add(name)
    return name


def only_on_hosts(name: str, spec: dict[str, Any], policy: str | None, error: BaseException) -> Entry:
    """A callback whose class cannot be imported here. Its hooks on hosts fire."""
    note = f"callback {name!r}: its class cannot be imported here ({error}); its controller hooks are off"
    return Entry(name, None, policy, spec, note)


def _entry(name: str, node: Any, policy: str | None, is_missing: Callable[[BaseException], bool]) -> Entry:
    """Build a callback of the config. If its class cannot be imported here, only hosts build it."""
    if not isinstance(node, dict) or "_target_" not in node:
        raise CallbackError(f"hydra.callbacks.{name}: it has no _target_")
    try:
        made = instantiate(node)
    except Exception as error:
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__  # type: ignore[assignment]
        if isinstance(cause, ImportError) or is_missing(cause):
            return only_on_hosts(name, node, policy, cause)
        raise CallbackError(f"hydra.callbacks.{name}: {error}") from error
    problem = getattr(made, "problem_in_config", None)
    why = problem(node) if callable(problem) else ""
    if why:
        raise CallbackError(f"hydra.callbacks.{name}: {why}")
    return Entry(name, made, policy, node)


def callback_nodes(config: Any) -> dict[str, Any]:
    """Return the `hydra.callbacks` mapping of a config as plain data.

    Raises:
        CallbackError: it is not a mapping.
        ConfigError: the `hydra` node is not a mapping.
    """
    if config is None:
        return {}
    if isinstance(config, dict):
        hydra = config.get("hydra")
        if hydra is not None and not isinstance(hydra, Mapping) and not is_config(hydra):
            raise ConfigError(f"the config's hydra node is {shown(hydra)}, not a mapping")
        node = (hydra or {}).get("callbacks")
    elif is_config(config):
        from omegaconf import OmegaConf

        node = OmegaConf.select(config, "hydra.callbacks") if OmegaConf.is_dict(config) else None
    else:
        return {}
    if node is None:
        return {}
    plain: Any = node
    if is_config(node):
        from omegaconf import OmegaConf

        plain = OmegaConf.to_container(node, resolve=True)
    if not isinstance(plain, Mapping):
        raise CallbackError(f"hydra.callbacks: {shown(plain)} is not a mapping of names to callbacks")
    return {str(key): value for key, value in plain.items() if value is not None}
