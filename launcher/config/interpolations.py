"""Finds interpolations in a config that cannot resolve on any machine: an unregistered resolver, a missing key.

Rule: nothing is resolved. A resolver may read the host's environment or the clock, and its result would be sent with
the config. So only names are looked up. A value that is still missing (`???`) may be set on the host.
"""

# ruff: noqa: SLF001 - OmegaConf has no public way to look at a node without resolving it.

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from launcher.util.text.near import names_like

__all__ = ["mentions", "unresolved"]

#: `${name:` calls a resolver; `${key}` and `${.key}` refer to a node. A backslash before it makes it plain text.
_RESOLVER = re.compile(r"(?<!\\)\$\{\s*([A-Za-z_][\w]*(?:\.[A-Za-z_][\w]*)*)\s*:")
_REFERENCE = re.compile(r"(?<!\\)\$\{\s*(\.*)([A-Za-z_][\w-]*(?:\.[\w-]+)*)\s*\}")
#: Where the config has the overrides as the user typed them.
_TYPED = ("hydra.overrides.", "hydra.job.override_dirname")
#: Resolvers that Hydra itself registers.
_OF_HYDRA = ("hydra", "now", "python_version")
_UNKNOWN = object()


def unresolved(config: Any, *, without: str | None = None) -> Iterator[str]:
    """Yield a line for each interpolation of a DictConfig or ListConfig that cannot resolve.

    Args:
        without: a top-level key whose node is skipped.
    """
    from omegaconf import OmegaConf
    from omegaconf.basecontainer import BaseContainer

    for node in _nodes(config, without):
        if not node._is_interpolation():
            continue
        text = str(node._value())
        key = node._get_full_key(None)
        if key.startswith(_TYPED):
            continue
        for name in _RESOLVER.findall(text):
            if name not in _OF_HYDRA and not OmegaConf.has_resolver(name):
                near = _near(name, BaseContainer._resolvers)
                yield f"{key}: {text}: there is no resolver {name!r}{near}; register it where the application is imported"
        for dots, path in _REFERENCE.findall(text):
            names = path.split(".")
            if _place_of(config, node, len(dots), names) is None:
                near = _near_path(config, node, len(dots), names)
                yield f"{key}: {text}: the config has no {dots}{path}{near}; set it, or write \\${{...}} for plain text"


def mentions(node: Any, text: str) -> bool:
    """Whether a value of a config has this text, as it is written: nothing is resolved."""
    return any(text in value for one in _nodes(node) if isinstance(value := one._value(), str))


def _nodes(node: Any, without: str | None = None) -> Iterator[Any]:
    from omegaconf import Container, OmegaConf

    yield node
    if not isinstance(node, Container) or node._is_none() or node._is_missing() or node._is_interpolation():
        return
    content = node._content
    children = [child for key, child in content.items() if key != without] if OmegaConf.is_dict(node) else content
    for child in list(children):
        yield from _nodes(child)


def _near(name: str, names: Iterable[str]) -> str:
    near = names_like(name, list(names))
    return f" (did you mean {near[0]!r}?)" if near else ""


def _near_path(config: Any, node: Any, dots: int, path: list[str]) -> str:
    """Return the path that may have been meant. It has another key in place of the first missing one."""
    for length in range(len(path)):
        content = getattr(_place_of(config, node, dots, path[:length]), "_content", None)
        if not isinstance(content, dict):
            return ""
        keys = [str(key) for key in content]
        if path[length] not in keys:
            near = names_like(path[length], keys)
            return f" (did you mean {'.'.join([*path[:length], *near, *path[length + 1 :]])!r}?)" if near else ""
    return ""


def _place_of(config: Any, node: Any, dots: int, path: list[str]) -> Any:
    """Return the node at that path; None if there is none, and _UNKNOWN if it cannot be known without resolving."""
    from omegaconf import Container, OmegaConf

    place = config
    if dots:
        place = node._get_parent()
        for _ in range(dots - 1):
            place = place._get_parent() if place is not None else None
    else:
        place = config._get_root()
    for part in path:
        if place is None:
            return None
        if place._is_interpolation() or place._is_missing():
            return _UNKNOWN
        if not isinstance(place, Container) or place._is_none():
            return None
        if OmegaConf.is_list(place):
            place = place._content[int(part)] if part.isdigit() and int(part) < len(place._content) else None
        else:
            place = _child(place, part)
    return place


def _child(node: Any, name: str) -> Any:
    content = node._content
    if name in content:
        return content[name]
    # Keys may be numbers, booleans or enum members. In a path they are text.
    for key, child in content.items():
        if str(key) == name or getattr(key, "name", None) == name:
            return child
    return None
