"""The folder of uv's own cache. Files of environments are hard links into it, so a file that a power cut truncates would be in all of them.

Rule: files from uv are trusted until the machine reboots, and after that only if they were on the disk. Before uv writes, a note says so.
The note is removed when everything is on the disk. If there is a note from an earlier boot of this machine, the cache may have truncated
files. Then a new one is begun, and the old one stays for its users. Other machines that share the folder have separate notes, which do not
count here.

    <cache>/uv/current          the name of the cache that is used
    <cache>/uv/<name>/          a cache
    <cache>/uv/notes/<machine>.<boot>.<key>    uv writes or has written for that environment
"""

import hashlib
import os
from typing import List

from remote_agent.system.private_files import make_private_folder, open_private

__all__ = ["UvCache", "uv_caches"]

_FIRST = "cache"
_NOTES = "notes"


def uv_caches(folder: str) -> List[str]:
    """Return the caches in a folder of caches: the one that is used, and older ones."""
    names = [name for name in os.listdir(folder) if name != _NOTES] if os.path.isdir(folder) else []
    return [path for path in (os.path.join(folder, name) for name in names) if os.path.isdir(path)]


class UvCache:
    """uv's cache of this user on this host.

    Args:
        folder: its path.
        machine, boot: the ids of this machine and of this boot.
    """

    def __init__(self, folder: str, machine: str, boot: str) -> None:
        self._folder = folder
        self._machine = _short(machine)
        self._life = "{}.{}.".format(self._machine, _short(boot))

    def begin(self, key: str) -> str:
        """Record that uv will write for an environment. Returns the folder of its cache.

        Raises:
            SpoolError, OSError: the disk.
        """
        notes = make_private_folder(os.path.join(make_private_folder(self._folder), _NOTES))
        doubts = [name for name in os.listdir(notes) if self._is_doubt(name)]
        if doubts:
            self._begin_another(notes, doubts)
        os.close(open_private(os.path.join(notes, self._life + key), os.O_WRONLY | os.O_CREAT))
        return make_private_folder(os.path.join(self._folder, self._current()))

    def renew(self, key: str) -> str:
        """Begin another cache, because the files of this one were altered. Returns its folder, as `begin` does.

        Raises:
            SpoolError, OSError: the disk.
        """
        self._begin_another(os.path.join(self._folder, _NOTES), [])
        return self.begin(key)

    def synced(self, key: str) -> None:
        """Record that everything that was written for an environment is on the disk."""
        try:
            os.unlink(os.path.join(self._folder, _NOTES, self._life + key))
        except OSError:
            return  # another run has removed it, or the cache is begun again once too often

    def _is_doubt(self, name: str) -> bool:
        return name.startswith(self._machine + ".") and not name.startswith(self._life)

    def _current(self) -> str:
        try:
            with open(os.path.join(self._folder, "current"), encoding="ascii") as file:
                name = file.read(100).strip()
        except (OSError, ValueError):
            return _FIRST
        return name if name.isalnum() else _FIRST

    def _begin_another(self, notes: str, doubts: List[str]) -> None:
        path = os.path.join(self._folder, "current")
        temporary = "{}.{}".format(path, os.urandom(6).hex())
        fd = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(os.urandom(6).hex())
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
        # This comes last. A run that dies before it has begun a new cache for nothing, and the next one does so again.
        for name in doubts:
            try:
                os.unlink(os.path.join(notes, name))
            except FileNotFoundError:
                continue  # another run has removed it


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
