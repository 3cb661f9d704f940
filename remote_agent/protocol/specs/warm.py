"""What a warm interpreter is made of, as an agent tells it.

Rule: nothing of it is a secret, or of the application: the names are those of installed modules.
"""

from typing import Any, Dict, List, NamedTuple

from remote_agent.protocol.fields import read, to_json
from remote_agent.protocol.specs.zygote import ControllerFacts

__all__ = ["WarmSpec"]


class WarmSpec(NamedTuple):
    """How to make a warm interpreter.

    Attributes:
        key: what a zygote must have in common with it.
        name, folder: of its files.
        idle: for how many seconds it waits.
        umask: of the jobs.
        script: the `sys.argv[0]` of the run whose imports are repeated.
        modules: what to import, in this order.
        imported: the packages among them that the application itself imports.
    """

    key: str
    name: str
    folder: str
    idle: float
    umask: int
    controller: ControllerFacts
    script: str
    modules: List[str]
    imported: List[str]

    def to_json(self) -> Dict[str, Any]:
        """Return the spec as a JSON object, which `from_json` reads."""
        return dict(to_json(self), controller=self.controller.to_json())

    @classmethod
    def from_json(cls, data: Any) -> "WarmSpec":
        """Read a spec.

        Raises:
            FieldError: it is not valid.
        """
        return read(cls, "warm", data, {})
