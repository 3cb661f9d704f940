"""Content by hash.

Rule: the name of a blob is the hash of its content, which is checked when it arrives and again when it is used.
"""

import hashlib
import os
from typing import Any, Collection, Dict, Optional, Tuple

from remote_agent.protocol.fields import is_sha256
from remote_agent.shared.disk import sync_data
from remote_agent.system.private_files import SpoolError, make_private_folder, open_private
from remote_agent.system.processes import birth, is_alive

__all__ = ["AlteredError", "BlobStore"]


class AlteredError(SpoolError):
    """What arrived is not what its name says."""


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
                pid = int(parts[1])
                # One that nobody has waited for is dead, too.
                if not is_alive(pid, birth(pid)):
                    return os.path.join(self.folder, name)
        return None

    def leave(self, sha256: str) -> None:
        """Keep nothing open of a part that another store of this process goes on with."""
        self._drop(sha256)

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
