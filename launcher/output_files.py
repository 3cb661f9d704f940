"""What a host sends for an output directory, written here without trusting a word of it.

Rule: everything is opened relative to a folder descriptor, component by component, following no link, those that hosts send among
them; a name that would lead out, collide, touch a folder of ours or exceed a cap is refused by name and costs the job nothing
else. A link is made where it cannot lead out, whatever else is there or comes later.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import unicodedata
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.host_caps import limit

__all__ = [
    "MAX_BYTES",
    "MAX_FILES",
    "OWN",
    "OutputFolder",
    "Owners",
    "Ownership",
    "RefusedFile",
    "UnusableFolder",
    "own_folder",
]

#: The folder below an output directory that is ours: streams, and in a run's folder the journal.
OWN = ".launcher"
MAX_FILES = limit("files")
MAX_BYTES = limit("bytes")
#: Refusals that are kept by name.
MAX_REFUSED = limit("refused")
#: Files that are begun and not whole; an agent sends one after the other.
MAX_UNFINISHED = limit("unfinished")
#: Bytes beyond a stream's cap that say that it was cut there.
_CUT_MARK = 1024
_MAX_NAME = limit("file_name")
#: Characters of a path in a message.
_MAX_SHOWN = 1000
#: Bytes of files that are compared at once.
_PIECE = 1 << 18
_MAX_DEPTH = limit("file_depth")
#: Bytes of a path, or of what a link says.
_MAX_PATH = limit("file_path")
#: Links that one may lead through.
_MAX_HOPS = 40
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Errors of the disk or of this process, which are not the file's fault and may pass.
_OURS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
)


class RefusedFile(Exception):
    """A file was not written; the text says why."""


class UnusableFolder(Exception):
    """The output directory itself cannot be made, now or later: its name is too long, a file is in its place."""


class Owners:
    """Which job wrote what in one folder, as far as it is known; alive as long as one of them is under way."""

    def __init__(self, started: float, *, is_shared: bool, is_fresh: bool) -> None:
        self.guard = threading.Lock()
        self.started = started
        self.is_shared = is_shared
        self._is_fresh = is_fresh
        self._jobs: dict[str, int] = {}
        self._nums: set[int] = set()

    def join(self, num: int) -> None:
        """One more job has this folder."""
        self._nums.add(num)
        self.is_shared = self.is_shared or len(self._nums) > 1

    def take(self, path: str, num: int) -> None:
        """This job writes it."""
        self._jobs[path] = num

    def is_anothers(self, path: str, num: int, changed: float) -> bool:
        """What is there, and was changed then, is of this run's time and not that job's.

        What was there before the run gives way, as it does where a program opens it to write. Where another controller may
        have written the job's own files, only those of a folder that jobs share are kept.
        """
        owner = self._jobs.get(path)
        if owner is not None:
            return owner != num
        return (self.is_shared or self._is_fresh) and changed >= self.started


class Ownership:
    """Who wrote what in the folders of one run.

    Args:
        started: when the run began, seconds since the epoch.
        has_others: (job, folder) -> other jobs of the run write there, too.
    """

    def __init__(self, started: float, has_others: Callable[[int, Path], bool]) -> None:
        self._started = started
        self._has_others = has_others
        self._is_fresh = True
        self._live: weakref.WeakValueDictionary[Path, Owners] = weakref.WeakValueDictionary()
        self._guard = threading.Lock()

    def resume(self, started: float) -> None:
        """Another controller began the run then, and may have written what nobody here knows of."""
        self._is_fresh = False
        self._started = min(started, self._started)

    def of(self, num: int, folder: Path) -> Owners:
        """Of the folder of a job."""
        is_shared = self._has_others(num, folder)
        with self._guard:
            owners = self._live.get(folder)
            if owners is None:
                owners = self._live[folder] = Owners(self._started, is_shared=is_shared, is_fresh=self._is_fresh)
            owners.join(num)
            return owners


def own_folder(output_dir: Path, num: int) -> Path:
    """Where what a job printed lies: in `.launcher`, or in a folder of its own there where jobs share their output directory."""
    shared = output_dir / OWN / _job(num)
    return shared if shared.is_dir() else output_dir / OWN


def _job(num: int) -> str:
    return f"job-{num}"


@dataclass
class OutputFolder:
    """The local output directory of one job, made when the first thing is written to it."""

    path: Path
    num: int = 0
    #: Where jobs may share the folder; None: nobody else writes there.
    owners: Owners | None = None
    max_files: int = MAX_FILES
    max_bytes: int = MAX_BYTES
    #: Of stdout, and of stderr; the host cuts them there itself.
    max_stream_bytes: int = MAX_BYTES
    refused: list[tuple[str, str]] = field(default_factory=list)
    #: (path, where it is instead): what another job has there is kept.
    apart: list[tuple[str, str]] = field(default_factory=list)
    _folders: dict[str, int] = field(default_factory=dict)
    #: path -> (descriptor, bytes so far, number of its part)
    _partial: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    #: Folded name -> name, for disks on which names that differ in case are one file.
    _names: dict[str, str] = field(default_factory=dict)
    _parts: int = 0
    #: Bytes of each stream that came on this connection.
    _ends: dict[str, int] = field(default_factory=dict)
    #: Files that were not there before, over all connections: what comes again takes the place of what came.
    _new: int = 0
    _files: int = 0
    _made: int = 0
    _bytes: int = 0
    _is_closed: bool = False
    #: Of streams; known when the first byte of one comes.
    _streams: str = ""
    _guard: threading.Lock = field(default_factory=threading.Lock)

    # -- folders -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """See whether the directory could be made, and make nothing.

        Raises:
            UnusableFolder: it could not.
            OSError: the disk is gone.
        """
        with self._guard, self._unusable():
            if self._is_closed or "" in self._folders:
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
            if isinstance(error, OSError) and error.errno in _OURS:
                raise
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            where = str(self.path).encode("utf-8", "backslashreplace").decode()
            raise UnusableFolder(f"its output directory cannot be written here: {why}: {where[:_MAX_SHOWN]}") from None

    def _root(self) -> int:
        fd = self._folders.get("")
        if fd is None:
            with self._unusable():
                self.path.mkdir(parents=True, exist_ok=True)
                fd = self._folders[""] = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return fd

    def _folder(self, path: str) -> int:
        if not path:
            return self._root()
        fd = self._folders.get(path)
        if fd is not None:
            return fd
        parent, _, name = path.rpartition("/")
        above = self._folder(parent)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=above)
                self._made += 1
            fd = os.open(name, _FOLDER_FLAGS, dir_fd=above)
        except OSError as error:
            if error.errno in _OURS:
                raise
            raise RefusedFile(f"its folder {path} cannot be used: {error.strerror}") from None
        if len(self._folders) > 64:
            self._close_folders(keep_root=True)
        self._folders[path] = fd
        return fd

    def _check(self, path: str, size: int) -> tuple[str, str]:
        parts = path.split("/")
        if not path or path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in parts):
            raise RefusedFile("its path leads out of the output directory")
        if any(_is_own(part) for part in parts):
            raise RefusedFile(f"{OWN} is ours")
        try:
            names = [part.encode("utf-8") for part in parts]
        except UnicodeEncodeError:
            raise RefusedFile("its name is no text") from None
        if any(len(name) > _MAX_NAME for name in names) or len(path) > _MAX_PATH:
            raise RefusedFile("its name is too long")
        if len(parts) > _MAX_DEPTH:
            raise RefusedFile(f"more than {_MAX_DEPTH} folders deep")
        if self._files >= self.max_files or self._made >= self.max_files:
            raise RefusedFile(f"more than {self.max_files} files")
        if size < 0 or self._bytes + size > self.max_bytes:
            raise RefusedFile(f"more than {self.max_bytes} bytes")
        known = self._names.setdefault(path.casefold(), path)
        folder, _, name = path.rpartition("/")
        if known != path and self._is_there(folder, name):
            raise RefusedFile(f"it is the same file as {known} here")
        return folder, name

    def _is_there(self, folder: str, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._folder(folder), follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _refusal(error) from None
        return True

    # -- files ---------------------------------------------------------------------------------------------------

    def write(self, path: str, mode: int, data: bytes, mtime: int | None = None) -> None:
        """Write a whole file; a refusal is noted in `refused`.

        Args:
            mtime: when it was modified there, in nanoseconds since the epoch.

        Raises:
            OSError: the disk is full or gone.
            UnusableFolder: nothing of the job can be written here.
        """
        with self._guard:
            if self._is_closed:
                return
            with self._alone():
                try:
                    self._check(path, len(data))
                    folder, name = self._place(path, lambda there: self._holds(there, data))
                    if name:
                        self._write_file(folder, name, mode, data, mtime)
                except RefusedFile as refusal:
                    self._refuse(path, str(refusal))
                    return
            self._files += 1
            self._bytes += len(data)

    def _write_file(self, folder: str, name: str, mode: int, data: bytes, mtime: int | None) -> None:
        fd = self._create(folder, name, mode)
        try:
            _write_all(fd, data)
            _set_time(fd, mtime)
        except RefusedFile:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._folder(folder))
            raise
        finally:
            os.close(fd)

    # -- what others have written --------------------------------------------------------------------------------

    def _alone(self) -> contextlib.AbstractContextManager[Any]:
        """While entered, no other job looks at or writes to the folder."""
        return self.owners.guard if self.owners is not None else contextlib.nullcontext()

    def _place(self, path: str, is_same: Callable[[str], bool]) -> tuple[str, str]:
        """(folder, name) where a file goes; no name where it is there already.

        Raises:
            RefusedFile: it can go nowhere.
        """
        owners = self.owners
        if owners is not None:
            if self._is_anothers(path):
                if is_same(path):
                    return "", ""
                beside = _beside(path, self.num)
                self._check(beside, 0)
                if self._is_anothers(beside):
                    raise RefusedFile(f"another job has written it here, and {beside} as well")
                if len(self.apart) < MAX_REFUSED:
                    self.apart.append((path, beside))
                path = beside
            owners.take(path, self.num)
        folder, _, name = path.rpartition("/")
        return folder, name

    def _is_anothers(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        try:
            status = os.stat(name, dir_fd=self._folder(folder), follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _refusal(error) from None
        if stat.S_ISDIR(status.st_mode):
            return False  # it stays in any case
        return self.owners is not None and self.owners.is_anothers(path, self.num, status.st_ctime)

    def _holds(self, path: str, data: bytes) -> bool:
        """It is a file with just this in it."""
        fd = self._open_there(path)
        if fd is None:
            return False
        with os.fdopen(fd, "rb") as file:
            return file.read(len(data) + 1) == data

    def _equals(self, path: str, other: int) -> bool:
        """It is a file with the same in it as an open one."""
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
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._folder(folder))
        except OSError as error:
            if error.errno in _OURS:
                raise
            return None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return None

    def _says(self, path: str, text: str) -> bool:
        """It is a link with this text."""
        folder, _, name = path.rpartition("/")
        try:
            return os.readlink(name, dir_fd=self._folder(folder)) == text
        except OSError:
            return False

    # -- long files ----------------------------------------------------------------------------------------------

    def write_chunk(
        self, path: str, mode: int, size: int, offset: int, data: bytes | memoryview, mtime: int | None = None
    ) -> None:
        """Write the next piece of a long file, which appears under its name when it is whole.

        Raises:
            OSError: the disk is full or gone.
            UnusableFolder: nothing of the job can be written here.
        """
        with self._guard:
            if self._is_closed:
                return
            try:
                if offset == 0:
                    self._begin(path, mode, size)
                if path not in self._partial:
                    return  # refused when it began
                fd, done, part = self._partial[path]
                if offset != done or done + len(data) > size:
                    raise RefusedFile(f"byte {offset} came where {done} was expected")
                _write_all(fd, data)
            except RefusedFile as refusal:
                self._discard(path)
                self._refuse(path, str(refusal))
                return
            done += len(data)
            self._partial[path] = (fd, done, part)
            if done == size:
                self._put_in_place(path, size, mtime)

    def _begin(self, path: str, mode: int, size: int) -> None:
        self._discard(path)
        self._check(path, size)
        if len(self._partial) >= MAX_UNFINISHED:
            # Each holds a descriptor, and none of them has become a file.
            for begun in list(self._partial):
                self._discard(begun)
                self._refuse(begun, "others were begun before it was whole")
        self._parts += 1
        fd = self._create(OWN, self._part(self._parts), mode)
        self._partial[path] = (fd, 0, self._parts)

    def _put_in_place(self, path: str, size: int, mtime: int | None) -> None:
        """The file is whole: give it its name."""
        fd, _, number = self._partial.pop(path)
        own, part = self._folder(OWN), self._part(number)
        try:
            _set_time(fd, mtime)
            self._check(path, size)
            with self._alone():
                folder, name = self._place(path, lambda there: self._equals(there, fd))
                if name:
                    above = self._folder(folder)
                    self._make_room(name, above)
                    os.rename(part, name, src_dir_fd=own, dst_dir_fd=above)
                else:
                    os.unlink(part, dir_fd=own)
        except (RefusedFile, OSError) as problem:
            if isinstance(problem, OSError) and problem.errno in _OURS:
                raise
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part, dir_fd=own)
            self._refuse(path, str(problem))
            return
        finally:
            os.close(fd)
        self._files += 1
        self._bytes += size

    def _part(self, number: int) -> str:
        """The name of a file that is not whole; jobs may share the folder."""
        return f"part.{self.num}.{number}"

    def add_folder(self, path: str, mtime: int | None = None) -> None:
        """Make a folder, and set its time; what is in it must have come before. A refusal is noted in `refused`.

        Raises:
            OSError: the disk is full or gone.
        """
        with self._guard:
            if self._is_closed:
                return
            try:
                self._check(path, 0)
                _set_time(self._folder(path), mtime)
            except RefusedFile as refusal:
                self._refuse(path, str(refusal))

    def add_link(self, path: str, text: str) -> None:
        """Make a link that stays within the output directory; any other is noted in `refused`.

        Raises:
            OSError: the disk is full or gone.
        """
        with self._guard:
            if self._is_closed:
                return
            with self._alone():
                try:
                    self._check(path, 0)
                    self._check_link(path, text)
                    folder, name = self._place(path, lambda there: self._says(there, text))
                    if name:
                        self._make_link(folder, name, text)
                except RefusedFile as refusal:
                    self._refuse(path, str(refusal))
                    return
            self._files += 1

    def _make_link(self, folder: str, name: str, text: str) -> None:
        above = self._folder(folder)
        self._make_room(name, above)
        try:
            os.symlink(text, name, dir_fd=above)
        except OSError as error:
            if error.errno in _OURS:
                raise
            raise RefusedFile(error.strerror or "cannot be made") from None

    def _check_link(self, path: str, text: str) -> None:
        """It leads up through the folders that it lies in, not out of the output directory, and then down, by no link that leads out.

        Raises:
            RefusedFile: it may lead out.
        """
        todo = [(path, text)]
        for _ in range(_MAX_HOPS):
            if not todo:
                return
            path, text = todo.pop()
            place = _goal(path, text)
            if any(_is_own(part) for part in place):
                raise RefusedFile(f"a link into {OWN}, which is ours")
            # What is a link there already, of the host's or of somebody else's, must keep to the same.
            for length in range(1, len(place) + 1):
                found = self._link_at("/".join(place[: length - 1]), place[length - 1])
                if found is not None:
                    todo.append(("/".join(place[:length]), "/".join([found, *place[length:]])))
                    break
        if todo:
            raise RefusedFile("a link through too many others")

    def _link_at(self, folder: str, name: str) -> str | None:
        """What a link that is there says; None where no link is."""
        fd = self._root()
        opened: list[int] = []
        try:
            for part in folder.split("/") if folder else ():
                fd = os.open(part, _FOLDER_FLAGS, dir_fd=fd)
                opened.append(fd)
            return os.readlink(name, dir_fd=fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL):
                return None
            if error.errno in _OURS:
                raise
            raise RefusedFile(f"a link whose goal cannot be looked at: {error.strerror}") from None
        finally:
            for one in opened:
                os.close(one)

    def _refuse(self, path: str, why: str) -> None:
        if len(self.refused) < MAX_REFUSED:
            self.refused.append((path[:_MAX_PATH].encode("utf-8", "backslashreplace").decode(), why))

    def _create(self, folder: str, name: str, mode: int) -> int:
        above = self._folder(folder)
        try:
            self._make_room(name, above)
            return os.open(name, _FILE_FLAGS, 0o777 if mode & 0o100 else 0o666, dir_fd=above)
        except OSError as error:
            raise _refusal(error) from None

    def _make_room(self, name: str, above: int) -> None:
        """What an earlier try left gives way; a folder does not."""
        try:
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            if above != self._folders.get(OWN):
                if self._new >= self.max_files:
                    raise RefusedFile(f"more than {self.max_files} files") from None
                self._new += 1
            return
        if stat.S_ISDIR(status.st_mode):
            raise RefusedFile("a folder of that name is there")
        os.unlink(name, dir_fd=above)

    # -- streams -------------------------------------------------------------------------------------------------

    def write_stream(self, stream: str, offset: int, data: bytes) -> bytes:
        """Put bytes of stdout or stderr at their place in `.launcher/<stream>`; doing it again changes nothing.

        Returns those that go on behind what came before, on this connection. What is beyond the cap is refused by the stream's name.

        Raises:
            OSError: the disk is full or gone.
            UnusableFolder: nothing of the job can be written here.
        """
        with self._guard:
            if self._is_closed:
                return b""
            room = self.max_stream_bytes + _CUT_MARK - offset
            if len(data) > room:
                too_long = (f"{OWN}/{stream}", f"more than {self.max_stream_bytes} bytes")
                if too_long not in self.refused:
                    self._refuse(*too_long)
                if room <= 0:
                    return b""
                data = data[:room]
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                above = self._folder(self._stream_folder())
                try:
                    fd = os.open(stream, flags, 0o666, dir_fd=above)
                except OSError as error:
                    raise _refusal(error) from None
                try:
                    _write_all(fd, data, offset)
                finally:
                    os.close(fd)
            except RefusedFile as refusal:
                told = (f"{OWN}/{stream}", str(refusal))
                if told not in self.refused:
                    self._refuse(*told)
                return b""
            end = self._ends.get(stream, 0)
            self._ends[stream] = max(end, offset + len(data))
            return data[max(0, end - offset) :]

    def end_of(self, stream: str) -> int:
        """How many bytes of a stream have come on this connection."""
        return self._ends.get(stream, 0)

    def _stream_folder(self) -> str:
        """What jobs that share a folder print is kept apart."""
        if not self._streams:
            is_apart = self.owners is not None and self.owners.is_shared
            self._streams = f"{OWN}/{_job(self.num)}" if is_apart else OWN
        return self._streams

    def set_aside(self, attempt: int) -> None:
        """Keep what this attempt printed, in `.launcher/attempt-<N>/`, before another one prints in its place."""
        if not (self.path / OWN).is_dir():
            return
        with self._guard:
            streams = self._streams or (
                OWN if own_folder(self.path, self.num).name == OWN else f"{OWN}/{_job(self.num)}"
            )
            above = self._folder(streams)
            kept = self._folder(f"{streams}/attempt-{attempt}")
            for stream in ("stdout", "stderr"):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(stream, stream, src_dir_fd=above, dst_dir_fd=kept)

    # -- ending --------------------------------------------------------------------------------------------------

    def _discard(self, path: str) -> None:
        """Part of a file is of no use to anybody."""
        partial = self._partial.pop(path, None)
        if partial is None:
            return
        os.close(partial[0])
        with contextlib.suppress(OSError, RefusedFile):
            # Where it cannot be removed it lies among our own.
            os.unlink(self._part(partial[2]), dir_fd=self._folder(OWN))

    def _discard_all(self) -> None:
        for path in list(self._partial):
            self._discard(path)

    def _close_folders(self, *, keep_root: bool) -> None:
        for known in list(self._folders):
            if known or not keep_root:
                os.close(self._folders.pop(known))

    def restart(self) -> None:
        """Everything is sent again from the start, on another connection."""
        with self._guard:
            self._discard_all()
            self._files = self._bytes = self._made = 0
            self._names.clear()
            self._ends.clear()
            self.refused.clear()
            self.apart.clear()

    def release(self) -> None:
        """Let go of folders' descriptors, which are made again when something comes."""
        with self._guard:
            self._close_folders(keep_root=False)

    def close(self) -> None:
        """Let go of all descriptors; what comes now is not written."""
        with self._guard:
            self._is_closed = True
            self._discard_all()
            self._close_folders(keep_root=False)
            self._names.clear()


def _beside(path: str, num: int) -> str:
    """The name of a job's file where another job has that name: its extension stays."""
    folder, slash, name = path.rpartition("/")
    stem, extension = os.path.splitext(name)
    return f"{folder}{slash}{stem}.{_job(num)}{extension}"


def _is_own(name: str) -> bool:
    """It is the name of our folder, or what a disk takes for the same: one that ignores case, or characters without a width."""
    if name.isascii():
        return name.casefold() == OWN
    visible = "".join(one for one in name if unicodedata.category(one) not in ("Cf", "Mn", "Cc"))
    return unicodedata.normalize("NFKC", visible).casefold() == OWN


def _goal(path: str, text: str) -> list[str]:
    """The components of what a link names, seen from the output directory.

    Raises:
        RefusedFile: it leads out, or may.
    """
    parts = [part for part in text.split("/") if part not in ("", ".")]
    place = path.split("/")[:-1]
    up = 0
    while up < len(parts) and parts[up] == "..":
        up += 1
    if not text or text.startswith("/") or "\0" in text or up > len(place) or ".." in parts[up:]:
        raise RefusedFile("a link out of the output directory")
    try:
        is_long = len(text.encode("utf-8")) > _MAX_PATH
    except UnicodeEncodeError:
        raise RefusedFile("a link to a name that is no text") from None
    if is_long or len(parts) > _MAX_DEPTH:
        raise RefusedFile("a link to a name that is too long")
    return place[: len(place) - up] + parts[up:]


def _set_time(fd: int, mtime: int | None) -> None:
    """When it was modified on its host, as far as a disk can keep that; of no consequence where it cannot."""
    if mtime is not None:
        with contextlib.suppress(OSError, OverflowError):
            os.utime(fd, ns=(mtime, mtime))


def _refusal(error: OSError) -> RefusedFile:
    """What keeps one file from being written, as its refusal; what may pass is raised as it is."""
    if error.errno in _OURS:
        raise error
    return RefusedFile(error.strerror or "cannot be written")


def _write_all(fd: int, data: bytes | memoryview, offset: int | None = None) -> None:
    """Write it all, at its place or where the file stands.

    Raises:
        RefusedFile: never to be written: the file would be larger than files may be here.
        OSError: the disk is full or gone.
    """
    view = memoryview(data)
    while view:
        try:
            count = os.write(fd, view) if offset is None else os.pwrite(fd, view, offset)
        except OSError as error:
            raise _refusal(error) from None
        offset = None if offset is None else offset + count
        view = view[count:]
