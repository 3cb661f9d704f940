"""Whether the kernel has killed a process of this allocation because of its memory: its own count of that, in cgroup v1 and v2.

Rule: the count tells how many were killed, and not which. So a job that SIGKILL has ended counts as one of them if the count has risen since it
began, and no other job has been counted for it. Where there is no such count, nobody knows.
"""

import os
import re
from typing import Dict, List, Optional, Tuple

__all__ = ["MemoryDeaths", "counters"]

_KILLS = re.compile(r"^oom_kill ([0-9]+)$", re.MULTILINE)
_ESCAPED = re.compile(r"\\([0-7]{3})")


class MemoryDeaths:
    """Follows the count. `files`: those that hold it; those of this process if None."""

    def __init__(self, files: Optional[List[str]] = None) -> None:
        self._files = counters() if files is None else files
        #: Attempt -> the count when it began.
        self._before: Dict[str, int] = {}
        self._first = self._count()
        self._counted = 0

    def began(self, attempt: str) -> None:
        """A job begins."""
        self._before[attempt] = self._count()

    def was_one(self, attempt: str) -> bool:
        """Whether a job that SIGKILL has ended is one of those that were killed because of their memory."""
        count = self._count()
        is_new = count > self._before.pop(attempt, count) and count - self._first > self._counted
        self._counted += is_new
        return is_new

    def _count(self) -> int:
        return max((_read_count(path) for path in self._files), default=0)


def _read_count(path: str) -> int:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            found = _KILLS.search(file.read(1 << 16))
    except OSError:
        return 0  # it is gone with its cgroup, or may not be read
    return int(found.group(1)) if found else 0


def counters(proc: str = "/proc/self") -> List[str]:
    """The files that hold the count of the cgroup in which a process is. `proc`: its folder in /proc."""
    try:
        with open(os.path.join(proc, "cgroup"), encoding="utf-8", errors="surrogateescape") as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
        with open(os.path.join(proc, "mountinfo"), encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return []
    found = []
    for number, controllers, path in (one for one in groups if len(one) == 3):
        is_new = number == "0" and not controllers
        if not is_new and "memory" not in controllers.split(","):
            continue
        name = "memory.events" if is_new else "memory.oom_control"
        for fields in mounts:
            kind, options = _kind_of(fields)
            if (kind == "cgroup2") if is_new else (kind == "cgroup" and "memory" in options):
                root, place = (_unescaped(one) for one in fields[3:5])
                inside = os.path.relpath(path, root)
                if not inside.startswith(".."):
                    found.append(os.path.join(os.path.normpath(os.path.join(place, inside)), name))
    return [one for one in found if os.path.exists(one)]


def _kind_of(mount: List[str]) -> Tuple[str, List[str]]:
    """The file system of a line of mountinfo, and its options."""
    if "-" not in mount:
        return "", []
    rest = mount[mount.index("-") + 1 :]
    return (rest[0], rest[2].split(",")) if len(rest) > 2 else ("", [])


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found.group(1), 8)), text)
