"""Checks which `launcher` and `remote_agent` Python finds: ours, or modules of the user's project with the same names.

Rule: a project chooses its own names, and Python imports what is first on `sys.path`. If that is not ours, nothing is
started, and the message names the folder. This module imports nothing of ours, which Python might not find.
"""

from __future__ import annotations

import os
import sys

__all__ = ["in_front"]

_OURS = ("launcher", "remote_agent")
_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def in_front() -> str:
    """Which module Python finds instead of ours, and what to do about it; empty if it finds ours."""
    for name in _OURS:
        file = _found(name)
        ours = os.path.join(_HOME, name, "__init__.py")
        if file and os.path.realpath(file) != os.path.realpath(ours):
            return _message(name, file)
    return ""


def _message(name: str, file: str) -> str:
    folder = os.path.dirname(os.path.dirname(file) if os.path.basename(file) == "__init__.py" else file)
    return (
        f"{file} has the same name as hydra-remote-launcher's own package {name!r}, and Python finds it first: "
        f"{folder} comes first on sys.path. Rename it, or move it into a package (mypackage/{name})"
    )


def _found(name: str) -> str | None:
    """The file that `import NAME` loads, or has loaded."""
    module = sys.modules.get(name)
    if module is not None:
        return getattr(module, "__file__", None)
    for finder in sys.meta_path:
        # As `importlib.util.find_spec` does, whose import takes longer than all else that is needed to find a waiting process.
        spec = finder.find_spec(name, None)
        if spec is not None:
            # A folder without an `__init__.py` comes after every package.
            return spec.origin if spec.has_location else None
    return None
