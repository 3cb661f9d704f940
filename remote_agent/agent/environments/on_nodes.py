"""An environment that each node of a cluster builds on a disk of its own, from files that lie on the disk that all of them share.

Rule: the login node gathers the files, and builds nothing. A node builds below a folder that the user named, in one of this user's own, so two
users may name the same.
"""

import os
from typing import Any, Dict, NamedTuple, Optional

from remote_agent.agent.environments.programs import Advice
from remote_agent.protocol.specs.environment import EnvironmentSpec

__all__ = ["ADVICE", "NodePlan", "own_folder"]

#: What somebody may do whose node's disk is the reason.
ADVICE = Advice(
    more_room="\n    next: make room on that disk of the node; or name another folder with 'environments' in 'slurm:'; or leave that "
    "node out, such as with `--exclude=NODE` in 'options'",
    other_folder="name another folder with 'environments' in 'slurm:'",
)


def own_folder(named: str) -> str:
    """The folder of this user's environments below the one that the user named."""
    return os.path.join(named, "hydra-remote-launcher-{}".format(os.geteuid()))


class NodePlan(NamedTuple):
    """What a node builds.

    Attributes:
        named: the folder on the node's own disk, as the user named it.
        spec: the environment.
        budget: bytes that all environments there may have; None for no limit.
    """

    named: str
    spec: EnvironmentSpec
    budget: Optional[int]

    @property
    def python(self) -> str:
        """The Python of the environment, once it is built."""
        return os.path.join(own_folder(self.named), "envs", self.spec.key, "bin", "python")

    def to_json(self) -> Dict[str, Any]:
        """Return the plan as a JSON object, which `from_json` reads."""
        return {"named": self.named, "spec": self.spec.to_json(), "budget": self.budget}

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> "NodePlan":
        """Read the plan that the process on the login node has written.

        Raises:
            FieldError, LookupError: it is not valid.
        """
        return cls(data["named"], EnvironmentSpec.from_json(data["spec"]), data["budget"])
