"""Classes of jobs by what each needs of its node, and what an allocation for a class has.

Rule: `slurm:` of the host says what a job has that says nothing. What a job says itself takes the place of that. An allocation has so much for
each of its slots. A class is named by its numbers, so that whoever reads the pool knows them.
"""

import re
from typing import Any, Dict, Mapping, Optional

from remote_agent.protocol.resources import Resources

__all__ = ["DEFAULT", "allocation_needs", "class_of", "needs_of", "part_of", "shown", "takes_many"]

#: The class of jobs that say nothing.
DEFAULT = "default"
_NAME = re.compile(r"g([0-9]{1,18})-c([0-9]{1,18})-m([0-9]{1,18})")
#: In `gpus` of `slurm:`: a type, and how many.
_GPUS = re.compile(r"(?:([A-Za-z0-9_.-]+):)?([0-9]+)")
_MEMORY = re.compile(r"([0-9]+)([KMGT]?)B?", re.IGNORECASE)
_MIB = 1 << 20
#: In bytes. A number alone is megabytes, as in sbatch.
_UNITS = {"K": 1 << 10, "": _MIB, "M": _MIB, "G": 1 << 30, "T": 1 << 40}
_MANY = "many"
_PASSED = ("partition", "account", "time", "nodes")


def takes_many(options: Mapping[str, Any]) -> bool:
    """Whether an allocation takes one job after the other. `options`: what `slurm:` of the host says."""
    return bool(options.get("jobs") == _MANY or (options.get("slots") or 1) > 1)


def class_of(needs: Optional[Resources]) -> str:
    """The class of a job that needs this; None if neither it nor the run says anything."""
    return DEFAULT if needs is None else "g{}-c{}-m{}".format(*needs)


def needs_of(klass: str) -> Optional[Resources]:
    """What jobs of a class say that they need; None for nothing."""
    found = _NAME.fullmatch(klass)
    return None if found is None else Resources(*(int(one) for one in found.groups()))


def part_of(klass: str, options: Mapping[str, Any]) -> Optional[Resources]:
    """What each job of a class has; None if its jobs say nothing. `options`: what `slurm:` of the host says."""
    said = needs_of(klass)
    if said is None:
        return None
    gpus = _GPUS.fullmatch(str(options.get("gpus") or "0"))
    cpus = str(options.get("cpus") or 1)
    return Resources(
        said.gpus or (int(gpus.group(2)) if gpus is not None else 0),
        # A job that says nothing of CPUs is told to need one.
        said.cpus if said.cpus > 1 else int(cpus) if cpus.isdigit() else 1,
        said.memory or _bytes(str(options.get("mem") or "0")),
    )


def allocation_needs(klass: str, options: Mapping[str, Any], slots: int) -> Dict[str, str]:
    """What an allocation with so many slots for a class has, as `Request.needs`."""
    needs = {name: str(options[name]) for name in _PASSED if options.get(name)}
    part = part_of(klass, options)
    gpus, cpus, mem = (str(options.get(name) or "") for name in ("gpus", "cpus", "mem"))
    if part is not None:
        kind = gpus.rpartition(":")[0]
        gpus = "{}{}".format(kind + ":" if kind else "", part.gpus) if part.gpus else ""
        cpus = str(part.cpus)
        mem = "{}M".format(-(-part.memory // _MIB)) if part.memory else ""
    for name, value, times in (("gpus", gpus, _times_last), ("cpus", cpus, _times_last), ("mem", mem, _times_memory)):
        if value and value != "0":
            needs[name] = times(value, slots)
    if slots > 1 and "cpus" not in needs:
        needs["cpus"] = str(slots)
    return needs


def shown(klass: str) -> str:
    """A class as the user reads it."""
    needs = needs_of(klass)
    return "jobs that say no `resources`" if needs is None else "jobs that need {}".format(needs.shown())


def _times_last(text: str, slots: int) -> str:
    head, colon, number = text.rpartition(":")
    return text if slots == 1 else "{}{}{}".format(head, colon, int(number) * slots)


def _times_memory(text: str, slots: int) -> str:
    found = _MEMORY.fullmatch(text)
    return text if slots == 1 or found is None else "{}{}".format(int(found.group(1)) * slots, found.group(2))


def _bytes(text: str) -> int:
    found = _MEMORY.fullmatch(text)
    return 0 if found is None else int(found.group(1)) * _UNITS[found.group(2).upper()]
