"""Chooses from a lock the files for a Python of a host.

Rule: `packaging` chooses by the host's facts. Chosen files are named by their content.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from launcher.environments.git import folder_in, git_address
from launcher.environments.lock import Lock, read_toml
from launcher.errors import PackagesError
from remote_agent.protocol.specs.environment import HostFacts, PythonFacts

__all__ = ["Chosen", "DoesNotFit", "choose"]

_SYSTEMS = {"Linux": "linux", "Darwin": "darwin"}
#: The oldest glibc 2.x for wheels of a platform. Below: older names of some platforms.
_OLDEST_GLIBC = {"x86_64": 5, "i686": 5}
_GLIBC_NAMES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
#: The format of the lock's file, for messages of its errors.
_FORMAT = "pylock.toml"


class DoesNotFit(PackagesError):
    """The lock does not fit this Python of the host. Another Python there may fit."""


@dataclass(frozen=True)
class Chosen:
    """A file to install, or to build.

    Attributes:
        url: where it comes from; `file:` for a local file, `git+` for a commit.
        sha256: the hash of its content, or of its address if it is a commit.
        is_wheel: whether it is installed directly. Otherwise a wheel is built from it here.
        size: its bytes; None if the lock does not say it.
        folder: where the package lies in an archive; empty for the top.
        index: the address of the index that has it; empty if the lock does not say it.
    """

    name: str
    version: str
    file: str
    url: str
    sha256: str
    size: int | None
    is_wheel: bool
    folder: str = ""
    index: str = ""


def choose(lock: Lock, facts: HostFacts, python: PythonFacts) -> list[Chosen]:
    """Return the files for a Python of a host.

    Raises:
        DoesNotFit: the lock has no files for it.
        PackagesError: it is not a lock.
    """
    try:
        from packaging.pylock import Pylock, PylockSelectError, PylockValidationError
    except ImportError:
        raise PackagesError(
            "environment: packaging 26.1 or later is needed on this machine; "
            "install it with `pip install 'hydra-remote-launcher[environments]'`"
        ) from None
    try:
        pylock = Pylock.from_dict(read_toml(lock.text))
    except (ValueError, PylockValidationError) as error:
        raise PackagesError(f"environment: {lock.name} is not a valid {_FORMAT}: {error}") from None
    try:
        found = list(
            pylock.select(
                environment=_markers(facts, python),  # type: ignore[arg-type]
                tags=list(_tags(facts, python)),
                extras=lock.extras or None,
                dependency_groups=lock.groups or None,
            )
        )
    except PylockSelectError as error:
        raise DoesNotFit(str(error)) from None
    chosen = [_chosen(package, what, lock) for package, what in found]
    return sorted((one for one in chosen if one is not None), key=lambda one: one.name)


def _chosen(package: Any, what: Any, lock: Lock) -> Chosen | None:
    kind = type(what).__name__
    name = str(package.name)
    if kind == "PackageDirectory":
        # Its modules come with the project's code; `launcher.environments.local_folders` refuses those that cannot.
        return None
    if kind == "PackageVcs":
        return _from_git(name, package, what, lock)
    sha256 = what.hashes.get("sha256")
    if not sha256:
        raise PackagesError(f"environment: {lock.name} has no sha256 of {name}; `uv lock` makes a lock that has them")
    url = what.url or _file_url(Path(lock.name).parent, str(what.path))
    file = unquote(urlsplit(url).path.rpartition("/")[2])
    is_wheel = file.endswith(".whl")
    version = str(package.version) if package.version is not None else _version_of(file)
    folder = "" if is_wheel else folder_in(url, getattr(what, "subdirectory", None))
    return Chosen(name, version, file, url, sha256.lower(), what.size, is_wheel, folder, str(package.index or ""))


def _from_git(name: str, package: Any, what: Any, lock: Lock) -> Chosen:
    """A commit, of which a wheel is built here. Its version is known when that is there, if the lock does not say it."""
    if what.type != "git" or not what.url:
        raise PackagesError(
            f"environment: {name} comes from {what.type} in {lock.name}; hosts get exact files: name a release, or an archive, instead"
        )
    address = git_address(what.url, what.commit_id.lower(), what.subdirectory)
    sha256 = hashlib.sha256(address.encode()).hexdigest()
    version = str(package.version) if package.version is not None else ""
    return Chosen(name, version, f"{name} ({what.commit_id[:12]} of git)", address, sha256, None, is_wheel=False)


def _file_url(folder: Path, path: str) -> str:
    return urljoin(folder.absolute().as_uri() + "/", Path(folder, path).absolute().as_uri())


def _version_of(file: str) -> str:
    found = re.match(r"[^-]+-([^-]+)(?:-|\.tar|\.zip)", file)
    return found.group(1) if found is not None else "0"


def _markers(facts: HostFacts, python: PythonFacts) -> dict[str, str]:
    """Return the values for markers of requirements."""
    names = {"cpython": "CPython", "pypy": "PyPy"}
    return {
        "implementation_name": python.implementation,
        "implementation_version": python.version,
        "os_name": "posix",
        "platform_machine": facts.machine,
        "platform_python_implementation": names.get(python.implementation, python.implementation),
        "platform_release": facts.release,
        "platform_system": facts.system,
        "platform_version": "",
        "python_full_version": python.version,
        "python_version": ".".join(python.version.split(".")[:2]),
        "sys_platform": _SYSTEMS.get(facts.system, facts.system.lower()),
    }


def _tags(facts: HostFacts, python: PythonFacts) -> Iterator[Any]:
    """Yield the tags of wheels that fit, the best first."""
    from packaging import tags

    version = [int(part) for part in python.version.split(".")[:2]]
    platforms = list(_platforms(facts, python.bits))
    interpreter = re.sub(r"[^a-z0-9].*$", "", python.abi.lower()).rstrip("td")
    if python.implementation == "cpython":
        yield from tags.cpython_tags(version, [python.abi], platforms)
    else:
        yield from tags.generic_tags(interpreter, [python.abi], platforms)
    yield from tags.compatible_tags(version, interpreter, platforms)


def _platforms(facts: HostFacts, bits: int) -> Iterator[str]:
    from packaging import tags

    machine = facts.machine
    kind, _, version = facts.libc.partition(" ")
    numbers = [int(part) for part in re.findall(r"\d+", version)[:2]]
    if facts.system == "Darwin":
        yield from tags.mac_platforms((numbers[0], numbers[1] if len(numbers) > 1 else 0) if numbers else None, machine)
        return
    if bits == 32:
        # A 32-bit Python on a 64-bit machine.
        machine = {"x86_64": "i686", "aarch64": "armv7l"}.get(machine, machine)
    if kind == "glibc" and len(numbers) == 2:
        for minor in range(numbers[1], _OLDEST_GLIBC.get(machine, 17) - 1, -1):
            yield f"manylinux_2_{minor}_{machine}"
            if minor in _GLIBC_NAMES:
                yield f"{_GLIBC_NAMES[minor]}_{machine}"
    elif kind == "musl" and len(numbers) == 2:
        yield from (f"musllinux_1_{minor}_{machine}" for minor in range(numbers[1], -1, -1))
    yield f"linux_{machine}"
