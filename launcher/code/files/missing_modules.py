"""Why a module that an application needs exists here and not on a host, and how to bring it there.

Rule: nothing is imported to find that out. A name that a host sent is looked up only as a path below the folders of `sys.path`.
"""

from __future__ import annotations

import importlib.machinery
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.code.files.snapshot import IGNORE_FILE, Snapshot
from launcher.serialization.modules import is_installed

__all__ = ["explained", "explained_in_job", "why_it_stayed"]

#: Not where a module was found, and has no such name: it is no package, and nothing that could be sent is missing.
_MISSING = re.compile(r"No module named '([\w.]{1,200})'(?!; '[\w.]{1,200}' is not a package)")
_NOT_IN = re.compile(r"cannot import name '(\w{1,100})' from '([\w.]{1,200})'")
#: The exceptions of an import that does not find something.
_OF_IMPORTS = ("ModuleNotFoundError", "ImportError")
#: What helps without packages that are sent.
_ELSE = "install it there, or choose an environment that has it (--python PATH, or a setup line such as `conda activate NAME`)"
_ENDINGS = (*importlib.machinery.SOURCE_SUFFIXES, *importlib.machinery.EXTENSION_SUFFIXES)


def explained(error: Mapping[str, Any], snapshot: Snapshot, way: str = "") -> str:
    """Why an import on a host did not find a module, and how it can come there; empty if that is unknown.

    Args:
        way: how packages can be sent. Without it, only files of the user's own are explained.
    """
    name, file = _missing(str(error.get("message", "")), snapshot)
    if file and not is_installed(file):
        return f"here {name} is {file}; {why_it_stayed(file, snapshot)}"
    if way and file:
        return f"here {name} is {file}, and installed packages are not sent: {way}{_ELSE}"
    if way and name and not any(_files_of(name)):
        return f"{name} is not installed here either: {way}{_ELSE}"
    return ""


def explained_in_job(error: Mapping[str, Any], snapshot: Snapshot, way: str) -> str:
    """The same for an error that a job failed with, if it is an import error, or caused by one."""
    for one in (error, *error.get("causes", ())):
        told = explained(one, snapshot, way) if one.get("type") in _OF_IMPORTS else ""
        if told:
            return told
    return ""


def _missing(message: str, snapshot: Snapshot) -> tuple[str, str]:
    """The module that an error names as missing, and its file here, if that is not sent; else empty."""
    missing, not_in = _MISSING.search(message[:2000]), _NOT_IN.search(message[:2000])
    if missing is not None:
        name = missing.group(1)
    elif not_in is not None:
        name = f"{not_in.group(2)}.{not_in.group(1)}"
    else:
        return "", ""
    return name, next((one for one in _files_of(name) if not snapshot.has_file(one)), "")


def _files_of(name: str) -> Iterator[str]:
    """The files here from which a module could be imported."""
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
    """Why a file is not sent, and what to do about it."""
    root = os.path.realpath(snapshot.root)
    name = os.path.relpath(os.path.realpath(file), root)
    if name.startswith(".."):
        return (
            f"it is outside the project ({root}), so it is not sent: move it into the project, or make it a package "
            "and install that where the jobs run"
        )
    line = "!" + re.sub(r"([*?\[\\])", r"\\\1", name)
    return (
        f"git, a .gitignore or {IGNORE_FILE} ignores it, so it is not sent; to send it, add the line `{line}` at the end of "
        f"{Path(root, IGNORE_FILE)}"
    )
