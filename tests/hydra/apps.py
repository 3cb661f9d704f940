"""Applications for the tests. They are written into a folder, and started as a user starts them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["launcher", "python", "run", "write"]


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Write files (name -> text, with any indent) into a folder, and return the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
    return folder


def python(
    *args: object, cwd: Path, check: bool = True, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGS` in a folder. Returns its output. With `check`, it must exit with 0."""
    return _run([sys.executable, *map(str, args)], cwd, check, env)


def launcher(
    *args: object, cwd: Path, check: bool = True, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `launcher ARGS` in a folder."""
    command = [sys.executable, "-c", "from launcher.cli.main import main; main()"]
    return _run([*command, *map(str, args)], cwd, check, env)


def _run(
    command: Sequence[str], cwd: Path, check: bool, env: Mapping[str, str] | None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if check:
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run any other command, which must exit with 0."""
    return _run([*map(str, command)], cwd, check=True, env=None)
