"""Classes of jobs by what each needs of its node, and what an allocation for a class has.

Rule: `slurm:` of the host says what a job has that says nothing. What a job says itself takes the place of that. An allocation has so much for
each of its slots. A class is named by its numbers, so that whoever reads the pool knows them.
"""

import re
from typing import Any, Dict, Mapping, NamedTuple, Optional

from remote_agent.protocol.specs.resources import Resources

__all__ = [
    "DEFAULT",
    "Lasting",
    "allocation_needs",
    "class_of",
    "is_alone",
    "lasting",
    "needs_of",
    "part_of",
    "seconds_of",
    "shown",
    "takes_many",
]

#: The class of jobs that say nothing.
DEFAULT = "default"
#: GPUs (`n` for none at all), CPUs, bytes of memory; and what only some say: nodes, tasks, seconds.
_NAME = re.compile(
    r"g([0-9]{1,18}|n)-c([0-9]{1,18})-m([0-9]{1,18})(?:-n([0-9]{1,9}))?(?:-t([0-9]{1,9}))?(?:-s([0-9]{1,12}))?"
)
#: Slurm's way to write a time.
_TIME = re.compile(r"(?:([0-9]{1,6})-)?([0-9]{1,9})(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?")
#: In `gpus` of `slurm:`: a type, and how many.
_GPUS = re.compile(r"(?:([A-Za-z0-9_.-]+):)?([0-9]+)")
_MEMORY = re.compile(r"([0-9]+)([KMGT]?)B?", re.IGNORECASE)
_MIB = 1 << 20
#: In bytes. A number alone is megabytes, as in sbatch.
_UNITS = {"K": 1 << 10, "": _MIB, "M": _MIB, "G": 1 << 30, "T": 1 << 40}
_MANY = "many"
_PASSED = ("partition", "account", "time", "nodes", "tasks")


def takes_many(options: Mapping[str, Any], klass: str = DEFAULT) -> bool:
    """Whether an allocation for a class takes one job after the other. `options`: what `slurm:` of the host says."""
    is_many = bool(options.get("jobs") == _MANY or (options.get("slots") or 1) > 1)
    return is_many and not is_alone(klass, options)


def is_alone(klass: str, options: Mapping[str, Any]) -> bool:
    """Whether a job of a class has several nodes or tasks. Then it has its allocation for itself: what it starts on other nodes ends with that."""
    said = needs_of(klass)
    return any(_count(name, said, options) > 1 for name in ("nodes", "tasks"))


def _count(name: str, said: Optional[Resources], options: Mapping[str, Any]) -> int:
    own: int = getattr(said, name) if said is not None else 0
    text = str(options.get(name) or 0)
    return own or (int(text) if text.isdigit() else 0)


def class_of(needs: Optional[Resources]) -> str:
    """The class of a job that needs this; None if neither it nor the run says anything."""
    if needs is None:
        return DEFAULT
    more = (("n", needs.nodes), ("t", needs.tasks), ("s", needs.time))
    name = "g{}-c{}-m{}".format("n" if needs.no_gpus else needs.gpus, needs.cpus, needs.memory)
    return name + "".join("-{}{}".format(letter, number) for letter, number in more if number)


def needs_of(klass: str) -> Optional[Resources]:
    """What jobs of a class say that they need; None for nothing."""
    found = _NAME.fullmatch(klass)
    if found is None:
        return None
    has_none = found.group(1) == "n"
    gpus, cpus, memory, nodes, tasks, time = (0 if one in (None, "n") else int(one) for one in found.groups())
    return Resources(gpus, cpus, memory, nodes, tasks, time, has_none)


def part_of(klass: str, options: Mapping[str, Any]) -> Optional[Resources]:
    """What each job of a class has on its node; None if its jobs say nothing. `options`: what `slurm:` of the host says."""
    said = needs_of(klass)
    if said is None:
        return None
    gpus = _GPUS.fullmatch(str(options.get("gpus") or "0"))
    cpus = str(options.get("cpus") or 1)
    return Resources(
        0 if said.no_gpus else said.gpus or (int(gpus.group(2)) if gpus is not None else 0),
        # A job that says nothing of CPUs is told to need one.
        said.cpus if said.cpus > 1 else int(cpus) if cpus.isdigit() else 1,
        said.memory or _bytes(str(options.get("mem") or "0")),
        no_gpus=said.no_gpus,
    )


class Lasting(NamedTuple):
    """How long an allocation lasts, and a job in it takes at most, in seconds; 0 if nobody says it."""

    allocation: int = 0
    job: int = 0

    def allows(self, elapsed: float) -> bool:
        """Whether another job may be taken so many seconds after the beginning. The first one always may."""
        return not (self.job and self.allocation) or elapsed + self.job <= self.allocation


def lasting(klass: str, options: Mapping[str, Any]) -> Lasting:
    """How long an allocation for a class lasts: so long as its jobs say, or as `slurm:` does if it takes many of them and that is longer."""
    said = needs_of(klass)
    own, usual = said.time if said is not None else 0, seconds_of(str(options.get("time") or ""))
    if own and takes_many(options, klass):
        return Lasting(max(own, usual), own)
    return Lasting(own or usual, own)


def seconds_of(text: str) -> int:
    """Read a time as Slurm writes it, such as `90` (minutes), `4:00:00` or `1-12`; 0 if it is none."""
    found = _TIME.fullmatch(text)
    if found is None:
        return 0
    days, first, second, third = (int(one) if one else 0 for one in found.groups())
    if found.group(1):
        return 86400 * days + 3600 * first + 60 * second + third
    return 3600 * first + 60 * second + third if found.group(4) else 60 * first + second


def allocation_needs(klass: str, options: Mapping[str, Any], slots: int) -> Dict[str, str]:
    """What an allocation with so many slots for a class has, as `Request.needs`."""
    needs = {name: str(options[name]) for name in _PASSED if options.get(name)}
    said = needs_of(klass)
    if said is not None:
        needs.update({name: str(getattr(said, name)) for name in ("nodes", "tasks") if getattr(said, name)})
        if said.nodes and not said.tasks and int(needs.get("tasks", said.nodes)) < said.nodes:
            needs["tasks"] = str(said.nodes)
        if said.time:
            # In minutes, as Slurm counts them.
            needs["time"] = str(-(-lasting(klass, options).allocation // 60))
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
