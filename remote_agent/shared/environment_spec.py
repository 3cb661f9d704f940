"""An environment of packages as the controller describes it, and the facts about a host that it is chosen by.

Rule: the controller resolves and chooses, the host installs exactly these files. Neither believes what it is sent: each field is checked
here, and what becomes part of a path has no folder in it.
"""

import re
from typing import Any, Dict, List, NamedTuple

from remote_agent.shared.fields import FieldError, is_sha256, read, to_json

__all__ = ["EnvironmentSpec", "HostFacts", "PythonFacts", "Wheel"]

_WHEEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!-]{0,250}\.whl")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,100}[A-Za-z0-9])?")
#: Seconds for each step; an earlier controller says none.
_USUAL_LIMIT = 1800.0
_VERSION = re.compile(r"[A-Za-z0-9_.+!-]{1,100}")


class PythonFacts(NamedTuple):
    """A Python of a host.

    Attributes:
        path: how it is started.
        version: in full, such as `3.11.2`.
        implementation: such as `cpython`.
        abi: what wheels for it are tagged with, such as `cp311`, or `cp313t` without a GIL.
        bits: of its pointers.
    """

    path: str
    version: str
    implementation: str
    abi: str
    bits: int

    def to_json(self) -> Dict[str, Any]:
        """The facts as a JSON object; `from_json` reads it back."""
        return to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> "PythonFacts":
        """As another process said them.

        Raises:
            FieldError: they are none.
        """
        return read(cls, "python", data, {})


class HostFacts(NamedTuple):
    """What wheels for a host depend on.

    Attributes:
        system, machine, release: as `platform` names them, such as `Linux`, `x86_64`, `6.1.0`.
        libc: `glibc 2.36`, `musl 1.2`, `macos 14.1`; empty where it is not known.
        driver: version of NVIDIA's driver; empty for none.
        free: bytes that are free where environments lie.
        pythons: those that were found, the first choice first.
    """

    system: str
    machine: str
    release: str
    libc: str
    driver: str
    free: int
    pythons: List[Dict[str, Any]]

    def to_json(self) -> Dict[str, Any]:
        """The facts as a JSON object; `from_json` reads it back."""
        return to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> "HostFacts":
        """As a host said them.

        Raises:
            FieldError: they are none.
        """
        facts = read(cls, "pythons", data, {})
        for one in facts.pythons:
            PythonFacts.from_json(one)
        return facts


class Wheel(NamedTuple):
    """A file that is installed.

    Attributes:
        name, version: of the distribution.
        file: the wheel's name, which says what it fits.
        sha256: of its content.
        size: in bytes.
    """

    name: str
    version: str
    file: str
    sha256: str
    size: int

    def to_json(self) -> Dict[str, Any]:
        """The wheel as a JSON object; `from_json` reads it back."""
        return to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> "Wheel":
        """As the controller described it.

        Raises:
            FieldError: it is none.
        """
        wheel = read(cls, "wheel", data, {})
        for name, value, form in (
            ("name", wheel.name, _NAME),
            ("version", wheel.version, _VERSION),
            ("file", wheel.file, _WHEEL),
        ):
            if not form.fullmatch(value):
                raise FieldError("wheel", name, value)
        if not is_sha256(wheel.sha256):
            raise FieldError("wheel", "sha256", wheel.sha256)
        if not 0 <= wheel.size < 1 << 50:
            raise FieldError("wheel", "size", wheel.size)
        return wheel


class EnvironmentSpec(NamedTuple):
    """What an environment is made of.

    Attributes:
        key: the hash of all that makes a difference: contents of wheels, Python, platform, layout.
        python: path of the Python that it is made from.
        wheels: all that is installed.
        uv, uv_size: the content of the program that installs it.
        lock: the hash of the lock that it was chosen from; told to jobs, and nothing else.
        limit: seconds for each step of installing it.
    """

    key: str
    python: str
    wheels: List[Dict[str, Any]]
    uv: str
    uv_size: int
    lock: str
    limit: float

    @property
    def files(self) -> List[Wheel]:
        """All that is installed."""
        return [Wheel(**one) for one in self.wheels]

    def to_json(self) -> Dict[str, Any]:
        """The description as a JSON object; `from_json` reads it back."""
        return to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> "EnvironmentSpec":
        """As the controller described it.

        Raises:
            FieldError: it is none.
        """
        spec = read(cls, "environment", data, {"limit": _USUAL_LIMIT})
        for name, sha256 in (("key", spec.key), ("uv", spec.uv), ("lock", spec.lock)):
            if not is_sha256(sha256):
                raise FieldError("environment", name, sha256)
        if spec.limit <= 0:
            raise FieldError("environment", "limit", spec.limit)
        # Unknown fields of a later version are left out.
        return spec._replace(wheels=[Wheel.from_json(one).to_json() for one in spec.wheels])
