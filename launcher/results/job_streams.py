"""What a job prints, in `.launcher` of its output directory: stdout and stderr, and those of its earlier attempts.

Rule: jobs that share an output directory have a folder each for what they print. Nothing here takes a lock: `OutputFolder` has one.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field

from launcher.results.owners import OWN, Owners, job_name
from launcher.results.tree import FolderTree
from launcher.results.writing import refusal_of, write_all

__all__ = ["JobStreams"]

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class JobStreams:
    """The streams of one job."""

    tree: FolderTree
    num: int
    #: Set if jobs may share the output directory.
    owners: Owners | None
    #: Bytes of each stream that came on this connection.
    ends: dict[str, int] = field(default_factory=dict)
    #: Their folder, which is known when the first byte of one comes.
    _folder: str = ""

    def write(self, stream: str, offset: int, data: bytes) -> bytes:
        """Write bytes at their place, and return those that are new on this connection.

        Raises:
            RefusedFile: something else has the name.
            OSError: the disk is full or gone.
            UnusableFolder: nothing of the job can be written here.
        """
        above = self.tree.folder(self._own_folder())
        try:
            fd = os.open(stream, _FLAGS, 0o666, dir_fd=above)
        except OSError as error:
            raise refusal_of(error) from None
        try:
            write_all(fd, data, offset)
        finally:
            os.close(fd)
        end = self.ends.get(stream, 0)
        self.ends[stream] = max(end, offset + len(data))
        return data[max(0, end - offset) :]

    def _own_folder(self) -> str:
        if not self._folder:
            is_apart = self.owners is not None and (self.owners.is_shared or self._is_another_jobs(self.owners))
            self._folder = f"{OWN}/{job_name(self.num)}" if is_apart else OWN
        return self._folder

    def _is_another_jobs(self, owners: Owners) -> bool:
        """What was printed there in this run is not this job's: to this disk, the folder's name is that of another job's folder."""
        stdout = f"{OWN}/stdout"
        status = self.tree.status(stdout) if self.tree.status(OWN) is not None else None
        return status is not None and owners.is_anothers(stdout, self.num, status.st_ctime)

    def set_aside(self, attempt: int) -> bool:
        """Move what this attempt printed to `attempt-<N>/`. Returns False if it printed nothing.

        Raises:
            OSError, RefusedFile, UnusableFolder: it cannot be moved.
        """
        if self.tree.status(OWN) is None:
            return False
        apart = f"{OWN}/{job_name(self.num)}"
        folder = self._folder or (apart if self.tree.status(apart) is not None else OWN)
        above, kept = self.tree.folder(folder), self.tree.folder(f"{folder}/attempt-{attempt}")
        for stream in ("stdout", "stderr"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(stream, stream, src_dir_fd=above, dst_dir_fd=kept)
        return True
