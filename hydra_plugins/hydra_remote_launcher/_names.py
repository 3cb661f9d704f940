"""Whose `launcher` and `remote_agent` Python finds: ours, or modules of these names that the user's project has.

Rule: the names of a project are its own, and Python takes what is first on `sys.path`. Where that is not ours, nothing is
begun, and the message says which folder it is. Imports nothing of ours: it could not be found.
"""

from __future__ import annotations

import importlib.util
import os
import sys

__all__ = ["in_front"]

_OURS = ("launcher", "remote_agent")
_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def in_front() -> str:
    """What stands in front of our modules and what to do about it; empty where nothing does."""
    for name in _OURS:
        file = _found(name)
        ours = os.path.join(_HOME, name, "__init__.py")
        if file and os.path.realpath(file) != os.path.realpath(ours):
            return _told(name, file)
    return ""


def _told(name: str, file: str) -> str:
    folder = os.path.dirname(os.path.dirname(file) if os.path.basename(file) == "__init__.py" else file)
    return (
        f"{file} has the name {name!r}, which is also that of hydra-remote-launcher's own package, and stands in front of it: "
        f"{folder} comes first on sys.path. Rename it, or move it into a package (mypackage/{name})"
    )


def _found(name: str) -> str | None:
    """The file that `import NAME` gives, or gave."""
    module = sys.modules.get(name)
    if module is not None:
        return getattr(module, "__file__", None)
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    # A folder without an `__init__.py` stands behind every package.
    return spec.origin if spec is not None and spec.has_location else None
