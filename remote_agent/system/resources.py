"""What a host has for jobs: CPUs and memory, and how much of everything a run's jobs may take.

Rule: it is read from the system, unless the user says it.
"""

import os
from typing import List, Optional, Union

from remote_agent.protocol.specs.resources import Resources, Room

__all__ = ["memory_here", "room_here", "usable_cpu_ids"]

_CGROUPS = "/sys/fs/cgroup"


def usable_cpu_ids() -> List[int]:
    """Return the CPUs that this process may use; empty if the system does not say that."""
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity is not None else []


def memory_here(cgroups: str = _CGROUPS, own: str = "/proc/self/cgroup") -> int:
    """Return the bytes of memory that this process and its children can have; by the machine, and by the limits of their cgroups."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        with open(own, encoding="utf-8") as file:
            folder = next((line[3:].strip() for line in file if line.startswith("0::")), "/")
    except OSError:
        return found  # not Linux
    while True:
        try:
            with open(os.path.join(cgroups, folder.lstrip("/"), "memory.max"), encoding="utf-8") as file:
                text = file.read().strip()
        except OSError:
            text = "max"  # the root has none, or the controller is off
        if text.isdigit():
            found = min(found, int(text))
        if folder in ("/", ""):
            return found
        folder = os.path.dirname(folder)


def room_here(needs: Optional[Resources], has: Resources, slots: Union[int, str, None]) -> Room:
    """Return what a run's jobs may take.

    Args:
        needs: what a job needs that says nothing of itself; None if the run does not say it either.
        has: what there is.
        slots: the user's number of jobs at once; `auto` for one per CPU, if the run does not say what a job needs; None for one per GPU, or
            one without GPUs, then.
    """
    most = slots if isinstance(slots, int) else 0
    if needs is None:
        count = most or (max(has.cpus, 1) if slots == "auto" else has.gpus or 1)
        # More jobs than GPUs share these, and such a job takes none of them for itself.
        needs = Resources(has.gpus // count, has.cpus // count, has.memory // count)
    return Room(has, needs, most)
