"""Modules: under which name a host imports what runs as `__main__`, and which modules a host can have at all.

Rule: there is one answer to whether a file is installed. What is installed belongs to no project: it is not sent, and it gives
`__main__` no name.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["is_installed", "main_module_name", "out_of_reach"]

_OURS = ("launcher", "remote_agent", "hydra_plugins")


def main_module_name() -> str | None:
    """The name under which a host can import what runs as `__main__`.

    `my_app` for `python my_app.py`, `package.app` for `python -m package.app`. None for a notebook, a prompt, `python -c`,
    and for an installed program, such as pytest or this launcher: that is not the user's own code.
    """
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if not file or not os.path.isfile(file) or is_installed(file):
        return None
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name and spec.name != "__main__":
        return None if spec.name.partition(".")[0] in _OURS else str(spec.name)
    path = Path(file)
    return path.stem if path.suffix == ".py" and "." not in path.stem else None


@functools.cache
def is_installed(file: str) -> bool:
    """Whether a file belongs to the standard library or to an installed package, and not to the user's project.

    The command of an installed package, in the environment's `bin`, is installed, too.
    """
    path = os.path.realpath(file)
    if any(part in ("site-packages", "dist-packages") for part in path.split(os.sep)):
        return True
    paths = sysconfig.get_paths()
    return any(_is_below(path, os.path.realpath(paths[name])) for name in ("stdlib", "scripts"))


def out_of_reach(modules: Iterable[str], is_sent: Callable[[str], bool]) -> list[tuple[str, str]]:
    """(module, file) of those modules that are neither in the snapshot nor installed, so that no host can have them.

    A module of an installed distribution may be installed on the host, too, even if it is an editable install here.

    Args:
        modules: names, as in `Dumped.modules`.
        is_sent: says whether a file is in the snapshot.
    """
    found = []
    for name in sorted(set(modules)):
        file = getattr(sys.modules.get(name), "__file__", None)
        top = name.partition(".")[0]
        if not file or top in _OURS or is_installed(file) or is_sent(file) or _is_editable(file):
            continue
        found.append((name, file))
    return found


def _is_editable(file: str) -> bool:
    """Whether a file belongs to a distribution that is installed in place."""
    path = os.path.realpath(file)
    return any(_is_below(path, folder) for folder in _editable_projects())


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder + os.sep)


@functools.cache
def _editable_projects() -> frozenset[str]:
    """The folders of the projects that are installed in place (`direct_url.json`, as the packaging specifications define it)."""
    from importlib import metadata
    from urllib.parse import unquote

    found = set()
    for distribution in metadata.distributions():
        try:
            origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        except (OSError, ValueError):
            continue  # nothing is known of a broken distribution
        if origin.get("dir_info", {}).get("editable") and str(origin.get("url", "")).startswith("file://"):
            found.add(os.path.realpath(unquote(str(origin["url"]).removeprefix("file://"))))
    return frozenset(found)
