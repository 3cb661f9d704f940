"""Writes the files that a host sends for an output directory, without trusting the host.

Rule: everything is opened relative to a folder's descriptor, component by component, without following links, not even
those that hosts send. A name is refused if it would lead out, collide, touch a folder of ours or exceed a cap. The
refusal is reported, and costs the job nothing else. A link is made only if it can never lead out, whatever else is
there or comes later.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.hosts.limits import limit
from launcher.results.job_streams import JobStreams
from launcher.results.names import MAX_PATH, beside, check_path
from launcher.results.owners import OWN, Owners
from launcher.results.synced_files import SyncedFiles
from launcher.results.tree import FolderTree
from launcher.results.writing import OURS, RefusedFile, lengthen, refusal_of, set_time, write_all
from launcher.util.same_name import folded
from remote_agent.protocol.specs.held import HeldFile

__all__ = ["MAX_BYTES", "MAX_FILES", "OutputFolder"]

MAX_FILES = limit("files")
MAX_BYTES = limit("bytes")
#: How many refusals are kept by name.
MAX_REFUSED = limit("refused")
#: How many files may be incomplete at the same time. An agent sends one after the other.
MAX_UNFINISHED = limit("unfinished")
#: Bytes beyond a stream's cap for the line that says that it was cut.
_CUT_MARK = 1024
_FILE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class OutputFolder:
    """The local output directory of one job. It is made when something is first written to it."""

    path: Path
    num: int = 0
    #: Set if jobs may share the folder. None: nobody else writes there.
    owners: Owners | None = None
    max_files: int = MAX_FILES
    max_bytes: int = MAX_BYTES
    #: The cap of stdout and of stderr. The host itself cuts them there.
    max_stream_bytes: int = MAX_BYTES
    #: Waits until the directory may be made, or raises OSError. None: it may be made at any time.
    hold: Callable[[], None] | None = None
    refused: list[tuple[str, str]] = field(default_factory=list)
    #: (path, where it is instead): another job's file has that path, and is kept.
    apart: list[tuple[str, str]] = field(default_factory=list)
    _tree: FolderTree = field(init=False)
    #: Files that came while the job ran; and if there are any, what has come since it ended.
    _synced: SyncedFiles = field(init=False)
    _came: set[str] = field(default_factory=set)
    #: The file whose rest was refused when it began, so that what follows of it is not written.
    _refused_rest: str = ""
    _streams: JobStreams = field(init=False)
    #: path -> (descriptor, bytes so far, number of its part, whether it has holes)
    _partial: dict[str, tuple[int, int, int, bool]] = field(default_factory=dict)
    #: Folded name -> name, for disks that ignore case.
    _names: dict[str, str] = field(default_factory=dict)
    _parts: int = 0
    #: New files, over all connections. A file that comes again replaces the earlier one.
    _new: int = 0
    _files: int = 0
    _bytes: int = 0
    _is_closed: bool = False
    #: Attempts whose streams are yet to be set aside: the folder was not where it should be.
    aside: list[int] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._tree = FolderTree(self.path)
        self._synced = SyncedFiles(self._tree)
        self._streams = JobStreams(self._tree, self.num, self.owners)

    # -- folders -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Check whether the directory could be made, without making anything.

        Raises:
            UnusableFolder: it could not.
            OSError: the disk is gone.
        """
        with self._guard:
            if not self._is_closed:
                self._tree.check()

    def wait_until_it_may_be_made(self) -> None:
        """Wait until the directory may be made. Returns at once if it is open, because it stays in use wherever it is
        moved.

        Raises:
            OSError: it may never be made.
        """
        if self._tree.is_open:
            return
        if self.hold is not None:
            self.hold()
        self.set_aside_pending()
        # What is not there now was never printed. What comes from now on is that of another attempt.
        self.aside.clear()

    def _check(self, path: str, size: int) -> tuple[str, str]:
        check_path(path)
        if self._files >= self.max_files or self._tree.made >= self.max_files:
            raise RefusedFile(f"more than {self.max_files} files")
        if size < 0 or self._bytes + size > self.max_bytes:
            raise RefusedFile(f"more than {self.max_bytes} bytes")
        known = self._names.setdefault(folded(path), path)
        folder, _, name = path.rpartition("/")
        if known != path and self._tree.is_same(known, path):
            raise RefusedFile(f"it is the same file as {known} here")
        return folder, name

    # -- files ---------------------------------------------------------------------------------------------------

    def write(self, path: str, mode: int, data: bytes, mtime: int | None = None) -> None:
        """Write a whole file. A refusal is recorded in `refused`.

        Args:
            mtime: its time of modification on the host, in nanoseconds since the epoch.

        Raises:
            OSError: the disk is full or gone.
            UnusableFolder: nothing of the job can be written here.
        """
        with self._guard:
            if self._is_closed:
                return
            with self._alone(), self._refusing(path):
                self._check(path, len(data))
                self._make_way(path)
                folder, name = self._destination(path, lambda there: self._tree.holds(there, data))
                if name and not self._is_continued(path, mode, len(data), lambda size, at: data[at : at + size], mtime):
                    self._write_file(folder, name, mode, data, mtime)
                self._files += 1
                self._bytes += len(data)

    def _write_file(self, folder: str, name: str, mode: int, data: bytes, mtime: int | None) -> None:
        fd = self._create(folder, name, mode)
        try:
            write_all(fd, data)
            set_time(fd, mtime)
        except RefusedFile:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._tree.folder(folder))
            raise
        finally:
            os.close(fd)

    # -- what others have written --------------------------------------------------------------------------------

    def _alone(self) -> contextlib.AbstractContextManager[Any]:
        """Within this context, no other job reads or writes the folder."""
        return self.owners.guard if self.owners is not None else contextlib.nullcontext()

    def _destination(self, path: str, is_same: Callable[[str], bool]) -> tuple[str, str]:
        """Return the (folder, name) for a file; no name if it is there already.

        Raises:
            RefusedFile: there is no place for it.
        """
        owners = self.owners
        if owners is not None:
            if self._is_anothers(path):
                if is_same(path):
                    return "", ""
                own = beside(path, self.num)
                self._check(own, 0)
                if self._is_anothers(own):
                    raise RefusedFile(f"another job has written it, and also {own}")
                if len(self.apart) < MAX_REFUSED:
                    self.apart.append((path, own))
                path = own
            owners.claim(path, self.num)
        folder, _, name = path.rpartition("/")
        return folder, name

    def _is_anothers(self, path: str) -> bool:
        status = self._tree.status(path)
        if status is None or stat.S_ISDIR(status.st_mode):
            return False  # a folder stays in any case
        return self.owners is not None and self.owners.is_anothers(path, self.num, status.st_ctime)

    # -- long files ----------------------------------------------------------------------------------------------

    def write_chunk(
        self,
        path: str,
        mode: int,
        size: int,
        offset: int,
        data: bytes | memoryview,
        mtime: int | None = None,
        hole: int = 0,
    ) -> None:
        """Write the next part of a long file. The file gets its name when it is complete.

        Args:
            hole: bytes before `offset` that are a hole, on the host and here. They count for the caps like any others.

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
                    return  # it was refused when it began
                fd, done, part, is_sparse = self._partial[path]
                if hole < 0 or offset - hole != done or offset + len(data) > size:
                    raise RefusedFile(f"byte {offset - hole} came, but byte {done} was expected")
                write_all(fd, data, offset)
                if hole and offset == size:
                    lengthen(fd, size)
            except RefusedFile as refusal:
                self._discard(path)
                self._refuse(path, str(refusal))
                return
            done = offset + len(data)
            self._partial[path] = (fd, done, part, is_sparse or hole > 0)
            if done == size:
                self._put_in_place(path, size, mtime)

    def _begin(self, path: str, mode: int, size: int) -> None:
        self._discard(path)
        self._check(path, size)
        if len(self._partial) >= MAX_UNFINISHED:
            # Each of them holds a descriptor, and none has become a file yet.
            for begun in list(self._partial):
                self._discard(begun)
                self._refuse(begun, "other files were begun before it was complete")
        self._parts += 1
        fd = self._create(OWN, self._part(self._parts), mode)
        self._partial[path] = (fd, 0, self._parts, False)

    def _put_in_place(self, path: str, size: int, mtime: int | None) -> None:
        """Give a complete file its name."""
        fd, _, number, is_sparse = self._partial.pop(path)
        own, part = self._tree.folder(OWN), self._part(number)
        try:
            set_time(fd, mtime)
            self._check(path, size)
            with self._alone():
                self._make_way(path)
                folder, name = self._destination(path, lambda there: not is_sparse and self._tree.equals(there, fd))
                mode, read = os.fstat(fd).st_mode, lambda count, at: os.pread(fd, count, at)
                # To read holes takes long, and to add them to the file that came early would fill them.
                if not is_sparse and name and self._is_continued(path, mode, size, read, mtime):
                    name = ""
                if name:
                    above = self._tree.folder(folder)
                    self._make_room(name, above)
                    os.rename(part, name, src_dir_fd=own, dst_dir_fd=above)
                else:
                    os.unlink(part, dir_fd=own)
        except (RefusedFile, OSError) as problem:
            if isinstance(problem, OSError) and problem.errno in OURS:
                raise
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part, dir_fd=own)
            self._refuse(path, str(problem))
            return
        finally:
            os.close(fd)
        self._files += 1
        self._bytes += size

    # -- what came while the job ran -----------------------------------------------------------------------------

    def held(self) -> list[HeldFile]:
        """Return what is here of files that came while the job ran. Only the rest of them need come now (see `write_rest`).

        Raises:
            OSError: the disk is gone.
        """
        with self._guard:
            # Jobs that share a folder settle who has which name as each of their files comes.
            if self._is_closed or (self.owners is not None and self.owners.is_shared):
                return []
            return self._synced.held()

    def write_rest(self, path: str, size: int, base: int, offset: int, data: bytes | memoryview, mtime: int) -> bool:
        """Write the next part of what a file has beyond the `base` bytes that `held` said are here.

        Returns:
            False if they are not here any more, so that the whole file must come.

        Raises:
            OSError: the disk is full or gone.
            UnusableFolder: nothing of the job can be written here.
        """
        with self._guard:
            if self._is_closed or (offset > base and path == self._refused_rest):
                return True
            self._refused_rest = ""
            with self._alone():
                try:
                    self._check(path, size)
                    if self._is_anothers(path):
                        return False
                    self._make_way(path)
                    if not self._synced.extend_told(path, size, base, offset, data, mtime):
                        return False
                    if self.owners is not None:
                        self.owners.claim(path, self.num)
                except RefusedFile as refusal:
                    self._refuse(path, str(refusal))
                    self._refused_rest = path
                    return True
            if offset + len(data) == size:
                self._files += 1
                self._bytes += size
            return True

    def _part(self, number: int) -> str:
        """Return the name of an incomplete file. Jobs may share the folder."""
        return f"part.{self.num}.{number}"

    def add_folder(self, path: str, mtime: int | None = None) -> None:
        """Make a folder, and set its time, so its files must have come before. A refusal is recorded in `refused`.

        Raises:
            OSError: the disk is full or gone.
        """
        with self._guard:
            if self._is_closed:
                return
            with self._refusing(path):
                self._check(path, 0)
                self._make_way(path, is_folder=True)
                set_time(self._tree.folder(path), mtime)

    def add_link(self, path: str, text: str) -> None:
        """Make a link that stays within the output directory. Any other link is recorded in `refused`.

        Raises:
            OSError: the disk is full or gone.
        """
        with self._guard:
            if self._is_closed:
                return
            with self._alone(), self._refusing(path):
                self._check(path, 0)
                self._make_way(path)
                self._tree.check_link(path, text)
                folder, name = self._destination(path, lambda there: self._tree.says(there, text))
                if name:
                    self._make_link(folder, name, text)
                self._files += 1

    def _make_link(self, folder: str, name: str, text: str) -> None:
        above = self._tree.folder(folder)
        self._make_room(name, above)
        try:
            os.symlink(text, name, dir_fd=above)
        except OSError as error:
            if error.errno in OURS:
                raise
            raise RefusedFile(error.strerror or "cannot be made") from None

    @contextlib.contextmanager
    def _refusing(self, path: str) -> Iterator[None]:
        """Record a RefusedFile of the body in `refused`."""
        try:
            yield
        except RefusedFile as refusal:
            self._refuse(path, str(refusal))

    def _refuse(self, path: str, why: str) -> None:
        # What came early under this name is not among the files of the end.
        self._came.discard(path)
        if len(self.refused) < MAX_REFUSED:
            self.refused.append((path[:MAX_PATH].encode("utf-8", "backslashreplace").decode(), why))

    def _create(self, folder: str, name: str, mode: int) -> int:
        above = self._tree.folder(folder)
        try:
            self._make_room(name, above)
            return os.open(name, _FILE_FLAGS, 0o777 if mode & 0o100 else 0o666, dir_fd=above)
        except OSError as error:
            raise refusal_of(error) from None

    def _make_room(self, name: str, above: int) -> None:
        """Remove what an earlier try left at this name, unless it is a folder."""
        try:
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            if not self._tree.is_folder(OWN, above):
                if self._new >= self.max_files:
                    raise RefusedFile(f"more than {self.max_files} files") from None
                self._new += 1
            return
        if stat.S_ISDIR(status.st_mode):
            raise RefusedFile("a folder of that name exists")
        os.unlink(name, dir_fd=above)

    # -- while the job runs --------------------------------------------------------------------------------------

    def sync(self, path: str, mode: int, size: int, base: int, offset: int, data: bytes | memoryview) -> None:
        """Write a part of a file while its job runs (see `SyncedFiles`). What is refused comes when the job has ended.

        Raises:
            OSError: the disk is full or gone.
            UnusableFolder: nothing of the job can be written here.
        """
        with self._guard:
            # Jobs that share a folder settle who has which name when they end.
            if not self._is_closed and self.max_files and not (self.owners is not None and self.owners.is_shared):
                with contextlib.suppress(RefusedFile):
                    self._synced.write(path, mode, size, base, offset, data)
                if self.owners is not None and path in self._synced:
                    self.owners.claim(path, self.num)

    def stop_sync(self) -> None:
        """Drop a file that has begun to come while the job runs, and is not complete."""
        with self._guard:
            self._synced.drop_part()

    @property
    def has_synced(self) -> bool:
        """Whether files came while the job ran, over this connection or an earlier one."""
        with self._guard:
            return not self._is_closed and bool(self._synced)

    def finish_sync(self) -> None:
        """Remove what came while the job ran and is not among its files now that all have come.

        Raises:
            OSError: the disk is gone.
        """
        with self._guard:
            if not self._is_closed:
                with self._refusing(f"{OWN}/synced"):
                    self._synced.finish(self._came)
                self._came.clear()

    def _make_way(self, path: str, *, is_folder: bool = False) -> None:
        """Before something that comes gets its name: take out of its way what came while the job ran."""
        if self._synced:
            self._came.add(path)
            self._synced.make_way(path, is_folder=is_folder)

    def _is_continued(
        self, path: str, mode: int, size: int, read: Callable[[int, int], bytes], mtime: int | None
    ) -> bool:
        """Whether the file came while the job ran, and now has the rest, so that who reads it reads on."""
        return bool(self._synced) and self._synced.extend(path, mode, size, read, mtime)

    # -- streams -------------------------------------------------------------------------------------------------

    def write_stream(self, stream: str, offset: int, data: bytes) -> bytes:
        """Write bytes of stdout or stderr at their place in `.launcher/<stream>`. Writing them again changes nothing.

        Returns the bytes that are new on this connection. Bytes over the cap are refused, under the stream's name.

        Raises:
            OSError: the disk is full or gone.
            UnusableFolder: nothing of the job can be written here.
        """
        with self._guard:
            if self._is_closed:
                return b""
            room = max(self.max_stream_bytes + _CUT_MARK - offset, 0)
            if len(data) > room:
                self._refuse_once(f"{OWN}/{stream}", f"more than {self.max_stream_bytes} bytes")
            try:
                return self._streams.write(stream, offset, data[:room]) if room else b""
            except RefusedFile as refusal:
                self._refuse_once(f"{OWN}/{stream}", str(refusal))
                return b""

    def _refuse_once(self, path: str, why: str) -> None:
        if (path, why) not in self.refused:
            self._refuse(path, why)

    def end_of(self, stream: str) -> int:
        """Return how many bytes of a stream have come on this connection."""
        return self._streams.ends.get(stream, 0)

    def set_aside_pending(self) -> None:
        """Set aside what could not be when it was due, if the folder is in its place by now.

        Raises:
            OSError, RefusedFile, UnusableFolder: it cannot be.
        """
        for attempt in list(self.aside):
            if not self.set_aside(attempt):
                return
            self.aside.remove(attempt)

    def set_aside(self, attempt: int) -> bool:
        """Move what this attempt printed to `.launcher/attempt-<N>/`, before another attempt prints.

        If the directory is open, this is done wherever it was moved to.

        Returns:
            False if it printed nothing, or if the directory is not in its place.
        """
        with self._guard:
            return (self._tree.is_open or (self.path / OWN).is_dir()) and self._streams.set_aside(attempt)

    # -- ending --------------------------------------------------------------------------------------------------

    def _discard(self, path: str) -> None:
        """Remove an incomplete file."""
        partial = self._partial.pop(path, None)
        if partial is None:
            return
        os.close(partial[0])
        with contextlib.suppress(OSError, RefusedFile):
            # If it cannot be removed, it stays among our own files.
            os.unlink(self._part(partial[2]), dir_fd=self._tree.folder(OWN))

    def _discard_all(self) -> None:
        for path in list(self._partial):
            self._discard(path)

    def restart(self) -> None:
        """Begin again, because everything is sent again on another connection."""
        with self._guard:
            self._discard_all()
            self._synced.drop_part()
            self._came.clear()
            self._files = self._bytes = self._tree.made = 0
            self._names.clear()
            self._streams.ends.clear()
            self.refused.clear()
            self.apart.clear()

    def release(self) -> None:
        """Close the descriptors of folders. They are opened again when something comes."""
        with self._guard:
            self._synced.release()
            self._tree.close(keep_root=False)

    def close(self) -> None:
        """Close all descriptors. What comes later is not written."""
        with self._guard:
            self._is_closed = True
            self._discard_all()
            self._synced.close()
            self._tree.close(keep_root=False)
            self._names.clear()
