"""What the controller holds of an output file that came while its job ran."""

from typing import Any, Dict, NamedTuple

from remote_agent.protocol.fields import FieldError, is_sha256, read, to_json

__all__ = ["HeldFile"]


class HeldFile(NamedTuple):
    """The first bytes of a file, as they are on the controller's disk.

    Attributes:
        path: below the output directory.
        size: how many bytes.
        sha256: their hash.
        is_executable: whether its owner may run it.
    """

    path: str
    size: int
    sha256: str
    is_executable: bool

    def to_json(self) -> Dict[str, Any]:
        """Return it as a JSON object, which `from_json` reads."""
        return to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> "HeldFile":
        """Read one that the other side sent.

        Raises:
            FieldError: it is not valid.
        """
        held = read(cls, "held", data, {})
        if held.size <= 0:
            raise FieldError("held", "size", held.size)
        if not is_sha256(held.sha256):
            raise FieldError("held", "sha256", held.sha256)
        return held
