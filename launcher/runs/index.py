"""The list of runs: for each one, a small file in the user's state folder that names the run's local folder.

Rule: the journal in a run's folder is the truth; the index only says where it is. An entry whose folder is gone says so. A run
that is not in the index is still found by its folder.

    $XDG_STATE_HOME/hydra-remote-launcher/index/<run>.json
        {"version": 1, "run", "folder", "started", "mode", "task", "is_reproduction", "secret"}

`secret` is in the run's journal, too, and shows that the run is ours (`launcher.runs.ownership`). An earlier version had none.

A run is named by its id, a prefix that fits only one run, its folder, or `last`: the latest run. `last` leaves out runs of
`reproduce`, so that `last#7` is the same job after it was reproduced.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import field
from pathlib import Path
from typing import Any

from launcher.errors import RunError
from launcher.runs.journal_format import FOLDER
from launcher.util.frozen import frozen
from launcher.util.text.terminal_text import clean_all
from launcher.util.user_folders import state_folder, write_user_file

__all__ = [
    "Entry",
    "RunReference",
    "add",
    "entries",
    "find",
    "index_folder",
    "look_up",
    "new_run_id",
    "parse",
    "remove",
]

VERSION = 1
LAST = "last"
#: How many digits the number of a job may have.
_MAX_DIGITS = 18
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")


@frozen
class Entry:
    """A run in the index. `started` is seconds since the epoch. A job that `reproduce` runs again is a run, too."""

    run: str
    folder: Path
    started: float
    mode: str = ""
    task: str = ""
    is_reproduction: bool = False
    secret: str = field(default="", repr=False)

    @property
    def is_there(self) -> bool:
        """Whether its folder still has its journal."""
        return (self.folder / FOLDER / "journal.sqlite").is_file()

    @property
    def journal(self) -> Path:
        """The folder with its journal."""
        return self.folder / FOLDER


@frozen
class RunReference:
    """The run, or job, that the user named as `RUN` or `RUN#NUM`."""

    entry: Entry
    num: int | None = None


def new_run_id() -> str:
    """Return a new run's id: the time, and six hex digits."""
    return time.strftime("%Y%m%d-%H%M%S-") + os.urandom(3).hex()


def index_folder() -> Path:
    """Return the folder of the entries. The first `add` makes it."""
    return state_folder() / "index"


def add(entry: Entry) -> None:
    """Put a run into the index.

    Raises:
        OSError: the state folder cannot be written. The run can still be named by its folder.
    """
    content = {
        "version": VERSION,
        "run": entry.run,
        "folder": str(entry.folder),
        "started": entry.started,
        "mode": entry.mode,
        "task": entry.task,
        "is_reproduction": entry.is_reproduction,
        "secret": entry.secret,
    }
    write_user_file(_path(entry.run), json.dumps(content).encode())


def remove(run: str) -> None:
    """Remove a run from the index. Nothing else is changed."""
    _path(run).unlink(missing_ok=True)


def look_up(run: str) -> Entry | None:
    """Return the entry of the run with exactly this id, wherever its folder is."""
    return _read(_path(run)) if _RUN.fullmatch(run) else None


def entries() -> list[Entry]:
    """Return all runs of the index, the latest first. Other files are ignored."""
    found = []
    folder = index_folder()
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    for name in names:
        if name.endswith(".json") and not name.startswith("."):
            entry = _read(folder / name)
            if entry is not None:
                found.append(entry)
    return sorted(found, key=lambda entry: (entry.started, entry.run), reverse=True)


def find(reference: str | os.PathLike[str]) -> Entry:
    """Return the run that an id, a prefix of one, a folder, or `last` names.

    Raises:
        RunError: there is no such run, or there are several.
    """
    text = os.fspath(reference)
    if text == LAST:
        for entry in entries():
            if entry.is_there and not entry.is_reproduction:
                return entry
        raise RunError("there is no last run: the index is empty (a run can be named by its folder, too)")
    if _RUN.fullmatch(text):
        exact = _read(_path(text))
        if exact is not None:
            return _there(exact)
        matching = [entry for entry in entries() if entry.run.startswith(text)]
        if len(matching) == 1:
            return _there(matching[0])
        if matching and not _is_run_folder(Path(text)):
            names = ", ".join(entry.run for entry in matching[:5])
            raise RunError(f"{text!r} fits {len(matching)} runs: {names}{', ...' if len(matching) > 5 else ''}")
    folder = Path(text).expanduser()
    for candidate in (folder, folder.parent):
        # The folder of one of its jobs, or .launcher itself, is clear enough.
        if _is_run_folder(candidate):
            return _of_folder(candidate.absolute())
    raise RunError(
        f"no run {text!r}: neither an id that the index knows ('launcher runs'), nor a folder that holds a run"
    )


def parse(text: str) -> RunReference:
    """Find the run of `RUN` or `RUN#NUM`. A text that is the name of an existing folder names that folder, even with a `#`.

    Raises:
        RunError: there is no such run, or NUM is not a number.
    """
    run, hash_sign, num = text.rpartition("#")
    if not hash_sign or _is_in_run_folder(text):
        return RunReference(find(text))
    if not (num.isascii() and num.isdecimal() and len(num) <= _MAX_DIGITS):
        raise RunError(f"{text[:200]!r}: {num[:50]!r} is not the number of a job; write RUN#NUM")
    return RunReference(find(run), int(num))


def _path(run: str) -> Path:
    if not _RUN.fullmatch(run):
        raise RunError(f"{run!r} is not the name of a run")
    return index_folder() / f"{run}.json"


def _read(path: Path) -> Entry | None:
    try:
        content: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("version") != VERSION:
        return None
    try:
        return Entry(
            str(content["run"]),
            Path(content["folder"]),
            float(content["started"]),
            str(content.get("mode", "")),
            str(content.get("task", "")),
            bool(content.get("is_reproduction", False)),
            str(content.get("secret", "")),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _there(entry: Entry) -> Entry:
    if not entry.is_there:
        raise RunError(
            f"run {entry.run}: its folder {entry.folder} is gone, and its journal with it; "
            "if it was moved, name the new folder; 'launcher clean' removes such runs from the list"
        )
    return entry


def _is_in_run_folder(text: str) -> bool:
    """Whether this folder exists and belongs to a run, or to a job of one."""
    folder = Path(text).expanduser()
    return os.path.isdir(folder) and any(map(_is_run_folder, (folder, folder.parent)))


def _is_run_folder(folder: Path) -> bool:
    return (folder / FOLDER / "journal.sqlite").is_file()


def _of_folder(folder: Path) -> Entry:
    from launcher.runs.journal_reader import JournalReader

    with JournalReader(folder / FOLDER) as reader:
        meta, started = reader.meta(), reader.number("started", 0)
    if "run" not in meta:
        raise RunError(f"{folder}: its journal names no run, so the run died before it began")
    meta = clean_all(meta)
    return Entry(meta["run"], folder, started, meta.get("mode", ""), meta.get("task_name", ""))
