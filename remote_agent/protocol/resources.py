"""What a job needs of its host, and what a host has."""

from typing import Any, Dict, NamedTuple, Optional, Tuple

from remote_agent.protocol.fields import FieldError, read, to_json

__all__ = ["Resources", "Room"]

#: More jobs than a host ever runs at once.
_ANY = 1 << 40


class Resources(NamedTuple):
    """A number of GPUs and CPUs, and bytes of memory. 0: none is needed, or nothing is known of what there is."""

    gpus: int
    cpus: int
    memory: int

    def to_json(self) -> Dict[str, Any]:
        """Return them as a JSON object, which `from_json` reads."""
        return to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> "Resources":
        """Read what the other side sent.

        Raises:
            FieldError: they are not valid.
        """
        made = read(cls, "resources", data, {"gpus": 0, "cpus": 0, "memory": 0})
        for name, value in zip(made._fields, made):
            if value < 0:
                raise FieldError("resources", name, value)
        return made

    def shown(self) -> str:
        """Return them as a user writes them."""
        words = ["{} {}{}".format(n, word, "" if n == 1 else "s") for n, word in zip(self, ("GPU", "CPU")) if n]
        return ", ".join(words + (["{:.4g} GiB of memory".format(self.memory / (1 << 30))] if self.memory else []))


class Room(NamedTuple):
    """What of a host a run's jobs may take.

    Attributes:
        has: all of it.
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
        return (*self.has, self.most or _ANY)

    def need(self, own: Optional[Resources]) -> Tuple[int, ...]:
        """Return what a job takes. `own`: what it says itself; None for nothing."""
        return (*(self.part if own is None else own), 1)

    def lacks(self, own: Optional[Resources]) -> str:
        """Return why a job has no room here even if nothing else runs; empty if it has."""
        needs = self.part if own is None else own
        for place, (need, there) in enumerate(zip(needs, self.has)):
            if need > there:
                lacking = Resources(*(there if i == place else 0 for i in range(len(needs))))
                return "a job needs {}, and it has {}".format(needs.shown(), lacking.shown() or "no GPU")
        return ""
