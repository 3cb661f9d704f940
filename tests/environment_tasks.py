"""Tasks that import what an environment has. Hosts import this module, and have no package of the tests'."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any


def versions(cfg: Any) -> dict[str, str]:
    """The versions of the modules that the config names, and the prefix of the Python that runs this."""
    found = {name: str(__import__(name).version) for name in cfg.modules}
    return {**found, "prefix": sys.prefix, "python": "{}.{}".format(*sys.version_info[:2])}


def packages(cfg: Any) -> dict[str, str]:
    """The versions of the modules that the config names: the same in each environment of the same packages."""
    return {name: str(__import__(name).version) for name in cfg.modules}


def touch(path: str) -> dict[str, str]:
    """Make a file that a job on the same host waits for."""
    import punct

    with open(path, "w", encoding="ascii"):
        return {"punct": punct.version}


def zygote(cfg: Any) -> list[str]:
    """The command line of the process that forked this job, and the variable that says which environment is active."""
    return [*Path(f"/proc/{os.getppid()}/cmdline").read_text().split("\0")[:-1], os.environ["VIRTUAL_ENV"]]
