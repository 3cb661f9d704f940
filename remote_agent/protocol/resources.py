"""What a job needs of its host, and what a host has."""

from typing import Any, Dict, NamedTuple

from remote_agent.protocol.fields import FieldError, read, to_json

__all__ = ["Resources"]


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
