"""What hosts told of the import of an application, so that the next run of the same code need not import it here.

Rule: a host tells names of packages, and yes or no. Nothing that it tells is composed, resolved, imported or made. A host that lies is
believed in one thing: that this machine need not import the application. What composing needs and does not find leads to that import.

    $XDG_CACHE_HOME/hydra-remote-launcher/imports/<sha256 of the host, the project, the module and the environment>.json
        {"version": 1, "configs", "resolvers", "process", "modules"}
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.util.user_folders import cache_folder, make_user_folder, write_user_file

if TYPE_CHECKING:
    from launcher.code.files.snapshot import Snapshot

__all__ = ["ImportFacts", "has_any", "is_used", "key_of", "look_up", "remember"]

_VERSION = 1
#: Files that are kept; when there are more, the older half goes.
_MAX_KEPT = 2000
_QUESTIONS = ("configs", "resolvers", "process")


class ImportFacts(NamedTuple):
    """What the import of an application does.

    Attributes:
        configs: it puts configs into the ConfigStore.
        resolvers: it registers resolvers.
        process: it changes variables or the working folder of its process.
        modules: the installed packages that it loads.
    """

    configs: bool
    resolvers: bool
    process: bool
    modules: tuple[str, ...] = ()

    @classmethod
    def of(cls, told: Mapping[str, Any], most: int) -> ImportFacts:
        """Check what a host told, or what was stored of it. Of its names, only those of modules are kept, and at most so many.

        Raises:
            ValueError: it has another form.
        """
        answers: dict[str, Any] = {name: told.get(name) for name in _QUESTIONS}
        names = told.get("modules", [])
        if not all(type(answer) is bool for answer in answers.values()) or not isinstance(names, list):
            raise ValueError("what a host told of an import has another form")
        kept = (name for name in names[:most] if isinstance(name, str) and name.isidentifier() and len(name) <= 200)
        return cls(**answers, modules=tuple(kept))


def key_of(host: Mapping[str, Any], project: str, module: str) -> str:
    """The key of what is known of one host, one project and one module.

    Args:
        host: what distinguishes the host and the environment of its jobs, as plain data. It holds no secret.
        project: the hash of the project's content.
    """
    told = json.dumps({"host": host, "project": project, "module": module}, sort_keys=True)
    return f"{project[:32]}-{hashlib.sha256(told.encode()).hexdigest()}"


def is_used() -> bool:
    """Whether anything is known at all."""
    return _folder().is_dir()


def has_any(snapshot: Snapshot) -> bool:
    """Whether something is known of a project with this content, on any host."""
    begin = f"{snapshot.hash[:32]}-"
    try:
        return any(name.startswith(begin) for name in os.listdir(_folder()))
    except OSError:
        return False


def look_up(key: str) -> ImportFacts | None:
    """What is known; None for nothing."""
    try:
        told = json.loads((_folder() / f"{key}.json").read_bytes())
        if not isinstance(told, dict) or told.get("version") != _VERSION:
            return None
        return ImportFacts.of(told, most=_MAX_KEPT)
    except (OSError, ValueError, RecursionError):
        return None


def remember(key: str, facts: ImportFacts) -> None:
    """Keep it for later runs. If that cannot be done, they import the application here."""
    folder = _folder()
    answers = {name: getattr(facts, name) for name in _QUESTIONS}
    content = json.dumps({"version": _VERSION, **answers, "modules": facts.modules})
    with contextlib.suppress(OSError):
        make_user_folder(folder)
        _tidy(folder)
        write_user_file(folder / f"{key}.json", content.encode())


def _folder() -> Path:
    return cache_folder() / "imports"


def _tidy(folder: Path) -> None:
    names = os.listdir(folder)
    if len(names) < _MAX_KEPT:
        return
    files = sorted((folder / name for name in names), key=lambda file: file.stat().st_mtime)
    for file in files[: len(files) // 2]:
        file.unlink(missing_ok=True)
