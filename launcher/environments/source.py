"""Finds the file with packages that the user named as a run's environment.

Rule: a value that names no such file is refused here, before anything is sent. The message says what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launcher.errors import PackagesError
from launcher.util.text.quoting import shown

__all__ = ["AUTO", "NONE", "SCRIPT", "Source", "find_auto", "find_source", "has_metadata"]

AUTO = "auto"
SCRIPT = "script"
#: Words for no environment.
NONE = "none"
_ALLOWED = (
    "a uv.lock, a pylock.toml, a requirements.txt, a script with a `# /// script` block, `script`, `auto` or `none`"
)
_BLOCK = re.compile(r"(?m)^# /// script$\s(?:^#(?:| .*)$\s)+^# ///$")
#: Files that `auto` takes, in this order.
_FILES: tuple[tuple[str, Literal["uv", "pylock", "requirements"]], ...] = (
    ("uv.lock", "uv"),
    ("pylock.toml", "pylock"),
    ("requirements.txt", "requirements"),
)
_PYLOCK = re.compile(r"pylock(\.[^.]+)?\.toml")
#: How many characters of a script are searched for its block.
_MAX_SCRIPT = 1 << 20


@dataclass(frozen=True)
class Source:
    """A file that describes packages.

    Attributes:
        kind: `uv` (a uv.lock), `pylock`, `requirements` or `script` (PEP 723).
        path: absolute.
    """

    kind: Literal["uv", "pylock", "requirements", "script"]
    path: Path


def find_source(word: str, start: Path | None, script: Path | None) -> Source | None:
    """Return the file that the user's word names; None for `none`.

    Args:
        start: the file or folder of the application.
        script: the script that is started, if there is one.

    Raises:
        PackagesError: there is no such file, or it describes no packages.
    """
    if word == NONE:
        return None
    if word == AUTO:
        found = find_auto(start, script)
        if found is None:
            where = f" in {_folder_of(start)} or above it" if start is not None else ""
            raise PackagesError(
                f"environment: `auto` found no uv.lock, pylock.toml or requirements.txt{where}, and no script block"
            )
        return found
    if word == SCRIPT:
        if script is None or not has_metadata(script):
            what = f"{script} has no `# /// script` block" if script is not None else "no script was started"
            raise PackagesError(f"environment: {what}; `uv add --script FILE PACKAGE` makes one")
        return Source("script", script)
    return _named(word, start)


def _named(word: str, start: Path | None) -> Source:
    path = Path(word).expanduser()
    if not path.is_absolute() and not path.exists() and start is not None:
        # Relative to the project, if it is started from another folder.
        path = next((folder / path for folder in _upward(start) if (folder / path).is_file()), path)
    path = path.absolute()
    if path.is_dir():
        found = _in_folder(path)
        if found is None:
            raise PackagesError(f"environment: {path} has none of uv.lock, pylock.toml and requirements.txt")
        return found
    if not path.is_file():
        raise PackagesError(f"environment: {shown(word)} is not a file here; name {_ALLOWED}")
    name = path.name
    if name == "uv.lock":
        return Source("uv", path)
    if _PYLOCK.fullmatch(name):
        return Source("pylock", path)
    if path.suffix in (".txt", ".in"):
        return Source("requirements", path)
    if path.suffix == ".py" and has_metadata(path):
        return Source("script", path)
    hint = "; `uv lock` makes a uv.lock of it" if name == "pyproject.toml" else ""
    raise PackagesError(f"environment: {path} is not {_ALLOWED}{hint}")


def find_auto(start: Path | None, script: Path | None) -> Source | None:
    """Return what the project has. The nearest folder with such a file counts."""
    for folder in _upward(start) if start is not None else ():
        found = _in_folder(folder)
        if found is not None:
            return found
    return Source("script", script) if script is not None and has_metadata(script) else None


def _in_folder(folder: Path) -> Source | None:
    return next((Source(kind, folder / name) for name, kind in _FILES if (folder / name).is_file()), None)


def _folder_of(start: Path) -> Path:
    start = start.absolute()
    return start if start.is_dir() else start.parent


def _upward(start: Path) -> Iterator[Path]:
    """Yield the application's folder and its parents up to the repository's; without a repository, only that folder."""
    folder = _folder_of(start)
    all_of_them = [folder, *folder.parents]
    top = next((index for index, one in enumerate(all_of_them) if (one / ".git").exists()), 0)
    yield from all_of_them[: top + 1]


def has_metadata(script: Path) -> bool:
    """Whether a script says which packages it needs (PEP 723)."""
    try:
        with script.open(encoding="utf-8", errors="replace") as file:
            return _BLOCK.search(file.read(_MAX_SCRIPT)) is not None
    except OSError:
        return False
