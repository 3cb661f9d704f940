"""A Python that uv can fetch without the internet: uv's list of what there is to fetch, and the archive, as files here."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import sys
import tarfile
from pathlib import Path

__all__ = ["VERSION", "make_fetchable_python", "name_of_python"]

#: It does not exist, so no machine has it.
VERSION = f"3.{sys.version_info[1]}.99"
#: It says that it has this version if an agent asks, and is the Python of this test otherwise.
_PROGRAM = """#!/bin/sh
[ "$2" = -S ] || exec "{python}" "$@"
"{python}" "$@" | sed 's/"version": "[0-9.]*"/"version": "{version}"/'
"""


def name_of_python(libc: str = "gnu") -> str:
    """Uv's name for it on this machine."""
    return f"cpython-{VERSION}-linux-{platform.machine()}-{libc}"


def make_fetchable_python(folder: Path, *, server: str = "", is_altered: bool = False) -> Path:
    """Return uv's list, for `UV_PYTHON_DOWNLOADS_JSON_URL`. The Python in the archive, `python.tar.gz`, starts the one of this test.

    Args:
        server: the address from which uv fetches it; empty: it is a file here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    minor = f"python3.{sys.version_info[1]}"
    files = {
        f"python/bin/{minor}": _PROGRAM.format(python=Path(sys.executable).resolve(), version=VERSION),
        f"python/lib/{minor}/_sysconfigdata__linux_{platform.machine()}-linux-gnu.py": "# system configuration generated and used by the sysconfig module\nbuild_time_vars = {}\n",
    }
    archive = folder / "python.tar.gz"
    with tarfile.open(archive, "w:gz") as made:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), 0o755
            made.addfile(member, io.BytesIO(text.encode()))
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    if is_altered:
        sha256 = "0" * 64
    entry = {
        "name": "cpython", "arch": {"family": platform.machine(), "variant": None}, "os": "linux", "libc": "gnu",
        "major": 3, "minor": sys.version_info[1], "patch": 99, "prerelease": "", "url": f"{server}/python.tar.gz" if server else archive.as_uri(), "sha256": sha256,
        "variant": None, "build": "20250101",
    }  # fmt: skip
    listed = folder / "downloads.json"
    listed.write_text(json.dumps({name_of_python(): entry}))
    return listed
