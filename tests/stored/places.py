"""Puts what a version stored where it was when it was made (`tests/stored/make.py`).

Rule: a test has the folder for itself: what is stored names its paths, so there is one such folder on a machine, and a lock beside it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from launcher.cli import main as cli
from launcher.demo.server import DemoServer
from tests.stored.make import HOST, ROOT, host_environment, lay_out_python, own_root

HERE = Path(__file__).parent
#: By the commit that made it: the first version, the last one before names were fixed, and the first one after.
VERSIONS = sorted(path.name.removesuffix(".tar.xz") for path in HERE.glob("*.tar.xz"))
#: For a test of each of them; the first version quickly.
EACH = [pytest.param(one, marks=[] if one == "4bcb4af" else pytest.mark.slow) for one in VERSIONS]
#: The controller keeps things there, and the host.
FOLDERS = {"HOME": "home", "XDG_STATE_HOME": "state", "XDG_CACHE_HOME": "cache"}


class Stored:
    """The folder with what one version stored."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.environ = {**os.environ, **{name: str(ROOT / folder) for name, folder in FOLDERS.items()}}

    def folder(self, name: str) -> Path:
        """The folder of a run."""
        return ROOT / "runs" / name

    def launcher(self, *arguments: str, code: int = 0, stdin: str = "") -> str:
        """What a command says on stdout; it must end with this exit code."""
        done = subprocess.run(
            [sys.executable, "-c", "from launcher.cli.main import main; main()", *arguments],
            cwd=ROOT / "project",
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == code, f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def look(self, *arguments: str) -> str:
        """What a command that only looks says on stdout, in this process: it is quicker."""
        out = io.StringIO()
        before = Path.cwd()
        os.chdir(ROOT / "project")
        try:
            with (
                mock.patch.dict(os.environ, self.environ),
                contextlib.redirect_stdout(out),
                pytest.raises(SystemExit) as ended,
            ):
                cli.main(arguments)
        finally:
            os.chdir(before)
        assert not ended.value.code, out.getvalue()
        return out.getvalue()

    def json(self, *arguments: str) -> Any:
        """The same as JSON."""
        return json.loads(self.look(*arguments, "--json"))

    def command(self, *command: str) -> str:
        """What a command says on stdout, started in the project's folder."""
        done = subprocess.run(
            command, cwd=ROOT / "project", env=self.environ, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def told(self) -> list[str]:
        """What hooks and jobs have told since."""
        file = ROOT / "told"
        return file.read_text().splitlines() if file.exists() else []

    @contextlib.contextmanager
    def host(self) -> Iterator[DemoServer]:
        """The host with what it had; up as long as this is entered."""
        with DemoServer(HOST, environment=host_environment()) as server:
            (ROOT / "ssh_config").write_text(server.ssh_config.read_text())
            yield server


@contextlib.contextmanager
def put_back(version: str) -> Iterator[Stored]:
    """What a version stored, in its place; gone afterwards."""
    with own_root():
        with tarfile.open(HERE / f"{version}.tar.xz") as archive:
            archive.extractall(ROOT, filter="fully_trusted")
        lay_out_python()
        yield Stored(version)
