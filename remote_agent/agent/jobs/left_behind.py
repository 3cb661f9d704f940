"""Finds files of an output directory that leftover processes of its job still change. It looks before they are killed.

Rule: this is only reported, and decides nothing. It costs little, however large the directory is, and nothing if no process was
left behind.
"""

import os
from typing import Iterable, Iterator, List, Set

__all__ = ["still_changing"]

#: How many files are named, and how many entries of the directory are checked.
_MAX_NAMED = 20
_MAX_LOOKED_AT = 5000
_WRITES = os.O_WRONLY | os.O_RDWR


def still_changing(folder: str, since: float, pids: Iterable[int]) -> List[str]:
    """Return the files below a folder that these processes have open for writing, or that have changed since then.

    Args:
        since: seconds since the epoch, by this machine's clock.

    Returns:
        Paths relative to the folder.
    """
    root = os.path.realpath(folder)
    found: Set[str] = set()
    for pid in pids:
        found.update(_open_for_writing(pid, root))
    for path in _changed(root, since):
        found.add(path)
        if len(found) >= _MAX_NAMED:
            break
    return sorted(found)[:_MAX_NAMED]


def _open_for_writing(pid: int, root: str) -> Iterator[str]:
    """Yield the files that a process has open for writing. Only Linux says this; elsewhere there are only file times."""
    base = "/proc/{}".format(pid)
    try:
        numbers = os.listdir(base + "/fd")
    except OSError:
        return  # it has ended in the meantime, or this is not Linux
    for number in numbers:
        try:
            path = os.readlink("{}/fd/{}".format(base, number))
            if not path.startswith(root + os.sep) or not os.path.isfile(path):
                continue
            with open("{}/fdinfo/{}".format(base, number), encoding="ascii") as file:
                flags = next((line.split()[1] for line in file if line.startswith("flags:")), "0")
        except (OSError, ValueError, IndexError):
            continue  # closed in the meantime
        if int(flags, 8) & _WRITES:
            yield os.path.relpath(path, root)


def _changed(root: str, since: float) -> Iterator[str]:
    looked_at = 0
    for folder, _, names in os.walk(root):
        for name in names:
            looked_at += 1
            if looked_at > _MAX_LOOKED_AT:
                return
            path = os.path.join(folder, name)
            try:
                if os.lstat(path).st_mtime > since:
                    yield os.path.relpath(path, root)
            except OSError:
                continue  # removed in the meantime
