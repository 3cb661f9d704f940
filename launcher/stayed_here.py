"""Why a module that an application needs is here and not on a host, and what brings it there.

Rule: nothing is imported to find out, and a name that a host tells is looked up only as a path below the folders of `sys.path`.
"""

from __future__ import annotations

import importlib.machinery
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.code_snapshot import IGNORE_FILE, Snapshot
from launcher.pickling import is_installed

__all__ = ["explained", "why_it_stayed"]

_MISSING = re.compile(r"No module named '([\w.]{1,200})'")
_NOT_IN = re.compile(r"cannot import name '(\w{1,100})' from '([\w.]{1,200})'")
_ENDINGS = (*importlib.machinery.SOURCE_SUFFIXES, *importlib.machinery.EXTENSION_SUFFIXES)


def explained(error: Mapping[str, Any], snapshot: Snapshot) -> str:
    """What a failed import of a host misses, where it is here; empty where nothing is known of it."""
    message = str(error.get("message", ""))[:2000]
    missing, not_in = _MISSING.search(message), _NOT_IN.search(message)
    if missing is not None:
        name = missing.group(1)
    elif not_in is not None:
        name = f"{not_in.group(2)}.{not_in.group(1)}"
    else:
        return ""
    file = next((one for one in _files_of(name) if not snapshot.has_file(one)), None)
    if file is None or is_installed(file):
        return ""
    return f"here {name} is {file}; {why_it_stayed(file, snapshot)}"


def _files_of(name: str) -> Iterator[str]:
    """Where a module could be imported from here."""
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if loaded:
        yield str(loaded)
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return
    for folder in sys.path:
        place = os.path.join(os.path.abspath(folder or os.getcwd()), *parts)
        for path in (os.path.join(place, "__init__.py"), *(place + ending for ending in _ENDINGS)):
            if os.path.isfile(path):
                yield path


def why_it_stayed(file: str, snapshot: Snapshot) -> str:
    """Why a file that does not travel does not, and what to do about it."""
    root = os.path.realpath(snapshot.root)
    name = os.path.relpath(os.path.realpath(file), root)
    if name.startswith(".."):
        return (
            f"it lies outside of the project ({root}) and does not travel: move it into the project, or make a package of it "
            "and install that where the jobs run"
        )
    line = "!" + re.sub(r"([*?\[\\])", r"\\\1", name)
    return (
        f"git, a .gitignore or {IGNORE_FILE} ignores it, so it does not travel: the line `{line}` at the end of "
        f"{Path(root, IGNORE_FILE)} brings it"
    )
