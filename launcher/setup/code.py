"""The code of a run that travels: its snapshot, and what keeps it from being imported on a host.

Rule: what is wrong with it is refused before anything is sent.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import remote_agent
from launcher.code.snapshot import Snapshot, take
from launcher.errors import CodeError
from launcher.serialization.modules import main_module_name

__all__ = ["take_code"]


def take_code(root: Path, main_module: str | None, max_bytes: int) -> tuple[Snapshot, str | None]:
    """The snapshot of the project of a file or folder, and the name under which hosts import `__main__`; None where they cannot.

    Raises:
        CodeError: it cannot travel.
    """
    snapshot = take(root, max_bytes=max_bytes)
    _refuse_agents_namesake(snapshot, root)
    main_file = getattr(sys.modules.get("__main__"), "__file__", None)
    is_main = main_file and main_module == main_module_name()
    if is_main and snapshot.relative(Path(str(main_file))) == ".":
        # The script that was started lies elsewhere: hosts cannot import it.
        return snapshot, None
    return snapshot, main_module


def _refuse_agents_namesake(snapshot: Snapshot, root: Path) -> None:
    """A `launcher` of the project's own is the application's there, and ours nobody's; the agent is `remote_agent`."""
    ours = os.path.realpath(str(remote_agent.__file__))
    for folder in snapshot.sys_path(root, sys.path):
        for name in ("remote_agent/__init__.py", "remote_agent.py"):
            file = snapshot.root / folder / name
            if snapshot.has_file(str(file)) and os.path.realpath(file) != ours:
                raise CodeError(
                    f"{file} has the name 'remote_agent', which is also that of the agent on the hosts: the two cannot be "
                    "in one process. Rename it, or move it into a package (mypackage/remote_agent)"
                )
