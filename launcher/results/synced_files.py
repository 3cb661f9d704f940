"""The files of an output directory that come while its job runs.

Rule: they are for readers, and change nothing of what is there in the end. A file is written only if nothing has its name, and is changed, moved
or removed only if it came this way and is still the same file (`SyncedList`). When the job has ended, the host is told what is here by its
hash, and sends the rest. When all files have come, what they do not include is removed, and so is the list.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from launcher.hosts.limits import limit
from launcher.results.names import check_path
from launcher.results.owners import OWN
from launcher.results.synced_list import SyncedList
from launcher.results.tree import FolderTree
from launcher.results.writing import OURS, RefusedFile, refusal_of, set_time, write_all
from remote_agent.protocol.specs.held import HeldFile

__all__ = ["SyncedFiles"]

MAX_FILES = limit("synced")
MAX_BYTES = limit("bytes")
#: Bytes of the disk that are left free.
RESERVE = 64 << 20
_PART = "synced.part"
#: How many bytes of files are compared at a time.
_PIECE = 1 << 18
#: How many bytes of a file are hashed at a time.
_HASHED = 1 << 20
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_THERE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class _Part:
    """A file that comes as a whole, and is not complete."""

    path: str
    fd: int
    mode: int
    size: int
    done: int = 0


class SyncedFiles:
    """The files that came early. For one thread at a time; `tree` has the folders."""

    def __init__(self, tree: FolderTree) -> None:
        self._tree = tree
        self._list = SyncedList(tree)
        #: path -> size and time after it was last written. If they are others, somebody here has written it.
        self._written: dict[str, tuple[int, int]] = {}
        self._part: _Part | None = None
        #: path -> how many bytes of it the host was told are here; and the file whose rest comes now, with the bytes that it has.
        self._told: dict[str, int] = {}
        self._growing: tuple[str, int] | None = None

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(len(self._list))

    # -- while the job runs --------------------------------------------------------------------------------------

    def write(self, path: str, mode: int, size: int, base: int, offset: int, data: bytes | memoryview) -> None:
        """Write a part of a file: of a whole one if `base` is 0, else of what is new from byte `base` on.

        Raises:
            RefusedFile: it is not written. It comes when the job has ended.
            OSError: the disk is full or gone.
        """
        made = self._tree.made
        try:
            if base:
                self._append(path, offset, data)
            else:
                self._write_whole(path, mode, size, offset, data)
        except (OSError, RefusedFile):
            self._discard()
            raise
        finally:
            # What is made here does not count as what comes in the end.
            self._tree.made = made

    def _write_whole(self, path: str, mode: int, size: int, offset: int, data: bytes | memoryview) -> None:
        if offset == 0:
            self._begin(path, mode, size)
        part = self._part
        if part is None or part.path != path:
            return  # it was refused when it began
        if part.size != size or part.done != offset or offset + len(data) > size:
            raise RefusedFile(f"byte {offset} came, but byte {part.done} was expected")
        write_all(part.fd, data)
        part.done += len(data)
        if part.done == size:
            self._put_in_place(part)

    def _begin(self, path: str, mode: int, size: int) -> None:
        self._discard()
        self._check(path, size)
        own = self._tree.folder(OWN)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_PART, dir_fd=own)
        try:
            fd = os.open(_PART, _NEW, 0o777 if mode & 0o100 else 0o666, dir_fd=own)
        except OSError as error:
            raise refusal_of(error) from None
        self._part = _Part(path, fd, mode, size)
        self._check_room(fd)

    @staticmethod
    def _check_room(fd: int) -> None:
        """Leave some room on the disk for results and the journal.

        Raises:
            OSError: there is not enough.
        """
        disk = os.fstatvfs(fd)
        if disk.f_bavail * disk.f_frsize < RESERVE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _check(self, path: str, size: int) -> None:
        check_path(path)
        known = self._list.inodes
        if not 0 <= size <= MAX_BYTES:
            raise RefusedFile(f"more than {MAX_BYTES} bytes")
        if path in known:
            if self._status(path) is not None:
                return
        elif len(self._list) + path.count("/") >= MAX_FILES:
            raise RefusedFile(f"more than {MAX_FILES} files")
        if self._has_folder(path.rpartition("/")[0]) and self._tree.status(path) is not None:
            raise RefusedFile("something that did not come this way has its name")

    def _has_folder(self, folder: str) -> bool:
        """Whether a folder is there. It is not made."""
        above = ""
        for name in folder.split("/") if folder else ():
            try:
                above = f"{above}/{name}" if above else name
                if self._tree.status(above) is None:
                    return False
                self._tree.folder(above)
            except RefusedFile:
                return False  # something else is in its place
        return True

    def _put_in_place(self, part: _Part) -> None:
        """Give a complete file its name, or add to the file that has it what is new."""
        self._check(part.path, part.size)
        if not self.extend(part.path, part.mode, part.size, lambda size, offset: os.pread(part.fd, size, offset)):
            folder, _, name = part.path.rpartition("/")
            self._make_folders(folder)
            status = self._status(part.path)
            self._list.add(part.path, os.fstat(part.fd).st_ino, None if status is None else status.st_ino)
            try:
                os.rename(_PART, name, src_dir_fd=self._tree.folder(OWN), dst_dir_fd=self._tree.folder(folder))
            except OSError as error:
                raise refusal_of(error) from None
            self._remember(part.path, part.fd)
        self._discard()

    def _append(self, path: str, offset: int, data: bytes | memoryview) -> None:
        status = self._status(path)
        if status is None or not 0 < offset <= status.st_size or status.st_nlink != 1:
            raise RefusedFile("what is before it is not here")
        if offset + len(data) > MAX_BYTES:
            raise RefusedFile(f"more than {MAX_BYTES} bytes")
        fd = self._open(path, status)
        if fd is None:
            raise RefusedFile("what is before it is not here")
        try:
            self._check_room(fd)
            # Over another link, some of it may come again.
            write_all(fd, data, offset)
        finally:
            self._remember(path, fd)
            os.close(fd)

    def _remember(self, path: str, fd: int) -> None:
        status = os.fstat(fd)
        self._written[path] = status.st_size, status.st_mtime_ns

    def _make_folders(self, folder: str) -> None:
        above = ""
        for name in folder.split("/") if folder else ():
            path = f"{above}/{name}" if above else name
            if self._tree.status(path) is None:
                self._list.add_folder(path)
            self._tree.folder(path)
            above = path

    def drop_part(self) -> None:
        """Remove a file that is not complete. Those that are stay. What the host was told does not hold any more."""
        self._discard()
        self._told.clear()
        self._growing = None

    def release(self) -> None:
        """Close what can be opened again."""
        self._list.close()

    def close(self) -> None:
        """Close all descriptors."""
        self._discard()
        self._list.close()

    def __contains__(self, path: str) -> bool:
        return path in self._list.inodes

    def _discard(self) -> None:
        """Remove an incomplete file."""
        part, self._part = self._part, None
        if part is not None:
            os.close(part.fd)
            with contextlib.suppress(OSError, RefusedFile):
                os.unlink(_PART, dir_fd=self._tree.folder(OWN))

    # -- when the job has ended ----------------------------------------------------------------------------------

    def held(self) -> list[HeldFile]:
        """Return what of the files is here, by its hash. They may be extended by `extend_told` then.

        Raises:
            OSError: the disk is gone.
        """
        found = []
        self._told.clear()
        self._growing = None
        for path in self._list.inodes:
            with contextlib.suppress(RefusedFile):
                one = self._held(path)
                if one is not None:
                    self._told[path] = one.size
                    found.append(one)
        return found

    def _held(self, path: str) -> HeldFile | None:
        status = self._status(path)
        if status is None or status.st_nlink != 1 or not status.st_size:
            return None
        fd = self._open(path, status)
        if fd is None:
            return None
        with os.fdopen(fd, "rb", buffering=0) as file:
            self._remember(path, fd)
            digest, size = hashlib.sha256(), 0
            while data := file.read(_HASHED):
                digest.update(data)
                size += len(data)
            is_same = self._status(path) is not None and size == status.st_size
        return HeldFile(path, size, digest.hexdigest(), bool(status.st_mode & 0o100)) if is_same else None

    def extend_told(self, path: str, size: int, base: int, offset: int, data: bytes | memoryview, mtime: int) -> bool:
        """Add to a file what comes after the bytes that the host was told are here. Who reads it, reads on.

        Returns:
            False if they are not here any more. Nothing is written then.

        Raises:
            RefusedFile: it cannot be written, and is removed.
            OSError: the disk is full or gone.
        """
        if offset == base:
            self._growing = (path, base) if self._told.pop(path, 0) == base else None
        status = self._status(path)
        if self._growing != (path, offset) or status is None or status.st_size != offset or status.st_nlink != 1:
            return False
        fd = self._open(path, status)
        if fd is None:
            return False
        try:
            write_all(fd, data, offset)
            if offset + len(data) == size:
                set_time(fd, mtime)
        except RefusedFile:
            self._remember(path, fd)
            self._remove(path)
            raise
        finally:
            self._remember(path, fd)
            os.close(fd)
        self._growing = (path, offset + len(data))
        return True

    def extend(
        self, path: str, mode: int, size: int, read: Callable[[int, int], bytes], mtime: int | None = None
    ) -> bool:
        """Make the file of this name complete, if it is one of these and a beginning of the content. Who reads it, reads on.

        Args:
            read: (size, offset) -> bytes of the content.

        Returns:
            Whether the file now has that content.

        Raises:
            OSError: the disk is full or gone.
        """
        status = self._status(path)
        is_alike = status is not None and bool(status.st_mode & 0o100) == bool(mode & 0o100)
        if status is None or not is_alike or status.st_size > size or status.st_nlink != 1:
            return False
        fd = self._open(path, status)
        if fd is None:
            return False
        try:
            offset = 0
            while offset < status.st_size:
                here = os.pread(fd, min(_PIECE, status.st_size - offset), offset)
                if not here or here != read(len(here), offset):
                    return False
                offset += len(here)
            while offset < size:
                more = read(min(_PIECE, size - offset), offset)
                if not more:
                    return False
                write_all(fd, more, offset)
                offset += len(more)
            set_time(fd, mtime)
        finally:
            # Also after an error, because some of it may have been written.
            self._remember(path, fd)
            os.close(fd)
        return True

    def make_way(self, path: str, *, is_folder: bool = False) -> None:
        """Remove what has the place of something that comes: a file where it needs a folder, a folder where it is none.

        Raises:
            RefusedFile, OSError: it cannot be removed.
        """
        known, folders = self._list.inodes, self._list.folders
        if not known:
            return
        parts = path.split("/")
        for length in range(1, len(parts) + is_folder):
            self._remove("/".join(parts[:length]))
        if not is_folder and path in folders:
            below = f"{path}/"
            for one in [one for one in known if one.startswith(below)]:
                self._remove(one)
            for folder in sorted((one for one in folders if one == path or one.startswith(below)), reverse=True):
                self._remove_folder(folder)

    def finish(self, came: set[str]) -> None:
        """Remove the files that the job does not have in the end, and the list. `came`: all files, links and folders that it has.

        Raises:
            RefusedFile, OSError: something cannot be removed.
        """
        for path in [one for one in self._list.inodes if one not in came]:
            self._remove(path)
        for folder in sorted(self._list.folders - came, reverse=True):
            self._remove_folder(folder)
        self._discard()
        if self._list.is_there:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_PART, dir_fd=self._tree.folder(OWN))
        self._list.remove()
        self._written, self._told = {}, {}

    def _remove(self, path: str) -> None:
        """Remove a file, if it is one of these. The time of its folder stays."""
        if self._status(path) is None:
            return
        folder, _, name = path.rpartition("/")
        with self._keeping_time(folder) as above, contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=above)

    def _remove_folder(self, path: str) -> None:
        """Remove a folder, if it is empty."""
        folder, _, name = path.rpartition("/")
        if not self._has_folder(path):
            return
        self._tree.forget(path)
        with self._keeping_time(folder) as above, contextlib.suppress(OSError):
            # What is not of these is in it, and stays; or something else has the name by now.
            os.rmdir(name, dir_fd=above)
        self._list.folders.discard(path)

    @contextlib.contextmanager
    def _keeping_time(self, folder: str) -> Iterator[int]:
        above = self._tree.folder(folder)
        before = os.fstat(above)
        try:
            yield above
        finally:
            set_time(above, before.st_mtime_ns)

    # -- which they are ------------------------------------------------------------------------------------------

    def _status(self, path: str) -> os.stat_result | None:
        """Return the status of a file that is one of these, and still the same; None for any other."""
        inodes = self._list.inodes.get(path)
        if not inodes or not self._has_folder(path.rpartition("/")[0]):
            return None
        status = self._tree.status(path)
        if status is None:
            return None
        is_ours = stat.S_ISREG(status.st_mode) and status.st_ino in inodes
        now = status.st_size, status.st_mtime_ns
        return status if is_ours and self._written.get(path, now) == now else None

    def _open(self, path: str, status: os.stat_result) -> int | None:
        """Open a file that has this status."""
        folder, _, name = path.rpartition("/")
        try:
            fd = os.open(name, _THERE, dir_fd=self._tree.folder(folder))
        except OSError as error:
            if error.errno in OURS:
                raise
            return None
        if os.path.samestat(os.fstat(fd), status):
            return fd
        os.close(fd)
        return None
