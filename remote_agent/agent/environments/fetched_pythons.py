"""The Pythons that uv has fetched on this host, in the cache folder.

Rule: such a Python is named by uv's name for it, and not by a path, so the name of an environment is the same before and after it was fetched.
It counts only if uv's installation of it was complete.
"""

import os
import re
from typing import Iterator, List, Optional, Tuple

from remote_agent.shared.disk import remove_tree
from remote_agent.system.private_files import open_private

__all__ = ["FetchedPythons"]

_NAME = re.compile(r"uv:(cpython-(3\.\d{1,3})\.\d{1,3}-[a-z0-9]{1,20}-[a-z0-9_]{1,30}-[a-z0-9]{1,20})")
_WHOLE = "launcher-whole"


class FetchedPythons:
    """Those of a cache folder."""

    def __init__(self, cache: str) -> None:
        self.folder = os.path.join(cache, "pythons")

    def name_of(self, python: str) -> Optional[str]:
        """Return uv's name of a Python; None if it is a path."""
        found = _NAME.fullmatch(python)
        return None if found is None else found.group(1)

    def path(self, python: str) -> Optional[str]:
        """Return the program of a Python that uv has; None if it was not fetched completely, or is none of uv's."""
        found = _NAME.fullmatch(python)
        if found is None:
            return None
        folder = os.path.join(self.folder, found.group(1))
        path = os.path.join(folder, "bin", "python" + found.group(2))
        return path if os.path.exists(os.path.join(folder, _WHOLE)) and os.access(path, os.X_OK) else None

    def keep(self, name: str) -> None:
        """Record that one is complete.

        Raises:
            OSError: the disk.
        """
        os.close(open_private(os.path.join(self.folder, name, _WHOLE), os.O_WRONLY | os.O_CREAT))

    def names(self) -> List[str]:
        """Return uv's names of those that are here, complete or not."""
        try:
            entries = [entry for entry in os.scandir(self.folder) if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return []
        return sorted(entry.name for entry in entries if _NAME.fullmatch("uv:" + entry.name))

    def remove(self, name: str) -> None:
        """Remove one. It does not count as complete from the first moment on.

        Raises:
            OSError: the disk.
        """
        folder = os.path.join(self.folder, name)
        try:
            os.unlink(os.path.join(folder, _WHOLE))
        except FileNotFoundError:
            pass  # it never was complete
        remove_tree(folder)

    def all(self) -> Iterator[Tuple[str, str]]:
        """Yield the name and the program of each, the newest first."""
        try:
            names = os.listdir(self.folder)
        except OSError:
            return
        for name in sorted(names, key=lambda one: [int(part) for part in re.findall(r"\d+", one)[:3]], reverse=True):
            python = "uv:" + name
            path = self.path(python)
            if path is not None:
                yield python, path
