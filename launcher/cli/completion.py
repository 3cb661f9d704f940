"""What a shell offers at the TAB key: hosts, runs, jobs, and the words of a choice.

Rule: it only reads local files and prints nothing on stderr; for what cannot be read it offers nothing. It offers nothing for an app and its
overrides, so the shell offers files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from launcher.util.text.terminal_text import clean, clean_line

__all__ = ["hosts", "jobs", "runs", "words"]

#: How deep files may include each other; see ssh_config(5).
_DEPTH = 16
#: Runs that are offered, the latest first.
_RUNS = 30
#: Jobs that are offered; if there are more, the user types the first digits.
_JOBS = 100


def words(*choices: str) -> Callable[[str], list[str]]:
    """Offer these words."""

    def offer(incomplete: str) -> list[str]:
        return [one for one in choices if one.startswith(incomplete)]

    return offer


def hosts(incomplete: str) -> list[str]:
    """The names that `~/.ssh/config` has a Host block for; after `USER@`, too."""
    user, at, name = incomplete.rpartition("@")
    found = dict.fromkeys(_aliases(Path("~/.ssh/config").expanduser(), _DEPTH))
    return [f"{user}{at}{one}" for one in found if one.startswith(name)]


def runs(incomplete: str) -> list[tuple[str, str]]:
    """`last` and the latest runs, each with its task and its folder."""
    from launcher.runs import index

    found = [entry for entry in index.entries() if entry.is_there]
    offered = [("last", "the latest run")] if found else []
    offered += [(entry.run, clean_line(f"{entry.mode} of {entry.task} in {entry.folder}")) for entry in found[:_RUNS]]
    return [one for one in offered if one[0].startswith(incomplete)]


def jobs(incomplete: str) -> list[tuple[str, str]]:
    """Runs; after `RUN#` the jobs of that run, each with its state and its overrides."""
    name, hash_sign, num = incomplete.rpartition("#")
    if not hash_sign:
        return runs(incomplete)
    from launcher.errors import LauncherError
    from launcher.runs import index
    from launcher.runs.journal import JournalReader
    from launcher.runs.status import read_jobs

    with contextlib.suppress(LauncherError), JournalReader(index.find(name).journal) as reader:
        found = [job for job in read_jobs(reader) if str(job.num).startswith(num)]
        return [(f"{name}#{job.num}", clean(" ".join((job.state, *job.overrides)))) for job in found[:_JOBS]]
    return []


def _aliases(file: Path, depth: int) -> Iterator[str]:
    """The names in Host lines that are not patterns, in a file and the files that it includes."""
    import glob

    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        keyword, _, value = line.strip().replace("=", " ", 1).partition(" ")
        if keyword.lower() == "host":
            yield from (name for name in value.split() if not set(name) & set('*?!"'))
        elif keyword.lower() == "include" and depth:
            for pattern in value.split():
                included = os.path.join(file.parent, os.path.expanduser(pattern.strip('"')))
                for path in sorted(glob.glob(included)):
                    yield from _aliases(Path(path), depth - 1)
