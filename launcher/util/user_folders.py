"""Folders of this user alone, on the controller.

Rule: every folder that is made on the way is 0700, whatever the umask. The agent of this machine shares the user's cache and state with
the controller, and refuses what a group can write.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

__all__ = ["make_private_folder"]


def make_private_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing; what is there stays as it is.

    Raises:
        OSError: one cannot be made.
    """
    if not folder.is_dir():
        make_private_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
