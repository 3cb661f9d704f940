"""The code of a run that is sent to hosts: its snapshot, and what prevents its import there.

Rule: bad code is refused before anything is sent.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import remote_agent
from launcher.code.files.snapshot import Snapshot, take
from launcher.errors import CodeError
from launcher.serialization.modules import main_module_name

__all__ = ["take_code"]


def take_code(
    root: Path, main_module: str | None, max_bytes: int, taken: Snapshot | None = None
) -> tuple[Snapshot, str | None]:
    """Return the snapshot of the project of a file or folder, and the name under which hosts import `__main__`; None if
    they cannot.

    Args:
        taken: the snapshot, if there is one already.

    Raises:
        CodeError: the code cannot be sent.
    """
    snapshot = taken if taken is not None else take(root, max_bytes=max_bytes)
    _refuse_agents_namesake(snapshot, root)
    main_file = getattr(sys.modules.get("__main__"), "__file__", None)
    is_main = main_file and main_module == main_module_name()
    if is_main and snapshot.relative(Path(str(main_file))) == ".":
        # The script that was started lies elsewhere, so hosts cannot import it.
        return snapshot, None
    return snapshot, main_module


def _refuse_agents_namesake(snapshot: Snapshot, root: Path) -> None:
    """Refuse a `remote_agent` in the project. A `launcher` there is fine, because hosts do not use ours."""
    ours = os.path.realpath(str(remote_agent.__file__))
    for folder in snapshot.sys_path(root, sys.path):
        for name in ("remote_agent/__init__.py", "remote_agent.py"):
            file = snapshot.root / folder / name
            if snapshot.has_file(str(file)) and os.path.realpath(file) != ours:
                raise CodeError(
                    f"{file} has the same name as the agent on the hosts, 'remote_agent', and the two cannot be "
                    "in one process. Rename it, or move it into a package (mypackage/remote_agent)"
                )
