"""Runs uv on this machine.

Rule: uv decides which versions fit together, and nobody else. What it says when it fails is told, without the secrets that a URL may have.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.errors import PackagesError

__all__ = ["run_uv", "uv_program", "uv_version", "without_secrets"]

_LAST_LINES = 20
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")


@functools.lru_cache(maxsize=1)
def uv_program() -> str:
    """The path of uv.

    Raises:
        PackagesError: it is not installed.
    """
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        raise PackagesError(
            "environment: uv is needed on this machine; `pip install 'hydra-remote-launcher[environments]'` brings it"
        ) from None


@functools.lru_cache(maxsize=1)
def uv_version() -> str:
    """The version of uv."""
    from importlib.metadata import version

    return version("uv")


def run_uv(
    what: str, arguments: Sequence[str], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Run uv; returns what it printed.

    Args:
        what: what for, for the message of an error.

    Raises:
        PackagesError: it failed; with its last lines.
    """
    values = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    values.update(environment or {})
    values["NO_COLOR"] = "1"
    try:
        done = subprocess.run(
            [uv_program(), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=cwd,
            env=values,
            check=False,
        )
    except OSError as error:
        raise PackagesError(f"environment: uv cannot be started: {error.strerror or error}") from None
    if done.returncode:
        said = without_secrets(done.stderr.decode("utf-8", "replace").strip())
        last = "\n".join(said.splitlines()[-_LAST_LINES:])
        raise PackagesError(
            f"environment: {what}: `uv {arguments[0]}` ended with exit status {done.returncode}:\n{last}"
        )
    return done.stdout.decode("utf-8", "replace")


def without_secrets(text: str) -> str:
    """Text without what stands before the `@` of URLs."""
    return _USERINFO.sub("***@", text)
