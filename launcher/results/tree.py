"""The folders of an output directory and what is in them, reached by descriptors.

Rule: everything is opened relative to a folder's descriptor, component by component, without following links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from launcher.results.names import goal_of, is_own
from launcher.results.owners import OWN
from launcher.results.writing import OURS, RefusedFile, UnusableFolder, refusal_of

__all__ = ["FolderTree"]

#: Characters of a path in a message.
_MAX_SHOWN = 1000
#: How many bytes of files are compared at a time.
_PIECE = 1 << 18
#: How many links a link may lead through.
_MAX_HOPS = 40
#: How many folders are open at the same time.
_MAX_OPEN = 64
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FolderTree:
    """The folders below one folder. They are made when something is put there. For one thread at a time.

    Attributes:
        made: how many of them are new.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.made = 0
        self._open: dict[str, int] = {}

    @property
    def is_open(self) -> bool:
        """Whether the directory was made and its descriptor is open."""
        return "" in self._open

    def check(self) -> None:
        """Check whether the directory could be made, without making anything.

        Raises:
            UnusableFolder: it could not.
            OSError: the disk is gone.
        """
        with self._unusable():
            if "" in self._open:
                return
            above, missing = self.path, []
            while True:
                try:
                    status = os.stat(above)
                    break
                except FileNotFoundError:
                    missing.append(above.name)
                    above = above.parent
            if not stat.S_ISDIR(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if missing:
                longest = os.pathconf(above, "PC_NAME_MAX")
                if any(len(os.fsencode(name)) > longest for name in missing):
                    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))

    @contextlib.contextmanager
    def _unusable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in OURS:
                raise
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            where = str(self.path).encode("utf-8", "backslashreplace").decode()
            raise UnusableFolder(f"its output directory cannot be written here: {why}: {where[:_MAX_SHOWN]}") from None

    def root(self) -> int:
        """Return the directory's descriptor.

        Raises:
            UnusableFolder: it cannot be made, now or later.
            OSError: the disk is full or gone.
        """
        fd = self._open.get("")
        if fd is None:
            with self._unusable():
                self.path.mkdir(parents=True, exist_ok=True)
                fd = self._open[""] = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return fd

    def folder(self, path: str) -> int:
        """Return the descriptor of a folder below it.

        Raises:
            RefusedFile: something else is in its place.
            UnusableFolder, OSError: see `root`.
        """
        if not path:
            return self.root()
        fd = self._open.get(path)
        if fd is not None:
            return fd
        parent, _, name = path.rpartition("/")
        above = self.folder(parent)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=above)
                self.made += 1
            fd = os.open(name, _FOLDER_FLAGS, dir_fd=above)
        except OSError as error:
            if error.errno in OURS:
                raise
            raise RefusedFile(f"its folder {path} cannot be used: {error.strerror}") from None
        if len(self._open) > _MAX_OPEN:
            self.close(keep_root=True)
        self._open[path] = fd
        return fd

    def is_folder(self, path: str, fd: int) -> bool:
        """Whether this descriptor belongs to the folder."""
        return self._open.get(path) == fd

    def __del__(self) -> None:
        # Like a file of Python: one that nobody closes must not keep its descriptors until the process ends.
        self.close(keep_root=False)

    def close(self, *, keep_root: bool) -> None:
        """Close the descriptors. They are opened again when something comes."""
        for known in list(self._open):
            if known or not keep_root:
                os.close(self._open.pop(known))

    def forget(self, path: str) -> None:
        """Close the descriptors of a folder, and of those below it, because they are about to go."""
        for known in [one for one in self._open if one == path or one.startswith(f"{path}/")]:
            os.close(self._open.pop(known))

    def read_own(self, name: str, most: int) -> bytes:
        """Return the first bytes of a file in our own folder; none if it is not there. Nothing is made.

        Raises:
            OSError: the disk is full or gone.
        """
        root = self._open.get("")
        own: int | None = None
        try:
            own = os.open(self.path / OWN if root is None else OWN, _FOLDER_FLAGS, dir_fd=root)
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=own)
        except OSError as error:
            if error.errno in OURS:
                raise
            return b""
        except ValueError:
            return b""  # a name with a NUL
        finally:
            if own is not None:
                os.close(own)
        with os.fdopen(fd, "rb") as file:
            return file.read(most) if stat.S_ISREG(os.fstat(fd).st_mode) else b""

    def status(self, path: str) -> os.stat_result | None:
        """The status of what has this name; None where nothing has."""
        folder, _, name = path.rpartition("/")
        try:
            return os.stat(name, dir_fd=self.folder(folder), follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise refusal_of(error) from None

    def is_same(self, one: str, other: str) -> bool:
        """Both names are there, and are one file."""
        first, second = self.status(one), self.status(other)
        return first is not None and second is not None and os.path.samestat(first, second)

    def holds(self, path: str, data: bytes) -> bool:
        """Whether it is a file with exactly this content."""
        fd = self._open_there(path)
        if fd is None:
            return False
        with os.fdopen(fd, "rb") as file:
            return file.read(len(data) + 1) == data

    def equals(self, path: str, other: int) -> bool:
        """Whether it is a file with the same content as an open file."""
        fd = self._open_there(path)
        if fd is None:
            return False
        with os.fdopen(fd, "rb") as file:
            offset = 0
            while True:
                mine, theirs = os.pread(other, _PIECE, offset), file.read(_PIECE)
                if mine != theirs:
                    return False
                if not mine:
                    return True
                offset += len(mine)

    def _open_there(self, path: str) -> int | None:
        folder, _, name = path.rpartition("/")
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.folder(folder))
        except OSError as error:
            if error.errno in OURS:
                raise
            return None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return None

    def says(self, path: str, text: str) -> bool:
        """Whether it is a link with this text."""
        folder, _, name = path.rpartition("/")
        try:
            return os.readlink(name, dir_fd=self.folder(folder)) == text
        except OSError:
            return False

    def check_link(self, path: str, text: str) -> None:
        """Check that a link leads up only within the output directory, and then down, through no link that leads out.

        Raises:
            RefusedFile: it may lead out.
        """
        todo = [(path, text)]
        for _ in range(_MAX_HOPS):
            if not todo:
                return
            path, text = todo.pop()
            place = goal_of(path, text)
            if any(is_own(part) for part in place):
                raise RefusedFile(f"a link into {OWN}, which is reserved for the launcher")
            # Every existing link on the way must obey the same rule, whoever made it.
            for length in range(1, len(place) + 1):
                found = self._link_at("/".join(place[: length - 1]), place[length - 1])
                if found is not None:
                    todo.append(("/".join(place[:length]), "/".join([found, *place[length:]])))
                    break
        if todo:
            raise RefusedFile("a link that goes through too many other links")

    def _link_at(self, folder: str, name: str) -> str | None:
        """Return the text of an existing link; None if there is no link."""
        fd = self.root()
        opened: list[int] = []
        try:
            for part in folder.split("/") if folder else ():
                fd = os.open(part, _FOLDER_FLAGS, dir_fd=fd)
                opened.append(fd)
            return os.readlink(name, dir_fd=fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL):
                return None
            if error.errno in OURS:
                raise
            raise RefusedFile(f"a link whose target cannot be read: {error.strerror}") from None
        finally:
            for one in opened:
                os.close(one)
