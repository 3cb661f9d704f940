"""How output files come while their job runs, as a controller says it in its hello."""

from typing import Any, Dict, List, NamedTuple

from remote_agent.protocol.fields import FieldError, read, to_json

__all__ = ["SyncSpec"]


class SyncSpec(NamedTuple):
    """How output files come while their job runs.

    Attributes:
        every: seconds from one look at the folders to the next.
        only: patterns of the files that come; empty for all.
        says_held: whether the controller says, when a job has ended, what it holds of its files, so that only the rest is sent.
    """

    every: float
    only: List[str]
    says_held: bool

    def to_json(self) -> Dict[str, Any]:
        """Return the spec as a JSON object, which `from_json` reads."""
        return to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> "SyncSpec":
        """Read a spec that the other side sent.

        Raises:
            FieldError: it is not valid.
        """
        spec = read(cls, "sync", data, {"says_held": False})
        if spec.every <= 0:
            raise FieldError("sync", "every", spec.every)
        return spec
