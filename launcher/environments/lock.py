"""The lock of a source, in the format of pylock.toml; or requirements, which are resolved when the host is known.

Rule: only uv resolves. A lock is stored with the run, so that a resumed or repeated run has the same packages. If uv has made a lock
from the same files before, that one is used; what it resolved without a lock counts for a day, and while the file stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from launcher.environments.source import Source
from launcher.environments.uv import Steps, run_uv, uv_version
from launcher.errors import PackagesError
from launcher.util.user_folders import cache_folder, write_user_file
from remote_agent.protocol.specs.environment import HostFacts, PythonFacts

__all__ = [
    "Lock",
    "compile_for",
    "find_compiled",
    "keep_compiled",
    "locks_from_bytes",
    "locks_to_bytes",
    "read_lock",
    "read_toml",
    "texts_of",
    "write_whole",
]

#: Versions of glibc for which uv has platforms.
_GLIBC = (17, 28, *range(31, 41))
_MAX_LOCK = 64 << 20
#: Seconds for which versions that no lock has are used again.
_FRESH = 86400.0
#: A line of requirements that an index answers alone: no file, folder or option.
_OF_AN_INDEX = re.compile(r"[A-Za-z0-9][\w.-]*\s*(?:[\[(<>=!~;].*)?")
_INCLUDED = re.compile(r"(?:-r|-c|--requirements?|--constraints?)(?:\s*=\s*|\s*)(\S+)")
_MAX_DEPTH = 10
#: Options without a value, and indexes that others keep.
_OF_INDEXES = re.compile(
    r"--(?:no-index|pre|prefer-binary)|(?:--(?:extra-)?index-url|--find-links|-[if])(?:\s*=\s*|\s+)https?://\S+"
)
#: What of this machine a script may name.
_HERE = re.compile(r"file:|\bpath\s*=")
_INDEX_SETTINGS = ("UV_FIND_LINKS", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")


@dataclass(frozen=True)
class Lock:
    """The packages of a run, as they are stored with it.

    Attributes:
        name: the file from which they come, for messages.
        text: a pylock.toml; for requirements, the file itself.
        is_resolved: whether it is a pylock.toml.
        extras, groups: those that were chosen of the pylock.toml.
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
        """The hash of its content."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the lock as plain data, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Lock:
        """Read a stored lock.

        Raises:
            TypeError, KeyError: it is not valid.
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
    """Return the lock of a source. For a uv.lock, it has the chosen extras and groups.

    Raises:
        PackagesError: it cannot be read, or uv cannot make a lock from it.
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
            locked = _text(path.with_name(path.name + ".lock"), or_empty=True)
            if steps is not None and not steps.may_build and not locked and _HERE.search(text):
                raise PackagesError(
                    f"environment: {path} names files of this machine, which may have to be built; this is not done here\n"
                    f"    next: `uv lock --script {path.name}`, if you trust them"
                )
            age = None if locked else 0.0 if _HERE.search(text) or _has_own_index(()) else _FRESH
            return _exported(path, [text, locked], ["--script", path.name], path.parent, steps, age)
        case "uv":
            project = path.parent
            chosen = [part for extra in extras for part in ("--extra", extra)]
            chosen += [part for group in groups for part in ("--group", group)]
            inputs = [text, _text(project / "pyproject.toml", or_empty=True)]
            options = ["--frozen", "--no-emit-project", "--no-default-groups", *chosen]
            return _exported(path, inputs, options, project, steps)


def _indexes(folder: Path) -> tuple[tuple[str, str], ...]:
    """Return the project's indexes. Their names decide in which variables uv looks for credentials."""
    found = []
    for name, keys in (("uv.toml", ()), ("pyproject.toml", ("tool", "uv"))):
        text = _text(folder / name, or_empty=True)
        if "index" not in text:
            continue  # most have none, and the parser's import takes 3 ms of each run
        try:
            content: Any = read_toml(text)
        except ValueError:
            continue  # uv will report what is wrong with it
        for key in keys:
            content = content.get(key, {}) if isinstance(content, dict) else {}
        entries = content.get("index", []) if isinstance(content, dict) else []
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and entry.get("name") and isinstance(entry.get("url"), str):
                parts = urlsplit(entry["url"])
                found.append((str(entry["name"]), urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))))
    return tuple(found)


def read_toml(text: str) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        ValueError: it is not TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def _exported(
    path: Path,
    inputs: Sequence[str],
    options: Sequence[str],
    folder: Path,
    steps: Steps | None,
    age: float | None = None,
) -> Lock:
    command = ["export", "--quiet", "--format", "pylock.toml", "--no-header", *options, *_no_build(steps)]
    # The folder matters, because a lock may name files relative to it.
    key = [uv_version(), str(folder), *command, *inputs]
    if age is not None:
        key += _of_a_resolution(path)
    text = _cached(key, lambda: run_uv(str(path), command, cwd=folder, steps=steps), age)
    return Lock(str(path), text, is_resolved=True)


def _no_build(steps: Steps | None) -> list[str]:
    """Where nothing may be built, uv chooses versions that have wheels. It is part of what a resolution is kept by."""
    return ["--no-build"] if steps is not None and not steps.may_build else []


def find_compiled(lock: Lock, facts: HostFacts, python: PythonFacts, kept: Path | None) -> Lock | None:
    """What requirements were resolved to for a Python of a host before, where a folder keeps it.

    Raises:
        PackagesError: it cannot be read.
    """
    file = _kept_file(lock, facts, python, kept)
    return Lock(lock.name, _text(file), is_resolved=True) if file is not None and file.is_file() else None


def keep_compiled(compiled: Lock, lock: Lock, facts: HostFacts, python: PythonFacts, kept: Path | None) -> None:
    """Keep what requirements were resolved to, where there is a folder that keeps it.

    Raises:
        PackagesError: it cannot be written.
    """
    file = _kept_file(lock, facts, python, kept)
    if file is not None:
        write_whole(file, compiled.text.encode())


def _kept_file(lock: Lock, facts: HostFacts, python: PythonFacts, kept: Path | None) -> Path | None:
    if kept is None:
        return None
    what = f"{lock.sha256}\x00{_minor(python)}\x00{_platform(facts)}\x00{facts.driver}"
    return kept / f"{hashlib.sha256(what.encode()).hexdigest()}.pylock.toml"


def _minor(python: PythonFacts) -> str:
    return ".".join(python.version.split(".")[:2])


def compile_for(
    lock: Lock, facts: HostFacts, python: PythonFacts, kept: Path | None, steps: Steps | None = None
) -> Lock:
    """Resolve requirements for a Python of a host. If there is a folder to keep the result, this is done once.

    Raises:
        PackagesError: uv cannot resolve them.
    """
    found = find_compiled(lock, facts, python, kept)
    if found is not None:
        return found
    version, platform = _minor(python), _platform(facts)
    torch = ["--torch-backend", "auto"] if facts.driver else []
    path = Path(lock.name)
    if _text(path, or_empty=True) != lock.text:
        raise PackagesError(
            f"environment: {path} has changed since the run began, and was not resolved for {platform} and Python {version} then; start a new run"
        )
    options = ["--quiet", "--format", "pylock.toml", "--no-header", "--python-version", version]
    command = ["pip", "compile", path.name, *options, "--python-platform", platform, *torch, *_no_build(steps)]

    def resolve() -> str:
        environment = {"UV_CUDA_DRIVER_VERSION": facts.driver} if torch else None
        return run_uv(str(path), command, cwd=path.parent, environment=environment, steps=steps)

    inputs = _contents(path, lock.text)
    if inputs is None or _has_own_index(lock.indexes):
        text = resolve()
    else:
        key = [uv_version(), str(path), *command, facts.driver, *inputs, *_of_a_resolution(path)]
        text = _cached(key, resolve, _FRESH)
    compiled = Lock(lock.name, text, is_resolved=True)
    keep_compiled(compiled, lock, facts, python, kept)
    return compiled


def _contents(path: Path, text: str, depth: int = 0) -> list[str] | None:
    """Return the contents of requirements and of the files that they include; None if more than these says what they are."""
    found = [text]
    for line in re.sub(r"\\\n", " ", text).splitlines():
        said = re.sub(r"(^|\s)#.*", "", line).strip()
        included = _INCLUDED.fullmatch(said)
        if included is not None and "://" not in included[1] and depth < _MAX_DEPTH:
            file = path.parent / included[1]
            inner = _contents(file, _text(file, or_empty=True), depth + 1)
            if inner is None:
                return None
            found += inner
        elif said and not _OF_INDEXES.fullmatch(said) and not _OF_AN_INDEX.fullmatch(said):
            return None
    return found


def texts_of(lock: Lock) -> Iterator[str]:
    """Yield what a lock is made of: its own text, that of its file, and those of the files that this includes.

    Raises:
        PackagesError: one of them cannot be read.
    """
    yield lock.text
    waiting, seen = [Path(lock.name)], set[Path]()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        text = _text(path, or_empty=True)
        yield text
        lines = (line.partition(" #")[0].strip() for line in text.splitlines() if line.startswith("-"))
        included = (_INCLUDED.fullmatch(line) for line in lines)
        waiting += [path.parent / one[1] for one in included if one is not None and "://" not in one[1]]


def _has_own_index(indexes: Sequence[tuple[str, str]]) -> bool:
    """Whether a folder of this machine is an index: who changes it wants to see that."""
    named = [word for name in _INDEX_SETTINGS for word in os.environ.get(name, "").split()]
    return any("http" not in one for one in [*named, *(address for _, address in indexes)])


def _of_a_resolution(path: Path) -> list[str]:
    """Return what else a resolution depends on, and when the file was written: who touches it has it resolved again."""
    settings = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("UV_"))
    configured = [_text(path.with_name(name), or_empty=True) for name in ("uv.toml", "pyproject.toml")]
    return [str(path.stat().st_mtime_ns), *settings, *configured]


def _platform(facts: HostFacts) -> str:
    """Return uv's name for a host's platform."""
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(facts.machine.lower(), facts.machine)
    kind, _, version = facts.libc.partition(" ")
    if facts.system == "Darwin":
        return f"{machine}-apple-darwin"
    if kind == "glibc" and re.fullmatch(r"2\.\d+", version):
        minor = max((one for one in _GLIBC if one <= int(version[2:])), default=None)
        if minor is not None and machine in ("x86_64", "aarch64"):
            return f"{machine}-manylinux_2_{minor}"
    return f"{machine}-unknown-linux-{'musl' if kind == 'musl' else 'gnu'}"


def _cached(key: Sequence[str], make: Callable[[], str], age: float | None = None) -> str:
    """Return what was made of these; made again if it is more than `age` seconds old."""
    name = hashlib.sha256("\0".join(key).encode()).hexdigest()
    file = cache_folder() / "locks" / f"{name}.toml"
    try:
        if age is None or abs(time.time() - file.stat().st_mtime) < age:
            return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        pass  # there is none
    text = make()
    write_whole(file, text.encode())
    return text


def locks_to_bytes(locks: Mapping[str, Lock]) -> bytes:
    """Return the locks as the journal stores them."""
    return json.dumps({"version": 1, "locks": {host: lock.to_json() for host, lock in locks.items()}}).encode()


def locks_from_bytes(data: bytes | None) -> dict[str, Lock]:
    """Read the locks of a journal; empty for a run without environments.

    Raises:
        ValueError: they are not valid.
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
    """Write a file that is either complete or missing.

    Raises:
        PackagesError: it cannot be written.
    """
    try:
        write_user_file(file, data)
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
