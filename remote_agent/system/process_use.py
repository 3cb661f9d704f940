"""How much CPU time and memory processes use, with all their descendants: from one look at all processes of the host.

Rule: only Linux shows it so cheaply, and elsewhere nothing is known. A process is looked at as it is now: what it was before, and what it left to
nobody when it ended, is not seen.
"""

import os
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional

__all__ = ["ProcessUse", "use_of"]

_ROOT = "/proc"
#: Places in the text of `stat` after the name: state, parent, session, four times, begin, pages.
_PARENT, _SESSION, _TIMES, _STARTED, _PAGES = 1, 3, slice(11, 15), 19, 21


class ProcessUse(NamedTuple):
    """Of a process and its descendants: seconds of CPU time, with those of children that they have waited for; and bytes of resident memory.

    What they share with each other (code, shared memory) counts once, as in the one that has most of it.
    """

    cpu_seconds: float
    memory: int


class _Process(NamedTuple):
    parent: int
    session: int
    started: str
    ticks: int
    pages: int


def use_of(leaders: Mapping[int, str]) -> Dict[int, ProcessUse]:
    """Return what each of these processes uses, with its session and its descendants. `leaders`: pid -> when it began, as `processes.birth` says.

    One that has ended, or whose pid belongs to another process now, is left out.
    """
    known = _all()
    owners: Dict[int, Optional[int]] = {}
    members: Dict[int, List[int]] = {
        pid: [] for pid, started in leaders.items() if pid in known and known[pid].started == started
    }
    for pid in known:
        owner = _owner(pid, known, members, owners)
        if owner is not None:
            members[owner].append(pid)
    per_tick, page = 1.0 / os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    return {
        leader: ProcessUse(sum(known[pid].ticks for pid in pids) * per_tick, _pages(pids, known) * page)
        for leader, pids in members.items()
    }


def _owner(
    pid: int, known: Mapping[int, _Process], members: Mapping[int, List[int]], owners: Dict[int, Optional[int]]
) -> Optional[int]:
    """The leader to which a process belongs; None if it belongs to none."""
    path: List[int] = []
    owner: Optional[int] = None
    while pid in known and pid not in path:
        if pid in owners:
            owner = owners[pid]
            break
        path.append(pid)
        found = pid if pid in members else known[pid].session if known[pid].session in members else None
        if found is not None:
            owner = found
            break
        pid = known[pid].parent
    owners.update(dict.fromkeys(path, owner))
    return owner


def _pages(pids: Iterable[int], known: Mapping[int, _Process]) -> int:
    pids = list(pids)
    if len(pids) == 1:
        return known[pids[0]].pages
    own, shared = 0, 0
    for pid in pids:
        try:
            with open("{}/{}/statm".format(_ROOT, pid), "rb") as file:
                fields = file.read().split()
        except OSError:
            continue  # it has just ended
        if len(fields) > 2:
            own += int(fields[1]) - int(fields[2])
            shared = max(shared, int(fields[2]))
    return own + shared


def _all() -> Dict[int, _Process]:
    found = {}
    try:
        names = os.listdir(_ROOT)
    except OSError:
        return {}
    for name in names:
        if not name.isdigit():
            continue
        try:
            with open("{}/{}/stat".format(_ROOT, name), "rb", buffering=0) as file:
                fields = file.read(4096).rpartition(b")")[2].split()
        except OSError:
            continue  # it has just ended
        if len(fields) > _PAGES:
            found[int(name)] = _Process(
                int(fields[_PARENT]),
                int(fields[_SESSION]),
                fields[_STARTED].decode("ascii"),
                sum(map(int, fields[_TIMES])),
                int(fields[_PAGES]),
            )
    return found
