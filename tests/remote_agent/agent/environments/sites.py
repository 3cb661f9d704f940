"""A host's cache with what an environment needs, for tests of what is done with it."""

from __future__ import annotations

import copy
import hashlib
import os
import subprocess
import sys
from pathlib import Path

from launcher.environments.uv import uv_program
from remote_agent.agent.environments.build import Builder
from remote_agent.agent.environments.store.store import EnvironmentStore
from remote_agent.agent.spool.code.blobs import BlobStore
from remote_agent.protocol.specs.environment import EnvironmentSpec, Wheel
from tests.packages import make_wheel

__all__ = ["KEY", "Lives", "Site", "script"]

KEY = "b" * 64


class Site:
    """A host's cache with what an environment needs."""

    def __init__(self, folder: Path) -> None:
        self.store = EnvironmentStore(str(folder / "cache"), "now")
        (folder / "cache").mkdir(mode=0o700, parents=True)
        self.store.prepare()
        self.blobs = BlobStore(str(folder / "cache" / "blobs"))
        self.uv = self._put(Path(uv_program()))
        self.wheels = [self._wheel(make_wheel(folder, name)) for name in ("one", "two")]

    def copied(self, folder: Path) -> Site:
        """The same in another folder: for a test that changes what others share."""
        made = copy.copy(self)
        made.wheels = list(self.wheels)
        folder.mkdir(exist_ok=True)
        # With its links: wheels, uv's files and environments are the same files.
        subprocess.run(["cp", "-a", self.store.cache, str(folder / "cache")], check=True)
        made.store = EnvironmentStore(str(folder / "cache"), "now")
        made.blobs = BlobStore(str(folder / "cache" / "blobs"))
        return made

    def _put(self, file: Path) -> str:
        data = file.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        self.blobs.put(sha256, data)
        return sha256

    def _wheel(self, file: Path) -> Wheel:
        return Wheel(file.name.split("-")[0], "1.0", file.name, self._put(file), file.stat().st_size)

    def spec(self, key: str = KEY, python: str = sys.executable) -> EnvironmentSpec:
        """What is built."""
        size = Path(self.blobs.path(self.uv)).stat().st_size
        return EnvironmentSpec(key, python, [one.to_json() for one in self.wheels], self.uv, size, "c" * 64, 600.0)

    def build(self, key: str = KEY) -> str:
        """Build it; returns its Python."""
        Builder(self.store, self.blobs, self.spec(key)).build()
        python = self.store.python(key)
        assert python is not None
        return python

    def parts(self) -> list[str]:
        """What is left of builds."""
        return [path.name for path in Path(self.store.folder).glob(".part.*")]


def script(path: Path, text: str) -> str:
    """A program that stands for uv, or for a Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


class Lives:
    """A pipe that processes hold: it says when the last of them has ended. Each says a word when it begins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        #: So that it does not look as if all had ended before the first began.
        self._mine = os.open(path, os.O_WRONLY)
        os.set_blocking(self._fd, True)

    def hanging(self, more: str = "") -> str:
        """Lines of a program that hangs with a child, and holds the pipe."""
        return f"exec 3> {self.path}\necho begun >&3\n{more}\nsleep 600 &\nwait"

    def wait_begun(self) -> None:
        """Until one has begun."""
        assert os.read(self._fd, len(b"begun\n"))

    def wait_ended(self) -> None:
        """Until all have ended."""
        os.close(self._mine)
        while os.read(self._fd, 4096):
            pass
        os.close(self._fd)
