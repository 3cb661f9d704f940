"""What a job needs of its host, and what a host has."""

from typing import Any, Dict, NamedTuple, Optional, Tuple

from remote_agent.protocol.fields import FieldError, read

__all__ = ["NO_CLUSTER", "Resources", "Room"]

#: Why a host cannot run a job that says `nodes`, `tasks` or `time`.
NO_CLUSTER = "it is no Slurm cluster, and only one has `nodes`, `tasks` and `time` to give"

#: More jobs than a host ever runs at once.
_ANY = 1 << 40
#: What an earlier version did not write. It is left out where a job does not say it.
_EARLIER = {"nodes": 0, "tasks": 0, "time": 0, "no_gpus": False}


class Resources(NamedTuple):
    """A number of GPUs and CPUs, and bytes of memory. 0: none is needed, or nothing is known of what there is.

    Attributes:
        nodes, tasks, time: of an allocation on a cluster, time in seconds; 0 if the job does not say it.
        no_gpus: the job says that it needs none, where jobs that say nothing get some.
    """

    gpus: int
    cpus: int
    memory: int
    nodes: int = 0
    tasks: int = 0
    time: int = 0
    no_gpus: bool = False

    def to_json(self) -> Dict[str, Any]:
        """Return them as a JSON object, which `from_json` reads."""
        return {name: value for name, value in zip(self._fields, self) if name not in _EARLIER or value}

    @property
    def amounts(self) -> Tuple[int, int, int]:
        """What is counted on each host: GPUs, CPUs, memory."""
        return self.gpus, self.cpus, self.memory

    @property
    def is_of_cluster(self) -> bool:
        """Whether only a cluster can give it."""
        return bool(self.nodes or self.tasks or self.time)

    @classmethod
    def from_json(cls, data: Any) -> "Resources":
        """Read what the other side sent.

        Raises:
            FieldError: they are not valid.
        """
        made = read(cls, "resources", data, {"gpus": 0, "cpus": 0, "memory": 0, **_EARLIER})
        for name, value in zip(made._fields, made):
            if value < 0:
                raise FieldError("resources", name, value)
        return made

    def shown(self) -> str:
        """Return them as a user writes them."""
        counts = ((self.nodes, "node"), (self.tasks, "task"), (self.gpus, "GPU"), (self.cpus, "CPU"))
        words = ["{} {}{}".format(n, word, "" if n == 1 else "s") for n, word in counts if n]
        words += ["no GPU"] if self.no_gpus else []
        words += ["{:.4g} GiB of memory".format(self.memory / (1 << 30))] if self.memory else []
        return ", ".join(words + (["{} of time".format(_hours(self.time))] if self.time else []))


class Room(NamedTuple):
    """What of a host a run's jobs may take.

    Attributes:
        has: all of it. Only a cluster has `nodes`.
        part: what a job takes that says nothing of itself.
        most: how many jobs may run at once; 0 for as many as fit.
    """

    has: Resources
    part: Resources
    most: int

    def to_json(self) -> Dict[str, Any]:
        """Return it as a JSON object, which `from_json` reads."""
        return {"has": self.has.to_json(), "part": self.part.to_json(), "most": self.most}

    @classmethod
    def from_json(cls, data: Any) -> "Room":
        """Read what the other side sent.

        Raises:
            FieldError: it is not valid.
        """
        room = read(cls, "room", data, {})
        if room.most < 0:
            raise FieldError("room", "most", room.most)
        return room

    @property
    def amounts(self) -> Tuple[int, ...]:
        """What there is, as `need` counts it."""
        return (*self.has.amounts, self.most or _ANY)

    def need(self, own: Optional[Resources]) -> Tuple[int, ...]:
        """Return what a job takes. `own`: what it says itself; None for nothing."""
        return (*(self.part if own is None else own).amounts, 1)

    def lacks(self, own: Optional[Resources]) -> str:
        """Return why a job has no room here even if nothing else runs; empty if it has."""
        needs = self.part if own is None else own
        if needs.is_of_cluster and not self.has.nodes:
            return NO_CLUSTER
        for place, (need, there) in enumerate(zip(needs.amounts, self.has.amounts)):
            if need > there:
                lacking = Resources.from_json({Resources._fields[place]: there})
                return "a job needs {}, and it has {}".format(needs.shown(), lacking.shown() or "no GPU")
        return ""


def _hours(seconds: int) -> str:
    return "{}:{:02}:{:02}".format(seconds // 3600, seconds // 60 % 60, seconds % 60)
