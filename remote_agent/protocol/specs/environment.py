"""An environment of packages as the controller describes it, and the facts about a host on which the choice depends.

Rule: the controller resolves and chooses; the host installs exactly these files. Neither trusts what it receives: each field is
checked here, and a field that becomes part of a path may not name a folder.
"""

import re
from typing import Any, Dict, List, NamedTuple

from remote_agent.protocol.fields import FieldError, is_sha256, read, to_json

__all__ = ["EnvironmentSpec", "HostFacts", "PythonFacts", "Wheel"]

_WHEEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!-]{0,250}\.whl")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,100}[A-Za-z0-9])?")
#: Seconds for each step; an earlier controller says none.
_USUAL_LIMIT = 1800.0
_VERSION = re.compile(r"[A-Za-z0-9_.+!-]{1,100}")


class PythonFacts(NamedTuple):
    """A Python of a host.

    Attributes:
        path: the program that starts it.
        version: the full version, such as `3.11.2`.
        implementation: such as `cpython`.
        abi: the tag of wheels for it, such as `cp311`, or `cp313t` without a GIL.
        bits: the size of its pointers.
    """

    path: str
    version: str
    implementation: str
    abi: str
    bits: int

    def to_json(self) -> Dict[str, Any]:
        """Return the facts as a JSON object, which `from_json` reads."""
        return to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> "PythonFacts":
        """Read the facts that another process sent.

        Raises:
            FieldError: they are not valid.
        """
        return read(cls, "python", data, {})


class HostFacts(NamedTuple):
    """What wheels for a host depend on.

    Attributes:
        system, machine, release: as `platform` names them, such as `Linux`, `x86_64`, `6.1.0`.
        libc: `glibc 2.36`, `musl 1.2`, `macos 14.1`; empty where it is not known.
        driver: the version of NVIDIA's driver; empty if there is none.
        free: free bytes in the file system of the environments.
        pythons: the Pythons that were found, in order of preference.
    """

    system: str
    machine: str
    release: str
    libc: str
    driver: str
    free: int
    pythons: List[Dict[str, Any]]

    def to_json(self) -> Dict[str, Any]:
        """Return the facts as a JSON object, which `from_json` reads."""
        return to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> "HostFacts":
        """Read the facts that a host sent.

        Raises:
            FieldError: they are not valid.
        """
        facts = read(cls, "pythons", data, {})
        for one in facts.pythons:
            PythonFacts.from_json(one)
        return facts


class Wheel(NamedTuple):
    """A wheel to install.

    Attributes:
        name, version: those of the distribution.
        file: the file name, whose tags say where the wheel can be installed.
        sha256: the hash of its content.
        size: its bytes.
    """

    name: str
    version: str
    file: str
    sha256: str
    size: int

    def to_json(self) -> Dict[str, Any]:
        """Return the wheel as a JSON object, which `from_json` reads."""
        return to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> "Wheel":
        """Read the description that the controller sent.

        Raises:
            FieldError: it is not valid.
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
    """The contents of an environment.

    Attributes:
        key: the hash of everything that makes a difference: contents of wheels, Python, platform, layout.
        python: the path of the Python that it is made with.
        wheels: all wheels to install.
        uv, uv_size: the hash and size of the program that installs them.
        lock: the hash of the lock from which the wheels were chosen. It is only reported by jobs.
        limit: seconds for each step of the installation.
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
        """All wheels to install."""
        return [Wheel(**one) for one in self.wheels]

    def to_json(self) -> Dict[str, Any]:
        """Return the description as a JSON object, which `from_json` reads."""
        return to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> "EnvironmentSpec":
        """Read the description that the controller sent.

        Raises:
            FieldError: it is not valid.
        """
        spec = read(cls, "environment", data, {"limit": _USUAL_LIMIT})
        for name, sha256 in (("key", spec.key), ("uv", spec.uv), ("lock", spec.lock)):
            if not is_sha256(sha256):
                raise FieldError("environment", name, sha256)
        if spec.limit <= 0:
            raise FieldError("environment", "limit", spec.limit)
        # Unknown fields of a later version are left out.
        return spec._replace(wheels=[Wheel.from_json(one).to_json() for one in spec.wheels])
