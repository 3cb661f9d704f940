"""What a source is resolved to: a lock in the format of pylock.toml, or requirements that are resolved when the host is known.

Rule: nothing but uv resolves. A lock is kept with the run, so that a run that is taken up, or run again, has the same packages. What uv
made of the same files before is not made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from launcher.environments.source import Source
from launcher.environments.uv import Steps, run_uv, uv_version
from launcher.errors import PackagesError
from launcher.util.user_folders import cache_folder, make_user_folder
from remote_agent.protocol.environment_spec import HostFacts, PythonFacts

__all__ = ["Lock", "compile_for", "locks_from_bytes", "locks_to_bytes", "read_lock", "read_toml", "write_whole"]

#: The versions of glibc that uv knows as platforms.
_GLIBC = (17, 28, *range(31, 41))
_MAX_LOCK = 64 << 20


@dataclass(frozen=True)
class Lock:
    """The packages of a run, as they are kept with it.

    Attributes:
        name: the file that they come from, for messages.
        text: a pylock.toml; of requirements the file itself.
        is_resolved: it is a pylock.toml.
        extras, groups: those of the pylock.toml that are chosen.
        indexes: [name, address] of the project's indexes, without credentials.
    """

    name: str
    text: str
    is_resolved: bool
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    indexes: tuple[tuple[str, str], ...] = ()

    @property
    def sha256(self) -> str:
        """Names what it says."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The lock as plain data; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Lock:
        """A lock that was kept.

        Raises:
            TypeError, KeyError: it is none.
        """
        return cls(
            str(data["name"]),
            str(data["text"]),
            bool(data["is_resolved"]),
            tuple(map(str, data["extras"])),
            tuple(map(str, data["groups"])),
            tuple((str(name), str(address)) for name, address in data["indexes"]),
        )


def read_lock(source: Source, extras: Sequence[str], groups: Sequence[str], steps: Steps | None = None) -> Lock:
    """The lock of a source. Of a uv.lock it is what the extras and groups make of it.

    Raises:
        PackagesError: it cannot be read, or uv cannot make one of it.
    """
    lock = _read(source, extras, groups, steps)
    return replace(lock, indexes=_indexes(source.path.parent))


def _read(source: Source, extras: Sequence[str], groups: Sequence[str], steps: Steps | None) -> Lock:
    path = source.path
    text = _text(path)
    match source.kind:
        case "pylock":
            return Lock(str(path), text, is_resolved=True, extras=tuple(extras), groups=tuple(groups))
        case "requirements":
            if extras or groups:
                raise PackagesError(
                    f"environment: {path} has no extras and no groups; a uv.lock or a pylock.toml may have some"
                )
            return Lock(str(path), text, is_resolved=False)
        case "script":
            if extras or groups:
                raise PackagesError(f"environment: the script {path} has no extras and no groups")
            inputs = [text, _text(path.with_name(path.name + ".lock"), or_empty=True)]
            return _exported(path, inputs, ["--script", path.name], path.parent, steps)
        case "uv":
            project = path.parent
            chosen = [part for extra in extras for part in ("--extra", extra)]
            chosen += [part for group in groups for part in ("--group", group)]
            inputs = [text, _text(project / "pyproject.toml", or_empty=True)]
            options = ["--frozen", "--no-emit-local", "--no-default-groups", *chosen]
            return _exported(path, inputs, options, project, steps)


def _indexes(folder: Path) -> tuple[tuple[str, str], ...]:
    """The indexes that the project names, by which uv knows the variables of their credentials."""
    found = []
    for name, keys in (("uv.toml", ()), ("pyproject.toml", ("tool", "uv"))):
        try:
            content: Any = read_toml(_text(folder / name, or_empty=True))
        except ValueError:
            continue  # uv says what is wrong with it
        for key in keys:
            content = content.get(key, {}) if isinstance(content, dict) else {}
        entries = content.get("index", []) if isinstance(content, dict) else []
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and entry.get("name") and isinstance(entry.get("url"), str):
                parts = urlsplit(entry["url"])
                found.append((str(entry["name"]), urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))))
    return tuple(found)


def read_toml(text: str) -> dict[str, Any]:
    """What a TOML file says.

    Raises:
        ValueError: it is none.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def _exported(path: Path, inputs: Sequence[str], options: Sequence[str], folder: Path, steps: Steps | None) -> Lock:
    command = ["export", "--quiet", "--format", "pylock.toml", "--no-header", *options]
    # The folder counts: a lock may name files relative to it.
    key = [uv_version(), str(folder), *command, *inputs]
    text = _cached(key, lambda: run_uv(str(path), command, cwd=folder, steps=steps))
    return Lock(str(path), text, is_resolved=True)


def compile_for(
    lock: Lock, facts: HostFacts, python: PythonFacts, kept: Path | None, steps: Steps | None = None
) -> Lock:
    """Requirements, resolved for a Python of a host; once, where there is a folder that keeps it.

    Raises:
        PackagesError: uv cannot resolve them.
    """
    major, minor = python.version.split(".")[:2]
    version = f"{major}.{minor}"
    platform = _platform(facts)
    torch = ["--torch-backend", "auto"] if facts.driver else []
    name = hashlib.sha256(f"{lock.sha256}\x00{version}\x00{platform}\x00{facts.driver}".encode()).hexdigest()
    file = kept / f"{name}.pylock.toml" if kept is not None else None
    if file is not None and file.is_file():
        return Lock(lock.name, _text(file), is_resolved=True)
    path = Path(lock.name)
    if _text(path, or_empty=True) != lock.text:
        raise PackagesError(
            f"environment: {path} has changed since the run began, and was not resolved for {platform} and Python {version} then; start a new run"
        )
    options = ["--quiet", "--format", "pylock.toml", "--no-header", "--python-version", version]
    command = ["pip", "compile", path.name, *options, "--python-platform", platform, *torch]
    text = run_uv(
        str(path),
        command,
        cwd=path.parent,
        environment={"UV_CUDA_DRIVER_VERSION": facts.driver} if torch else None,
        steps=steps,
    )
    if file is not None:
        write_whole(file, text.encode())
    return Lock(lock.name, text, is_resolved=True)


def _platform(facts: HostFacts) -> str:
    """A host's platform by the name that uv has for it."""
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(facts.machine.lower(), facts.machine)
    kind, _, version = facts.libc.partition(" ")
    if facts.system == "Darwin":
        return f"{machine}-apple-darwin"
    if kind == "glibc" and re.fullmatch(r"2\.\d+", version):
        minor = max((one for one in _GLIBC if one <= int(version[2:])), default=None)
        if minor is not None and machine in ("x86_64", "aarch64"):
            return f"{machine}-manylinux_2_{minor}"
    return f"{machine}-unknown-linux-{'musl' if kind == 'musl' else 'gnu'}"


def _cached(key: Sequence[str], make: Callable[[], str]) -> str:
    name = hashlib.sha256("\0".join(key).encode()).hexdigest()
    file = cache_folder() / "locks" / f"{name}.toml"
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        text = make()
    write_whole(file, text.encode())
    return text


def locks_to_bytes(locks: Mapping[str, Lock]) -> bytes:
    """The locks as the journal keeps them."""
    return json.dumps({"version": 1, "locks": {host: lock.to_json() for host, lock in locks.items()}}).encode()


def locks_from_bytes(data: bytes | None) -> dict[str, Lock]:
    """What a journal kept; nothing where it is one of a run without environments.

    Raises:
        ValueError: they are none.
    """
    if not data:
        return {}
    content: Any = json.loads(data)
    try:
        if content["version"] != 1:
            raise ValueError(f"locks of version {str(content['version'])[:20]}")
        return {str(host): Lock.from_json(lock) for host, lock in content["locks"].items()}
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def write_whole(file: Path, data: bytes) -> None:
    """Write a file that is there as a whole or not at all.

    Raises:
        PackagesError: it cannot be written.
    """
    try:
        make_user_folder(file.parent)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.{os.urandom(4).hex()}")
        temporary.write_bytes(data)
        temporary.replace(file)
    except OSError as error:
        raise PackagesError(f"environment: {file} cannot be written: {error.strerror or error}") from None


def _text(path: Path, *, or_empty: bool = False) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_LOCK + 1)
    except FileNotFoundError:
        if or_empty:
            return ""
        raise PackagesError(f"environment: {path} is gone") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PackagesError(f"environment: {path} cannot be read: {error}") from None
    if len(text) > _MAX_LOCK:
        raise PackagesError(f"environment: {path} has more than {_MAX_LOCK} characters")
    return text
