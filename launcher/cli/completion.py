"""What a shell offers at the TAB key: hosts, runs, the words of a choice.

Rule: it only reads, here, and says nothing on stderr; what cannot be read offers nothing. An app and its overrides are left to the
shell, which offers files where nothing is said.
"""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from launcher.util.terminal_text import clean, clean_line

__all__ = ["hosts", "jobs", "runs", "words"]

#: ssh_config(5): the deepest that files may include each other.
_DEPTH = 16
#: Runs that are offered, the latest first.
_RUNS = 30
#: Jobs that are offered; of more the user types the beginning.
_JOBS = 100


def words(*choices: str) -> Callable[[str], list[str]]:
    """Offers these."""

    def offer(incomplete: str) -> list[str]:
        return [one for one in choices if one.startswith(incomplete)]

    return offer


def hosts(incomplete: str) -> list[str]:
    """The names that `~/.ssh/config` has a Host block for; after `USER@`, too."""
    user, at, name = incomplete.rpartition("@")
    found = dict.fromkeys(_aliases(Path("~/.ssh/config").expanduser(), _DEPTH))
    return [f"{user}{at}{one}" for one in found if one.startswith(name)]


def runs(incomplete: str) -> list[tuple[str, str]]:
    """`last` and the latest runs, each with what it is and where."""
    from launcher.runs import index

    found = [entry for entry in index.entries() if entry.is_there]
    offered = [("last", "the latest run")] if found else []
    offered += [(entry.run, clean_line(f"{entry.mode} of {entry.task} in {entry.folder}")) for entry in found[:_RUNS]]
    return [one for one in offered if one[0].startswith(incomplete)]


def jobs(incomplete: str) -> list[tuple[str, str]]:
    """Runs; after `RUN#` its jobs, each with its state and its overrides."""
    name, hash_sign, num = incomplete.rpartition("#")
    if not hash_sign:
        return runs(incomplete)
    from launcher.errors import LauncherError
    from launcher.runs import index
    from launcher.runs.journal import JournalReader
    from launcher.runs.status import read_jobs

    with contextlib.suppress(LauncherError), contextlib.closing(JournalReader(index.find(name).journal)) as reader:
        found = [job for job in read_jobs(reader) if str(job.num).startswith(num)]
        return [(f"{name}#{job.num}", clean(" ".join((job.state, *job.overrides)))) for job in found[:_JOBS]]
    return []


def _aliases(file: Path, depth: int) -> Iterator[str]:
    """Names of Host lines without a pattern, of a file and those that it includes."""
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
