"""Divides a host into slots of one size, each with CPUs of its own.

Rule: what a host has is read from the system, unless the user says it. No CPU or byte of memory is in two slots of a run. There are no
more slots than GPUs for them, and which GPUs a job gets is decided when it starts (`remote_agent.agent.gpus`).
"""

import os
from typing import List, Optional, Tuple

from remote_agent.protocol.resources import Resources

__all__ = ["divide", "memory_here", "usable_cpu_ids"]

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


def divide(
    needs: Resources,
    given: Resources,
    gpus: int,
    cpus: List[int],
    cpu_count: int,
    memory: int,
    most: Optional[int],
) -> Tuple[List[List[int]], str]:
    """Return as many slots as fit, each as its CPUs (empty: all), and, if there is none, why.

    Args:
        needs: what each job needs.
        given: what the user says that the host has; 0 for what it says itself.
        gpus: how many GPUs a job of this run can get.
        cpus: the numbers of the usable CPUs; empty if they are not known.
        cpu_count: how many CPUs are usable.
        memory: the bytes that there are.
        most: the user's number of slots; None for as many as fit.
    """
    has = Resources(gpus, given.cpus or cpu_count, given.memory or memory)
    lacking = [Resources(*(n if i == place else 0 for i, n in enumerate(has))) for place in range(3)]
    for need, there, one in zip(needs, has, lacking):
        if need > there:
            return [], "a job needs {}, and it has {}".format(needs.shown(), one.shown() or "no GPU")
    count = min(there // need for need, there in zip(needs, has) if need)
    count = count if most is None else min(count, most)
    # If the user says that there are more CPUs than there are, slots have none of their own.
    own = cpus if count * needs.cpus <= len(cpus) else []
    return [own[index * needs.cpus : (index + 1) * needs.cpus] for index in range(count)], ""
