"""The metadata of the project itself, as `importlib.metadata` reads it: that of its distributions that are installed in place.

Rule: the metadata of an editable install lies in the environment, or in a folder that git ignores, and so would not be sent. What
describes the project (name, version, entry points) is sent with its code. What describes the installation on this machine
(`direct_url.json`, `RECORD`) does not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["FOLDER", "metadata_of"]

#: Its folder in the snapshot, which is the last of the application's folders on `sys.path`.
FOLDER = ".launcher-metadata"
_FILES = ("METADATA", "PKG-INFO", "entry_points.txt", "top_level.txt")
_MAX_SIZE = 1 << 20


def metadata_of(root: Path, names: Collection[str], paths: Sequence[str]) -> list[tuple[str, bytes]]:
    """(path in the snapshot, content) of the metadata of the project's own distributions.

    Args:
        root: the project's folder.
        names: the files that are sent anyway.
        paths: `sys.path` of this process.
    """
    found: dict[str, bytes] = {}
    seen: set[str] = set()
    for path in paths:
        folder = os.path.realpath(path or os.getcwd())
        if folder in seen:
            continue
        seen.add(folder)
        for entry in _distributions(folder):
            # As in an import, the first one on the path counts.
            if not any(name.startswith(f"{FOLDER}/{entry}/") for name in found) and _is_projects(
                root, folder, entry, names
            ):
                found.update(_content(os.path.join(folder, entry), f"{FOLDER}/{entry}"))
    return sorted(found.items())


def _distributions(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                one.name for one in entries if one.name.endswith((".dist-info", ".egg-info")) and one.is_dir()
            )
    except OSError:
        return []


def _is_projects(root: Path, folder: str, entry: str, names: Collection[str]) -> bool:
    """Whether it is installed in place from the project, or lies in the project and would not be sent."""
    where = os.path.join(folder, entry)
    if _is_below(where, str(root)):
        relative = os.path.relpath(where, root)
        return not any(f"{relative}/{name}" in names for name in _FILES)
    if not entry.endswith(".dist-info"):
        return False
    try:
        with open(os.path.join(where, "direct_url.json"), "rb") as file:
            origin = json.loads(file.read(_MAX_SIZE))
        is_editable = bool(origin["dir_info"]["editable"])
        url = urlsplit(origin["url"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    source = os.path.realpath(unquote(url.path))
    return is_editable and url.scheme == "file" and (_is_below(source, str(root)) or _is_below(str(root), source))


def _is_below(path: str, folder: str) -> bool:
    return (path + os.sep).startswith(folder.rstrip(os.sep) + os.sep)


def _content(where: str, name: str) -> dict[str, bytes]:
    found = {}
    for file in _FILES:
        try:
            data = Path(where, file).read_bytes()
        except OSError:
            continue
        if len(data) <= _MAX_SIZE:
            found[f"{name}/{file}"] = data
    return found
