"""Content by hash, and the code snapshot of a run made from it.

Rule: the name of a blob is the hash of its content, which is checked when it arrives and again when a tree is made from it. A
tree is written relative to folder descriptors, so that no path leads out of it. Every run has its own tree: a job may write next to
its code without changing what a later run gets.
"""

import hashlib
import json
import os
import shutil
import zlib
from typing import Any, Collection, Dict, List, NamedTuple, Optional, Tuple

from remote_agent.protocol.constants import MANIFEST_VERSION
from remote_agent.protocol.fields import is_sha256
from remote_agent.shared.disk import sync_data
from remote_agent.system.private_files import SpoolError, make_private_folder, open_private

__all__ = ["AlteredError", "BlobStore", "Manifest", "materialise", "read_manifest"]

#: Bytes of an unpacked manifest; about 500,000 files.
_MAX_MANIFEST = 128 << 20


class AlteredError(SpoolError):
    """What arrived is not what its name says."""


class Manifest(NamedTuple):
    """The files (path, mode, size, sha256) and links (path, target) of a snapshot."""

    files: List[Tuple[str, int, int, str]]
    links: List[Tuple[str, str]]


def read_manifest(data: bytes) -> Manifest:
    """Read a manifest from the controller.

    Raises:
        SpoolError: it is of another version, too large, or names a path outside the tree.
    """
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, _MAX_MANIFEST)
        if unpacker.unconsumed_tail:
            raise SpoolError("the code manifest is over {} bytes".format(_MAX_MANIFEST))
        content = json.loads(text.decode("utf-8"))
        if content.get("version") != MANIFEST_VERSION:
            raise SpoolError("code manifest of version {!r}".format(content.get("version")))
        files = [(str(path), int(mode), int(size), str(sha)) for path, mode, size, sha in content["files"]]
        links = [(str(path), str(target)) for path, target in content.get("links", [])]
    except (AttributeError, KeyError, TypeError, ValueError, zlib.error) as error:
        raise SpoolError("the code manifest cannot be read: {!r}".format(error)) from None
    for _, _, _, sha in files:
        if not is_sha256(sha):
            raise SpoolError("the code manifest names content {!r}".format(sha[:80]))
    for path in [entry[0] for entry in files] + [link[0] for link in links]:
        parts = path.split("/")
        if path.startswith("/") or not path or any(part in ("", ".", "..") for part in parts) or "\0" in path:
            raise SpoolError("the code manifest names {!r}".format(path))
    for path, target in links:
        folder = os.path.dirname(path)
        if os.path.isabs(target) or os.path.normpath(os.path.join(folder, target)).startswith(".."):
            raise SpoolError("the link {!r} leads out of the code".format(path))
    return Manifest(files, links)


class BlobStore:
    """Files named by their sha256 below a folder.

    Args:
        is_durable: bring each blob to the disk before it gets its name, because nobody can send it again.
    """

    def __init__(self, folder: str, *, is_durable: bool = False) -> None:
        self.folder = make_private_folder(folder)
        self._is_durable = is_durable
        self._partial: Dict[str, Tuple[int, Any, int]] = {}

    def path(self, sha256: str) -> str:
        """Return the path of a blob, if it exists.

        Raises:
            SpoolError: this is not the name of a blob.
        """
        if not is_sha256(sha256):
            raise SpoolError("a blob is named {!r}".format(str(sha256)[:80]))
        return os.path.join(self.folder, sha256[:2], sha256)

    def has(self, sha256: str) -> bool:
        """Whether the blob exists."""
        return is_sha256(sha256) and os.path.exists(self.path(sha256))

    def put(self, sha256: str, data: bytes) -> None:
        """Store a whole blob.

        Raises:
            SpoolError: the content does not match the name.
            OSError: the disk.
        """
        self.put_chunk(sha256, len(data), 0, data)

    def put_chunk(self, sha256: str, size: int, offset: int, data: bytes) -> bool:
        """Store the next part of a blob.

        Returns True when the blob is complete and checked. A part at offset 0 starts it again.

        Raises:
            AlteredError: it is complete, and does not match its name; nothing of it is kept.
            SpoolError: it is not the next part.
            OSError: the disk.
        """
        if not is_sha256(sha256):
            raise SpoolError("a blob is named {!r}".format(sha256))
        if self.has(sha256) and sha256 not in self._partial:
            return offset + len(data) >= size
        temporary = self._temporary(sha256)
        if offset == 0:
            self._drop(sha256)
            if not os.path.isdir(self.folder):
                make_private_folder(self.folder)  # a clean-up has removed it
            fd = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            self._partial[sha256] = (fd, hashlib.sha256(), 0)
        if sha256 not in self._partial:
            self.resume(sha256)
        if sha256 not in self._partial:
            raise SpoolError("blob {}: begins at byte {}".format(sha256[:12], offset))
        fd, digest, done = self._partial[sha256]
        if offset != done or done + len(data) > size:
            self._drop(sha256)
            os.unlink(temporary)
            raise SpoolError("blob {}: byte {} where {} was expected".format(sha256[:12], offset, done))
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(fd, view) :]
        except OSError:
            # What was whole before stays, so that it goes on from there when there is room.
            os.ftruncate(fd, done)
            self._drop(sha256)
            raise
        digest.update(data)
        done += len(data)
        self._partial[sha256] = (fd, digest, done)
        if done < size:
            return False
        if self._is_durable:
            sync_data(fd)
        self._drop(sha256)
        if digest.hexdigest() != sha256:
            os.unlink(temporary)
            raise AlteredError("blob {}: content does not match its name".format(sha256[:12]))
        make_private_folder(os.path.join(self.folder, sha256[:2]))
        os.rename(temporary, self.path(sha256))
        return True

    def _drop(self, sha256: str) -> None:
        partial = self._partial.pop(sha256, None)
        if partial:
            os.close(partial[0])

    def _temporary(self, sha256: str) -> str:
        return os.path.join(self.folder, "part.{}.{}".format(os.getpid(), sha256))

    def resume(self, sha256: str) -> int:
        """Return how many bytes of a blob are here and need not be sent again. The part that a dead agent left counts.

        Raises:
            OSError: the disk.
        """
        if sha256 in self._partial:
            return self._partial[sha256][2]
        temporary = self._temporary(sha256)
        if not os.path.exists(temporary):
            left = self._left_by_the_dead(sha256)
            if left is None:
                return 0
            try:
                os.rename(left, temporary)
            except FileNotFoundError:
                return 0  # another process was faster
        fd = open_private(temporary, os.O_RDWR)
        digest, done = hashlib.sha256(), 0
        while True:
            piece = os.read(fd, 1 << 20)
            if not piece:
                break
            digest.update(piece)
            done += len(piece)
        self._partial[sha256] = (fd, digest, done)
        return done

    def _left_by_the_dead(self, sha256: str) -> Optional[str]:
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return None
        for name in names:
            parts = name.split(".")
            if len(parts) == 3 and parts[0] == "part" and parts[2] == sha256 and parts[1].isdigit():
                try:
                    os.kill(int(parts[1]), 0)
                except ProcessLookupError:
                    return os.path.join(self.folder, name)
                except OSError:
                    continue  # another user's process has that pid now
        return None

    def drop_partial(self, keep: Collection[str] = ()) -> None:
        """Drop blobs that have arrived only in part, because the connection is gone. `keep`: those that the next one continues."""
        for sha256 in list(self._partial):
            if sha256 in keep:
                continue
            self._drop(sha256)
            try:
                os.unlink(self._temporary(sha256))
            except FileNotFoundError:
                continue  # a clean-up has removed it

    def read(self, sha256: str) -> bytes:
        """Read a whole blob.

        Raises:
            SpoolError: it was changed since it arrived. It is removed, so that it is requested again.
            OSError: it is not there, or the disk.
        """
        with open(self.path(sha256), "rb") as file:
            data = file.read()
        if hashlib.sha256(data).hexdigest() != sha256:
            os.unlink(self.path(sha256))
            raise SpoolError("blob {} was altered; it was removed".format(sha256[:12]))
        return data


def materialise(store: BlobStore, manifest: Manifest, target: str) -> None:
    """Write the tree of a snapshot, completely or not at all. Does nothing if it exists already.

    Raises:
        SpoolError: a blob is missing or was altered.
        OSError: the disk.
    """
    if os.path.isdir(target):
        return
    temporary = "{}.part.{}".format(target, os.getpid())
    if os.path.isdir(temporary):
        shutil.rmtree(temporary)
    os.mkdir(temporary, 0o700)
    try:
        _lay_out(store, manifest, temporary)
        os.rename(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _lay_out(store: BlobStore, manifest: Manifest, temporary: str) -> None:
    root = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    folders: Dict[str, int] = {"": root}
    try:
        for path, mode, _, sha256 in manifest.files:
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
        for path, link in manifest.links:
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
