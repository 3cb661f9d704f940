"""Folders on the controller that only this user can read.

Rule: every folder that is made is 0700, whatever the umask. The agent of this machine uses the same cache and state folders as the
controller, and refuses folders that a group can write to.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

__all__ = ["make_private_folder"]


def make_private_folder(folder: Path) -> None:
    """Make a folder and the missing ones above it. Folders that exist are not changed.

    Raises:
        OSError: a folder cannot be made.
    """
    if not folder.is_dir():
        make_private_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
