"""Where the parts of a result lie in its bytes: as a job says it, a host and a controller keep it, and the wire carries it.

Rule: it is made and read here alone. Nothing in it is believed before the digest of a part was compared with its bytes.
"""

from typing import Any, Dict, NamedTuple, Optional

from remote_agent.protocol.fields import FieldError, read, to_json

__all__ = ["NO_PARTS", "PICKLED", "PLAIN", "SAME", "Part", "ResultParts"]

#: How parts may be written.
PICKLED, PLAIN = "cloudpickle", "plain"


class Part(NamedTuple):
    """Some bytes of a result. `sha256`: their digest; empty where it was not said."""

    offset: int
    size: int
    sha256: str

    @classmethod
    def from_json(cls, data: Any) -> "Part":
        """A part that somebody else described.

        Raises:
            FieldError: it is none.
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
        codec: PICKLED or PLAIN; empty where nothing was written.
        file: where the bytes lie on the host; empty where they came along. No other machine learns it, or believes it.
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
        """The parts that there are."""
        return {name: part for name, part in zip(self._fields, self[:4]) if part is not None}

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return max((part.offset + part.size for part in self.by_name.values()), default=0)

    def without_file(self) -> "ResultParts":
        """What another machine is told, and believes."""
        return self._replace(file="", same=False)

    def to_json(self) -> Dict[str, Any]:
        """A JSON object that says only what there is; `from_json` reads it back."""
        said: Dict[str, Any] = {name: to_json(part) for name, part in self.by_name.items()}
        said.update((name, one) for name, one in zip(self._fields[4:], self[4:]) if one)
        return said

    @classmethod
    def from_json(cls, data: Any) -> "ResultParts":
        """Parts that somebody else described. Names that we do not know are ignored.

        Raises:
            FieldError: they are none.
        """
        return read(cls, "parts", data, _ABSENT)


_ABSENT = {"value": None, "plain": None, "cfg": None, "hydra_cfg": None, "codec": "", "file": "", "same": False}

NO_PARTS = ResultParts(None, None, None, None, "", "", same=False)
SAME = NO_PARTS._replace(same=True)
