"""uv for a host: one program, by its content.

Rule: it is of the version that resolved, so that both agree on what a lock means. The program of this machine goes where it runs; elsewhere
goes the static one of the host's platform, from the same index as all else.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import zipfile
from pathlib import Path

from launcher.environments.lock import Lock, write_whole
from launcher.environments.select import choose
from launcher.environments.uv import Steps, run_uv, uv_program, uv_version
from launcher.environments.wheels import WheelCache
from launcher.errors import PackagesError
from launcher.util.user_folders import cache_folder
from remote_agent.protocol.environment_spec import HostFacts, PythonFacts

__all__ = ["uv_for"]

_MEMBERS = ("/scripts/uv", "/uv")


def uv_for(facts: HostFacts, steps: Steps | None = None) -> tuple[Path, str]:
    """The uv of a host, as a file here, and its sha256.

    Raises:
        PackagesError: there is none for it, or it cannot be fetched.
    """
    is_alike = (platform.system(), platform.machine()) == (facts.system, facts.machine)
    if is_alike and (facts.system == "Darwin" or facts.libc.startswith("glibc ")):
        path = Path(os.path.realpath(uv_program()))
    else:
        path = _static(facts, steps)
    return path, _sha256(path)


def _static(facts: HostFacts, steps: Steps | None) -> Path:
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(facts.machine.lower(), facts.machine)
    folder = cache_folder() / "environments" / "uv"
    path = folder / f"{uv_version()}-{facts.system}-{machine}"
    if path.is_file():
        return path
    what = f"uv for {facts.system} on {machine}"
    where = f"{machine}-apple-darwin" if facts.system == "Darwin" else f"{machine}-unknown-linux-musl"
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
    text = run_uv(what, ["pip", "compile", wanted.name, *options], cwd=folder, steps=steps)
    libc = facts.libc if facts.system == "Darwin" else "musl 1.2"
    python = PythonFacts("python3", "3.12.0", "cpython", "cp312", 64)
    (chosen,) = choose(Lock(what, text, is_resolved=True), facts._replace(libc=libc, machine=machine), python)
    if not chosen.is_wheel:
        raise PackagesError(f"environment: there is no {what}")
    with zipfile.ZipFile(WheelCache({}, steps=steps).fetch(chosen)) as archive:
        name = next((one for one in archive.namelist() if one.endswith(_MEMBERS)), None)
        if name is None:
            raise PackagesError(f"environment: {chosen.file} holds no uv")
        write_whole(path, archive.read(name))
    return path


def _sha256(path: Path) -> str:
    """Of a file, which is read once for as long as it does not change."""
    status = path.stat()
    mark = [str(path), status.st_size, status.st_mtime_ns, status.st_ino]
    note = cache_folder() / "environments" / "uv" / f"{hashlib.sha256(json.dumps(mark).encode()).hexdigest()}.sha256"
    try:
        known = note.read_text(encoding="ascii")
        if len(known) == 64:
            return known
    except (OSError, ValueError):
        pass  # it is read now
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    write_whole(note, digest.hexdigest().encode())
    return digest.hexdigest()
