"""The folder of uv's own cache. Files of environments are hard links into it, so what a loss of power cuts short there would be in all of them.

Rule: what uv has written is trusted once it is on the disk, and until the machine is started again. Before uv writes, a note says so; it is
removed when all of it is on the disk. A note of an earlier life of this machine means that the cache may be cut short: another one is begun, and
the old one stays as it is for whoever uses it. Other machines that share the folder have notes of their own, which say nothing about our memory.

    <cache>/uv/current          the name of the cache that is used
    <cache>/uv/<name>/          a cache
    <cache>/uv/notes/<machine>.<boot>.<key>    uv writes, or has written, for that environment
"""

import hashlib
import os
from typing import List

from remote_agent.system.private_files import make_private_folder, open_private

__all__ = ["UvCache"]

_FIRST = "cache"


class UvCache:
    """uv's cache of this user on this host.

    Args:
        folder: where it lies.
        machine, boot: name this machine, and this life of it.
    """

    def __init__(self, folder: str, machine: str, boot: str) -> None:
        self._folder = folder
        self._machine = _short(machine)
        self._life = "{}.{}.".format(self._machine, _short(boot))

    def begin(self, key: str) -> str:
        """Note that uv will write for an environment; returns the folder of its cache.

        Raises:
            SpoolError, OSError: the disk.
        """
        notes = make_private_folder(os.path.join(make_private_folder(self._folder), "notes"))
        doubts = [name for name in os.listdir(notes) if self._is_doubt(name)]
        if doubts:
            self._begin_another(notes, doubts)
        os.close(open_private(os.path.join(notes, self._life + key), os.O_WRONLY | os.O_CREAT))
        return make_private_folder(os.path.join(self._folder, self._current()))

    def synced(self, key: str) -> None:
        """What was written for an environment is on the disk."""
        try:
            os.unlink(os.path.join(self._folder, "notes", self._life + key))
        except OSError:
            return  # another one did it, or the cache is begun anew once more than it had to be

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
        # Last: whoever dies before has begun another one for nothing, and does so again.
        for name in doubts:
            try:
                os.unlink(os.path.join(notes, name))
            except FileNotFoundError:
                continue  # another one did it


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
