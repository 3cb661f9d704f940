"""Decides which runs are the user's own. Only for these is anything unpickled or imported, or any host asked.

Rule: what a folder says about itself does not count. A run is the user's own if the user's index, which is outside every run's
folder, has the secret that is in the run's journal. So a run that was moved stays ours. A copy of a run that is still there, a folder
from somebody else, and what a host left in an output directory are not ours. `adopt` makes such a folder ours, and only the user may
say so.

A run that an earlier version began has no secret. It is the user's own if the index lists it in this same folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from launcher.errors import RunError, UsageError
from launcher.runs import index
from launcher.runs.index import Entry
from launcher.runs.journal_format import FOLDER
from launcher.runs.journal_reader import JournalReader
from launcher.util.text.terminal_text import clean_line

__all__ = ["KEY", "adopt", "check_ours", "is_ours", "is_ours_renamed", "make_secret"]

#: The secret's key in the journal.
KEY = "secret"


def make_secret() -> str:
    """Return a new secret for a run."""
    return os.urandom(32).hex()


def is_ours(folder: Path) -> bool:
    """Whether the run of this folder is the user's own."""
    return not _doubt(folder)


def check_ours(folder: Path) -> None:
    """Refuse a run that is not known to be the user's own.

    Raises:
        RunError: it is or may be somebody else's. The message says how to adopt it.
    """
    doubt = _doubt(folder)
    if doubt:
        raise RunError(
            f"{clean_line(folder)}: {doubt}. Resuming such a run loads what is in its journal, which can run any code "
            "with your rights, and logs in to the hosts that it names. You can look at it ('launcher show', 'launcher "
            "logs'). Only if you trust whoever "
            f"made the folder, and everybody who could write to it: launcher runs --adopt {clean_line(folder)}"
        )


def is_ours_renamed(own: Path, known: Mapping[str, str]) -> bool:
    """Whether a journal that a later run in its folder has renamed is of the user's own.

    Args:
        own: what its `.launcher` was renamed to.
        known: run -> secret, from journals that are the user's own.
    """
    if _writable_by_others(own):
        return False
    with JournalReader(own) as reader:
        meta = reader.meta()
    run = meta.get("run", "")
    entry = index.look_up(run)
    secret = known.get(run) or (entry.secret if entry is not None else "")
    return bool(secret) and _is_same(secret, meta.get(KEY, ""))


def adopt(folder: Path) -> Entry:
    """Make the run of a folder the user's own.

    Raises:
        RunError: there is no run, others can write to it, or the index has another run with that id.
        UsageError: it is already the user's own, or the index cannot be written.
    """
    entry = index.find(folder)
    place = entry.folder.resolve()
    known = index.look_up(entry.run)
    if is_ours(place):
        raise UsageError(f"run {entry.run} in {place} is yours already")
    problem = _writable_by_others(place / FOLDER)
    if problem:
        raise RunError(problem)
    if known is not None and known.is_there and known.folder.resolve() != place:
        raise RunError(
            f"{place}: you have a run {entry.run} already, in {known.folder}; a copy of it, or another run with its "
            "id, cannot be adopted"
        )
    from launcher.runs.journal import Journal

    secret = make_secret()
    # The journal is locked, so nobody else writes there.
    journal = Journal(place / FOLDER)
    try:
        journal.put_meta(**{KEY: secret})
    finally:
        journal.close()
    adopted = replace(entry, folder=place, secret=secret)
    try:
        index.add(adopted)
    except OSError as error:
        raise UsageError(f"the index cannot be written: {error.filename}: {error.strerror}") from None
    return adopted


def _doubt(folder: Path) -> str:
    """Return why the run of this folder may not be the user's own; empty if it is."""
    problem = _writable_by_others(folder / FOLDER)
    if problem:
        return problem
    meta = _meta(folder)
    entry = index.look_up(meta.get("run", ""))
    if entry is None:
        return "this run is not known to be yours: your index has no run with its id"
    is_at_its_place = os.path.realpath(entry.folder) == os.path.realpath(folder)
    if not entry.secret:
        return (
            ""
            if is_at_its_place
            else "this run is not known to be yours: your index has the run with its id in another folder"
        )
    if not _is_same(entry.secret, meta.get(KEY, "")):
        return "this run is not known to be yours: it does not match what your index has of the run with its id"
    if not is_at_its_place and entry.is_there and _is_same(entry.secret, _meta(entry.folder).get(KEY, "")):
        return f"this is a copy of your run in {clean_line(entry.folder)}, which is still there"
    return ""


def _is_same(one: str, other: str) -> bool:
    import hmac

    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _meta(folder: Path) -> dict[str, str]:
    with JournalReader(folder / FOLDER) as reader:
        return {str(key): str(value) for key, value in reader.meta().items()}


def _writable_by_others(folder: Path) -> str:
    for path, is_kind in ((folder, stat.S_ISDIR), (folder / "journal.sqlite", stat.S_ISREG)):
        try:
            status = path.lstat()
        except OSError as error:
            return f"{clean_line(path)}: {error.strerror}"
        if not is_kind(status.st_mode):
            return f"{clean_line(path)} is a link, or not the kind of file that it should be"
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return f"{clean_line(path)} belongs to another user, or others can write to it"
    return ""
