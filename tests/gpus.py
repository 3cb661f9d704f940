"""GPUs of a machine that has none: a false NVML, which `cc` makes from `tests/false_nvml.c`, and a false `nvidia-smi`.

Rule: names are random, because leases hold on the whole machine, and other tests run on it at the same time.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from remote_agent.system import gpus
from tests.requirements import need_programs

__all__ = ["TOOL", "FalseGpus"]

_SOURCE = Path(__file__).parent / "false_nvml.c"
#: An `nvidia-smi` that prints what the file `$FALSE_NVML` has; nothing of processes on instances of a divided GPU.
TOOL = """#!/bin/sh
grep -qE '^(hang|down)' "$FALSE_NVML" && exit 9
case "$1" in
    -L) awk '/^gpu/ {print "GPU " n++ ": False GPU (UUID: " $2 ")"; m = 0} /^mig/ {print "  MIG 1g.5gb Device " m++ ": (UUID: " $2 ")"}' ;;
    --query-gpu=*) awk '/^gpu/ {print $2 ", " $3 ", " $4}' ;;
    --query-compute-apps=*) awk '/^gpu/ {u = $2} /^mig/ {u = ""} /^proc/ && u {print u ", " $2 ", " ($3 < 0 ? "[N/A]" : $3)}' ;;
esac < "$FALSE_NVML"
"""


@functools.cache
def _compiled() -> tempfile.TemporaryDirectory[str]:
    """A folder with the library, for all tests of this process."""
    folder = tempfile.TemporaryDirectory(prefix="false-nvml-")
    library = Path(folder.name) / "libnvidia-ml.so.1"
    subprocess.run([need_programs("cc")["cc"], "-shared", "-fPIC", "-o", str(library), str(_SOURCE)], check=True)
    return folder


@dataclass
class FalseGpus:
    """The GPUs that the driver shows. A test changes `lines` and calls `write`."""

    folder: Path
    lines: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path, monkeypatch: pytest.MonkeyPatch, count: int = 0, *, nvml: bool = True) -> FalseGpus:
        """Give this process and those that it starts a driver with this many GPUs. `nvml`: else `nvidia-smi` alone."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        library = folder / "libnvidia-ml.so.1"
        if nvml:
            shutil.copy(Path(_compiled().name) / library.name, library)
        tool = folder / "nvidia-smi"
        tool.write_text(TOOL)
        tool.chmod(0o755)
        made = cls(folder, [f"gpu {cls.new_name()} 16384 3" for _ in range(count)])
        made.write()
        monkeypatch.setenv("FALSE_NVML", str(folder / "gpus"))
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
        # This process looked at that variable when it started.
        monkeypatch.setattr(gpus, "_LIBRARY", str(library))
        return made

    @staticmethod
    def new_name(kind: str = "GPU") -> str:
        """A UUID that nobody else has."""
        return f"{kind}-{uuid.uuid4()}"

    def write(self, *lines: str) -> None:
        """Show the driver these lines, or those that the test has changed."""
        self.lines = list(lines) or self.lines
        new = self.folder / "gpus.new"
        new.write_text("".join(f"{line}\n" for line in self.lines))
        new.chmod(0o644)
        new.replace(self.folder / "gpus")

    @property
    def names(self) -> list[str]:
        """The UUIDs, in order."""
        return [line.split()[1] for line in self.lines if line.startswith(("gpu", "mig"))]
