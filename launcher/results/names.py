"""Checks the names that a host gives to files, folders and links in an output directory, without reading the disk.

Rule: a name is refused if it leads out of the directory, may lead out, or is reserved for us.
"""

from __future__ import annotations

import os
import unicodedata

from launcher.hosts.limits import limit
from launcher.results.owners import OWN, job_name
from launcher.results.writing import RefusedFile

__all__ = ["MAX_PATH", "beside", "check_path", "goal_of", "is_own"]

_MAX_NAME = limit("file_name")
_MAX_DEPTH = limit("file_depth")
#: Bytes of a path, or of a link's target.
MAX_PATH = limit("file_path")


def check_path(path: str) -> None:
    """Check that a path names something below the output directory, and nothing of ours.

    Raises:
        RefusedFile: it names something else.
    """
    parts = path.split("/")
    if not path or path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise RefusedFile("its path leads out of the output directory")
    if any(is_own(part) for part in parts):
        raise RefusedFile(f"the name {OWN} is reserved for the launcher")
    try:
        names = [part.encode("utf-8") for part in parts]
    except UnicodeEncodeError:
        raise RefusedFile("its name is not text") from None
    if any(len(name) > _MAX_NAME for name in names) or len(path) > MAX_PATH:
        raise RefusedFile("its name is too long")
    if len(parts) > _MAX_DEPTH:
        raise RefusedFile(f"more than {_MAX_DEPTH} folders deep")


def beside(path: str, num: int) -> str:
    """Return another name for a job's file, because another job has a file with its name. The extension stays."""
    folder, slash, name = path.rpartition("/")
    stem, extension = os.path.splitext(name)
    return f"{folder}{slash}{stem}.{job_name(num)}{extension}"


def is_own(name: str) -> bool:
    """Whether it is the name of our folder, also to a disk that ignores case or characters without a width."""
    if name.isascii():
        return name.casefold() == OWN
    visible = "".join(one for one in name if unicodedata.category(one) not in ("Cf", "Mn", "Cc"))
    return unicodedata.normalize("NFKC", visible).casefold() == OWN


def goal_of(path: str, text: str) -> list[str]:
    """Return the components of a link's target, relative to the output directory.

    Raises:
        RefusedFile: it leads out, or may lead out.
    """
    parts = [part for part in text.split("/") if part not in ("", ".")]
    place = path.split("/")[:-1]
    up = 0
    while up < len(parts) and parts[up] == "..":
        up += 1
    if not text or text.startswith("/") or "\0" in text or up > len(place) or ".." in parts[up:]:
        raise RefusedFile("a link out of the output directory")
    try:
        is_long = len(text.encode("utf-8")) > MAX_PATH
    except UnicodeEncodeError:
        raise RefusedFile("a link to a name that is not text") from None
    if is_long or len(parts) > _MAX_DEPTH:
        raise RefusedFile("a link to a name that is too long")
    return place[: len(place) - up] + parts[up:]
