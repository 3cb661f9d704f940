"""uv for a host: one program, by its content.

Rule: it has the version that resolved, so that both read a lock in the same way. Linux hosts get the static program for their machine, from the
same index as everything else. It needs no C library of theirs. If it cannot be had, a host that is certainly alike gets this machine's program.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import time
from pathlib import Path

from launcher.environments.lock import Lock, write_whole
from launcher.environments.select import choose
from launcher.environments.uv import Steps, run_uv, uv_program, uv_version
from launcher.environments.wheels import WheelCache
from launcher.errors import PackagesError
from launcher.util.user_folders import cache_folder
from remote_agent.protocol.fields import is_sha256
from remote_agent.protocol.specs.environment import HostFacts, PythonFacts

__all__ = ["uv_for"]

_MEMBERS = ("/scripts/uv", "/uv")
_MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}
#: Seconds after which an index that did not have it, or did not answer, is asked again.
_TRY_AGAIN = 3600.0


def uv_for(facts: HostFacts, steps: Steps | None = None) -> tuple[Path, str]:
    """Return the uv for a host, as a file here, and its sha256.

    Raises:
        PackagesError: there is none for this host, or it cannot be fetched.
    """
    folder = cache_folder() / "environments" / "uv"
    machine = _MACHINES.get(facts.machine.lower(), facts.machine)
    name = f"{uv_version()}-{facts.system}-{machine}"
    known = _known(folder, name)
    if known is not None:
        return known
    ours = Path(os.path.realpath(uv_program())) if _runs_ours(facts) else None
    if ours is not None and facts.system == "Darwin":
        return ours, _sha256(ours)
    if ours is not None and _failed_lately(folder / f"{name}.failed"):
        return ours, _sha256(ours)
    try:
        return _fetched(facts._replace(machine=machine), folder, name, steps, is_needed=ours is None)
    except PackagesError:
        if ours is None:
            raise
        (steps or Steps()).check()
        write_whole(folder / f"{name}.failed", b"")
        return ours, _sha256(ours)


def _known(folder: Path, name: str) -> tuple[Path, str] | None:
    """What was fetched before, if it is still what it was: its name ends with its sha256."""
    for path in folder.glob(f"{name}.*"):
        sha256 = path.suffix[1:]
        if is_sha256(sha256):
            if _sha256(path) == sha256:
                return path, sha256
            path.unlink(missing_ok=True)
    return None


def _failed_lately(note: Path) -> bool:
    """It could not be had a short while ago: it is not tried for every run of a machine without internet."""
    try:
        return abs(time.time() - note.stat().st_mtime) < _TRY_AGAIN
    except OSError:
        return False


def _runs_ours(facts: HostFacts) -> bool:
    """Whether the program of this machine certainly runs there, by what its wheel says that it needs."""
    if (platform.system(), platform.machine()) != (facts.system, facts.machine):
        return False
    if facts.system == "Darwin":
        return True
    from importlib import metadata

    tags = metadata.distribution("uv").read_text("WHEEL") or ""
    needs = re.findall(r"^Tag: .*-manylinux_2_(\d+)_", tags, re.MULTILINE)
    kind, _, version = facts.libc.partition(" ")
    has = re.fullmatch(r"2\.(\d+).*", version) if kind == "glibc" else None
    return has is not None and bool(needs) and min(map(int, needs)) <= int(has.group(1))


def _fetched(facts: HostFacts, folder: Path, name: str, steps: Steps | None, *, is_needed: bool) -> tuple[Path, str]:
    what = f"uv for {facts.system} on {facts.machine}"
    where = f"{facts.machine}-apple-darwin" if facts.system == "Darwin" else f"{facts.machine}-unknown-linux-musl"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    wanted = folder / f"{uv_version()}.txt"
    write_whole(wanted, f"uv=={uv_version()}\n".encode())
    options = [
        "--quiet",
        "--no-config",
        "--format",
        "pylock.toml",
        "--no-header",
        "--python-version",
        "3.12",
        "--python-platform",
        where,
    ]
    # Where it can be done without, nobody waits for an index that does not answer.
    patience = {} if is_needed else {"UV_HTTP_TIMEOUT": "10", "UV_HTTP_RETRIES": "0"}
    text = run_uv(what, ["pip", "compile", wanted.name, *options], cwd=folder, environment=patience, steps=steps)
    libc = facts.libc if facts.system == "Darwin" else "musl 1.2"
    python = PythonFacts("python3", "3.12.0", "cpython", "cp312", 64)
    (chosen,) = choose(Lock(what, text, is_resolved=True), facts._replace(libc=libc), python)
    if not chosen.is_wheel:
        raise PackagesError(f"environment: there is no {what}")
    import zipfile

    with zipfile.ZipFile(WheelCache({}, steps=steps).fetch(chosen)) as archive:
        member = next((one for one in archive.namelist() if one.endswith(_MEMBERS)), None)
        if member is None:
            raise PackagesError(f"environment: {chosen.file} has no uv")
        data = archive.read(member)
    sha256 = hashlib.sha256(data).hexdigest()
    path = folder / f"{name}.{sha256}"
    write_whole(path, data)
    return path, sha256


def _sha256(path: Path) -> str:
    """Return the sha256 of a file. It is read again only if it has changed."""
    status = path.stat()
    mark = [str(path), status.st_size, status.st_mtime_ns, status.st_ino]
    note = cache_folder() / "environments" / "uv" / f"{hashlib.sha256(json.dumps(mark).encode()).hexdigest()}.sha256"
    try:
        known = note.read_text(encoding="ascii")
        if len(known) == 64:
            return known
    except (OSError, ValueError):
        pass  # it must be read now
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    write_whole(note, digest.hexdigest().encode())
    return digest.hexdigest()
