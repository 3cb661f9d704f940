"""Where the parts of a result are in its bytes. The job, the host, the controller and the wire share this type.

Rule: it is made and read only here. A part is used only after its digest was compared with its bytes.
"""

from typing import Any, Dict, NamedTuple, Optional

from remote_agent.protocol.fields import FieldError, read, to_json

__all__ = ["NO_PARTS", "PICKLED", "PLAIN", "SAME", "Part", "ResultParts"]

#: The forms in which parts may be written.
PICKLED, PLAIN = "cloudpickle", "plain"


class Part(NamedTuple):
    """Some bytes of a result. `sha256`: their digest; empty if it is not known."""

    offset: int
    size: int
    sha256: str

    @classmethod
    def from_json(cls, data: Any) -> "Part":
        """Read a part from another process's description.

        Raises:
            FieldError: it is not valid.
        """
        part = read(cls, "part", data, {"sha256": ""})
        if part.offset < 0 or part.size < 0:
            raise FieldError("part", "offset or size", min(part[:2]))
        return part


class ResultParts(NamedTuple):
    """The parts of one result.

    Attributes:
        value: what the task returned, or the exception that it raised.
        plain: what commands show of the value.
        cfg, hydra_cfg: configs that were edited.
        codec: PICKLED or PLAIN; empty if nothing was written.
        file: the file with the bytes on the host; empty if they came in the message. It is never sent to another machine, and
            ignored if it comes from one.
        same: the bytes are those of the outcome, and are not sent again.
    """

    value: Optional[Part]
    plain: Optional[Part]
    cfg: Optional[Part]
    hydra_cfg: Optional[Part]
    codec: str
    file: str
    same: bool

    @property
    def by_name(self) -> Dict[str, Part]:
        """Return the parts that exist, by name."""
        return {name: part for name, part in zip(self._fields, self[:4]) if part is not None}

    @property
    def size(self) -> int:
        """The number of bytes of all parts."""
        return max((part.offset + part.size for part in self.by_name.values()), default=0)

    def without_file(self) -> "ResultParts":
        """Return the parts without the file, as another machine gets and reads them."""
        return self._replace(file="", same=False)

    def to_json(self) -> Dict[str, Any]:
        """Return a JSON object with the parts that exist. `from_json` reads it."""
        said: Dict[str, Any] = {name: to_json(part) for name, part in self.by_name.items()}
        said.update((name, one) for name, one in zip(self._fields[4:], self[4:]) if one)
        return said

    @classmethod
    def from_json(cls, data: Any) -> "ResultParts":
        """Read parts from another process's description. Unknown names are ignored.

        Raises:
            FieldError: they are not valid.
        """
        return read(cls, "parts", data, _ABSENT)


_ABSENT = {"value": None, "plain": None, "cfg": None, "hydra_cfg": None, "codec": "", "file": "", "same": False}

NO_PARTS = ResultParts(None, None, None, None, "", "", same=False)
SAME = NO_PARTS._replace(same=True)
