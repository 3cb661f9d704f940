"""The code of a run as a tree of files: laid out from contents by hash, and kept for the next run of the same code.

Rule: a tree belongs to one run at a time, so a job may write next to its code without changing what another run gets. A tree is
complete, or it is not there. It is written relative to folder descriptors, so that no path leads out of it, and each content is
checked as it is copied.

A large tree goes back to the cache folder when its run has ended, with an index of its files. The next run takes it by renaming it,
which only one run can do. It keeps the files that nobody has touched: their size, times and inode are those in the index. As in
git's index, a file that was changed in the same tick of the disk's clock in which the index was begun is read again. All else is
removed, and laid out again.

    <cache>/trees/<when>-<hash of the manifest>/    code: the tree; index: see `_Index`
"""

import hashlib
import json
import os
import time
from typing import Dict, Iterable, List, NamedTuple, Optional, Set, Tuple

from remote_agent.agent.spool.code.blobs import BlobStore
from remote_agent.agent.spool.code.left_files import LeftFiles
from remote_agent.agent.spool.code.manifest import Manifest, ManifestReader, check_manifest
from remote_agent.shared.disk import digest_of, remove_tree
from remote_agent.system.private_files import SpoolError, make_private_folder, open_private
from remote_agent.system.processes import has_working_folder_below

__all__ = ["CodeTree", "Missing", "trees_folder"]

_INDEX_VERSION = 1
#: A tree with fewer files is laid out again as fast as it is checked.
_MIN_FILES = 200
#: How many trees are kept. They may be as large as the code of a run may be.
_MAX_KEPT = 4


class Missing(NamedTuple):
    """What the controller must send before the tree can be laid out.

    Attributes:
        is_manifest: these are parts of the manifest, and more may be missing when they have arrived.
    """

    sha256: List[str]
    is_manifest: bool


class _Index(NamedTuple):
    """The files of a tree as they were when it was complete.

    Attributes:
        clock: what the disk's clock said then. A file that is as new may have changed since, and look the same.
        files: by path, the text that `_line` makes. (Text is cheaper than tuples, which the garbage collector visits.)
    """

    root: str
    clock: int
    files: Dict[str, str]
    links: Dict[str, str]


def trees_folder(cache: str) -> str:
    """Return the folder of the kept trees."""
    return os.path.join(cache, "trees")


class CodeTree:
    """The tree of a run.

    Args:
        store: the contents.
        cache: the cache folder, with the trees of earlier runs.
        spool: the run's folder.

    Attributes:
        path: the tree; it is complete if it is there.
        left: what jobs have written into it.
    """

    def __init__(self, store: BlobStore, cache: str, spool: str) -> None:
        self.path = os.path.join(spool, "code")
        self.left = LeftFiles(self.path, spool)
        self._store = store
        self._kept = trees_folder(cache)
        self._part = self.path + ".part"
        self._box = self.path + ".taken"
        self._index_path = self.path + ".index"
        self._root = ""
        self._reader = ManifestReader("")
        #: What is still to be laid out, and the links; None before the manifest is here.
        self._rest: Optional[Manifest] = None
        #: The files of the unfinished tree that are as they must be, as in the index.
        self._good: Dict[str, str] = {}
        #: The index that is in the spool already fits the tree.
        self._has_index = False

    @property
    def is_complete(self) -> bool:
        """Whether the tree is there."""
        return os.path.isdir(self.path)

    def advance(self, root: str) -> Optional[Missing]:
        """Lay the tree out if everything is here. Returns what is missing; None if the tree is complete.

        Raises:
            ManifestError: the manifest cannot be used.
            SpoolError: a content was altered. It was removed, so that it is requested again.
            OSError: the disk.
        """
        if self.is_complete:
            return None
        if root != self._root:
            self._begin(root)
        if self._rest is None:
            manifest = self._reader.read(self._store)
            if manifest is None:
                return Missing(sorted(set(self._reader.waiting)), is_manifest=True)
            self._take_similar(manifest)
            self._rest = Manifest([entry for entry in manifest.files if entry[0] not in self._good], manifest.links)
        missing = sorted(sha256 for sha256 in {entry[3] for entry in self._rest.files} if not self._store.has(sha256))
        if missing:
            return Missing(missing, is_manifest=False)
        self._lay_out(self._rest)
        self.left.begin()
        os.rename(self._part, self.path)
        self._forget()
        return None

    def _forget(self) -> None:
        """Begin anew when the tree is wanted again."""
        self._root, self._rest, self._good, self._has_index = "", None, {}, False
        self._reader = ManifestReader("")

    def keep(self) -> None:
        """Give the tree of a run that is over to the next one. Nothing happens if it is not worth it, or not possible.

        A process that still works in it could write into the tree of a later run, so such a tree goes with its run.
        """
        box = self.path + ".kept"
        try:
            index = _read_index(self._index_path)
            if index is None or has_working_folder_below(self.path):
                return
            os.mkdir(box, 0o700)
            os.rename(self.path, os.path.join(box, "code"))
            os.rename(self._index_path, os.path.join(box, "index"))
            make_private_folder(self._kept)
            os.rename(box, os.path.join(self._kept, "{:020d}-{}".format(time.time_ns(), index.root)))
            for number, name in enumerate(self._names()[:-_MAX_KEPT]):
                # It is removed with the spool. Nobody can take it meanwhile.
                os.rename(os.path.join(self._kept, name), "{}.old-{}".format(self.path, number))
        except (OSError, SpoolError):
            return  # it goes with the run, and the next one lays it out again

    # -- trees of earlier runs -----------------------------------------------------------------------------------

    def _names(self) -> List[str]:
        """The names of the kept trees, oldest first."""
        try:
            return sorted(os.listdir(self._kept))
        except OSError:
            return []

    def _begin(self, root: str) -> None:
        """Begin a tree, with one of the same manifest, if there is any."""
        self._forget()
        self._root, self._reader = root, ManifestReader(root)
        for left in (self._part, self._box):
            if os.path.lexists(left):
                remove_tree(left)  # an agent has died over it
        for name in reversed(self._names()):
            if name.rpartition("-")[2] != root:
                continue
            index = _read_index(os.path.join(self._kept, name, "index"))
            if index is not None and index.root == root and self._take(name, index, index.files):
                rest = [_entry(path, line) for path, line in index.files.items() if path not in self._good]
                self._rest = check_manifest(Manifest(rest, list(index.links.items())))
                return

    def _take_similar(self, manifest: Manifest) -> None:
        """Begin with the kept tree that has most of these files, if that is at least half of each."""
        wanted = {path: "{} {} ".format(mode, sha256) for path, mode, _, sha256 in manifest.files}
        best: Tuple[str, Optional[_Index], Dict[str, str]] = ("", None, {})
        for name in self._names():
            index = _read_index(os.path.join(self._kept, name, "index"))
            if index is not None:
                same = {path: line for path, line in index.files.items() if line.startswith(wanted.get(path, "-"))}
                if len(same) * 2 >= max(len(wanted), len(index.files)) and len(same) >= len(best[2]):
                    best = (name, index, same)
        if best[1] is not None:
            self._take(best[0], best[1], best[2])

    def _take(self, name: str, index: _Index, files: Dict[str, str]) -> bool:
        """Take a kept tree, and leave in it only those of these files that nobody has touched. Returns whether it was still there."""
        try:
            os.rename(os.path.join(self._kept, name), self._box)
        except OSError:
            return False  # another run was faster
        try:
            os.rename(os.path.join(self._box, "code"), self._part)
            os.rename(os.path.join(self._box, "index"), self._index_path)
            os.rmdir(self._box)
            self._good, is_certain = _untouched(self._part, files, index.clock)
            self._has_index = is_certain and index.root == self._root
        except OSError:
            # A job has left something there that cannot be listed or removed. It goes with the run, which begins anew.
            self._good = {}
            for left in (self._box, self._part):
                if os.path.lexists(left):
                    os.rename(left, "{}.left-{}".format(left, time.time_ns()))
        return True

    # -- laying out ----------------------------------------------------------------------------------------------

    def _lay_out(self, rest: Manifest) -> None:
        if not os.path.isdir(self._part):
            os.mkdir(self._part, 0o700)
        try:
            _write(self._store, rest.files, rest.links, self._part)
        except BaseException:
            self._forget()
            raise
        if self._has_index and not rest.files:
            return
        if os.path.lexists(self._index_path):
            os.unlink(self._index_path)
        if len(self._good) + len(rest.files) < _MIN_FILES:
            return
        files = dict(self._good)
        for path, mode, _, sha256 in rest.files:
            # Only now: a network's disk may set the times when the file is closed.
            files[path] = _line(mode, sha256, os.lstat(os.path.join(self._part, path)))
        try:
            clock = _disk_clock(self._index_path)
            _write_index(self._index_path, _Index(self._root, clock, files, dict(rest.links)))
        except OSError:
            # The disk is full, say. The run has its code, and the next one lays it out again.
            if os.path.lexists(self._index_path):
                os.unlink(self._index_path)


def _untouched(tree: str, files: Dict[str, str], clock: int) -> Tuple[Dict[str, str], bool]:
    """Remove from a tree all but those of these files that nobody has touched.

    Returns the files that stay, and whether none of them had to be read.
    """
    folders = _folders_of(files)
    good: Dict[str, str] = {}
    is_certain = True
    os.chmod(tree, 0o700)
    waiting = [("", tree)]
    while waiting:
        below, folder = waiting.pop()
        with os.scandir(folder) as listed:
            entries = list(listed)
        for entry in entries:
            name = below + entry.name
            if entry.is_dir(follow_symlinks=False):
                if name in folders:
                    os.chmod(entry.path, 0o700)
                    waiting.append((name + "/", entry.path))
                else:
                    remove_tree(entry.path)
                continue
            line = files.get(name)
            if line is not None:
                mode, sha256, _ = line.split(" ", 2)
                status = entry.stat(follow_symlinks=False)
                is_old = status.st_ctime_ns < clock
                if line == _line(mode, sha256, status) and (is_old or _has_content(entry.path, status.st_size, sha256)):
                    good[name] = line
                    is_certain = is_certain and is_old
                    continue
            os.unlink(entry.path)
    return good, is_certain


def _folders_of(paths: Iterable[str]) -> Set[str]:
    found = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


def _line(mode: object, sha256: str, status: os.stat_result) -> str:
    """What the index says about a file: its entry in the manifest, and what shows that nobody has touched it."""
    return "{} {} {} {} {} {}".format(
        mode, sha256, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
    )


def _entry(path: str, line: str) -> Tuple[str, int, int, str]:
    mode, sha256, size, _ = line.split(" ", 3)
    return path, int(mode), int(size), sha256


def _has_content(path: str, size: int, sha256: str) -> bool:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        return bool(digest_of(file, 0, size).hexdigest() == sha256)


def _disk_clock(near: str) -> int:
    """Return what the clock of a disk says; that of a network's disk is not ours."""
    path = near + ".clock"
    fd = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        return os.fstat(fd).st_ctime_ns
    finally:
        os.close(fd)
        os.unlink(path)


# -- the index -------------------------------------------------------------------------------------------------------


def _write_index(path: str, index: _Index) -> None:
    """Write an index: a line about the rest, then JSON."""
    data = json.dumps(index, separators=(",", ":")).encode("ascii")
    head = "{} {}\n".format(_INDEX_VERSION, hashlib.sha256(data).hexdigest())
    with open(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.write(head.encode("ascii") + data)


def _read_index(path: str) -> Optional[_Index]:
    """Read an index; None if there is none, another version wrote it, or it is damaged."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            head, _, data = file.read().partition(b"\n")
    except OSError:
        return None
    if head != "{} {}".format(_INDEX_VERSION, hashlib.sha256(data).hexdigest()).encode("ascii"):
        return None
    return _Index(*json.loads(data.decode("ascii")))


# -- writing ---------------------------------------------------------------------------------------------------------


def _write(store: BlobStore, files: List[Tuple[str, int, int, str]], links: List[Tuple[str, str]], tree: str) -> None:
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    folders: Dict[str, int] = {"": root}
    try:
        for path, mode, _, sha256 in files:
            folder, _, name = path.rpartition("/")
            fd = os.open(
                name,
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o700 if mode & 0o100 else 0o600,
                dir_fd=_folder(folders, folder),
            )
            try:
                _copy(store.path(sha256), fd, sha256, path)
            finally:
                os.close(fd)
        for path, link in links:
            folder, _, name = path.rpartition("/")
            os.symlink(link, name, dir_fd=_folder(folders, folder))
    finally:
        for fd in folders.values():
            os.close(fd)


def _folder(folders: Dict[str, int], path: str) -> int:
    """Return the descriptor of a folder of the tree. It is made if it is missing."""
    fd: Optional[int] = folders.get(path)
    if fd is not None:
        return fd
    parent, _, name = path.rpartition("/")
    above = _folder(folders, parent)
    try:
        os.mkdir(name, 0o700, dir_fd=above)
    except FileExistsError:
        pass  # an earlier file needed it; it is opened below without following a link
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    if len(folders) > 200:
        for known in list(folders):
            if known:
                os.close(folders.pop(known))
        # `above` may have been closed with the others. `fd` is open, and no other is needed.
    folders[path] = fd
    return fd


def _copy(source: str, fd: int, sha256: str, path: str) -> None:
    digest = hashlib.sha256()
    try:
        with open(source, "rb") as file:
            while True:
                piece = file.read(1 << 18)
                if not piece:
                    break
                digest.update(piece)
                view = memoryview(piece)
                while view:
                    view = view[os.write(fd, view) :]
    except FileNotFoundError:
        raise SpoolError("the content of {} is missing".format(path)) from None
    if digest.hexdigest() != sha256:
        os.unlink(source)
        raise SpoolError("the cached content of {} was altered, so it was removed; run again".format(path))
