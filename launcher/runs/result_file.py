"""Writes a large result from a host, chunk by chunk, to a file that only its owner can read.

Rule: a result is used only after its digest was checked. If the host has sent the places of the parts before, the digests are
computed while the bytes arrive, so that a long result need not be read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.hosts.limits import check
from remote_agent.protocol import wire
from remote_agent.protocol.result_parts import ResultParts
from remote_agent.shared.disk import digest_of

__all__ = ["ResultFile", "payload_digest", "whole", "wrong_parts"]


class ResultFile:
    """One large result of one attempt, on one link.

    Args:
        folder: the folder for the file. It is made if it is missing and its parent exists.
        attempt: the attempt's name. The caller has checked it, because it becomes a file name.
        size: how many bytes the host announced.
        parts: the parts that the host announced. Their digests are computed while they arrive.

    Raises:
        TooMuch: the result is too long.
        OSError: the file cannot be made.
    """

    def __init__(self, folder: Path, attempt: str, size: int, parts: ResultParts) -> None:
        check("result", size)
        self._digests = {part[:2]: hashlib.sha256() for part in parts.by_name.values()}
        self._size = size
        self._done = 0
        # Do not make its parents: if the run's folder was moved away, nothing may take its place.
        folder.mkdir(mode=0o700, exist_ok=True)
        self._path = folder / f"{attempt}.part"
        self._path.unlink(missing_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(fd, "w+b")

    def write(self, size: int, offset: int, payload: bytes | memoryview) -> None:
        """Write the next bytes.

        Raises:
            wire.ProtocolError: code `order`: they are not the next ones, or go beyond the size.
            OSError: they cannot be written.
        """
        done, end = self._done, self._done + len(payload)
        if offset != done or size != self._size or end > size:
            raise wire.ProtocolError("order", f"byte {offset} of a result came, but byte {done} was expected")
        self._file.write(payload)
        for (at, length), digest in self._digests.items():
            first, last = max(at, done), min(at + length, end)
            if first < last:
                digest.update(memoryview(payload)[first - done : last - done])
        self._done = end

    def finish(self, parts: ResultParts) -> tuple[str | None, str]:
        """Finish a complete result. Returns its path and "", or None and what is wrong with it. A wrong result is removed."""
        with self._file:
            wrong = wrong_parts(parts, self._done, self._digest)
        if wrong:
            self._path.unlink()
            return None, wrong
        file = self._path.with_suffix(".result")
        self._path.replace(file)
        return str(file), ""

    def _digest(self, at: int, size: int) -> Any:
        return self._digests.get((at, size)) or digest_of(self._file, at, size)

    def discard(self) -> None:
        """Remove an incomplete result. If that fails, the next one overwrites it."""
        with contextlib.suppress(OSError):
            self._file.close()
            self._path.unlink(missing_ok=True)


def whole(value: Any) -> int:
    """Return the value, if it is a whole number.

    Raises:
        wire.ProtocolError: code `field`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise wire.ProtocolError("field", f"{value!r} is not a whole number"[:200])
    return value


def payload_digest(payload: bytes, at: int, size: int) -> Any:
    """Return the SHA-256 of a part of a result that came in one piece."""
    return hashlib.sha256(payload[at : at + size])


def wrong_parts(parts: ResultParts, size: int, digest: Callable[[int, int], Any]) -> str:
    """Return what is wrong with a result: a part that is outside it, or that has another digest. Empty if nothing is."""
    for name, part in parts.by_name.items():
        if part.offset + part.size > size:
            return f"{name} ends at byte {part.offset + part.size} of {size}"
        if digest(part.offset, part.size).hexdigest() != part.sha256:
            return f"the digest of {name} does not match"
    return ""
