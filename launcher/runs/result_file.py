"""A large result as it comes from a host, chunk by chunk, into a file that only its owner reads.

Rule: a result is used only after its digest was checked. Digests are taken as the bytes come
where the host said beforehand what they will be, so that a long result is not read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.host_limits import check
from remote_agent.protocol import wire
from remote_agent.protocol.result_parts import ResultParts
from remote_agent.shared.disk import digest_of

__all__ = ["ResultFile", "payload_digest", "whole", "wrong_parts"]


class ResultFile:
    """One large result of one attempt, on one link.

    Args:
        folder: where it goes; made if it is not there, in one that is.
        attempt: the attempt's name, checked by the caller: it becomes a file's name.
        size: bytes that the host announced.
        parts: what the host says that the parts will be; their digests are taken as they come.

    Raises:
        TooMuch: it is longer than a result may be.
        OSError: the file cannot be made.
    """

    def __init__(self, folder: Path, attempt: str, size: int, parts: ResultParts) -> None:
        check("result", size)
        self._digests = {part[:2]: hashlib.sha256() for part in parts.by_name.values()}
        self._size = size
        self._done = 0
        # Not those above it: where the run's folder was moved away, nothing takes its place.
        folder.mkdir(mode=0o700, exist_ok=True)
        self._path = folder / f"{attempt}.part"
        self._path.unlink(missing_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(fd, "w+b")

    def write(self, size: int, offset: int, payload: bytes | memoryview) -> None:
        """The next bytes.

        Raises:
            wire.ProtocolError: code `order`: not the next, or beyond the size.
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
        """All has come: where it lies now and "", or None and what is wrong with it; then it is removed."""
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
        """Remove a result that is not whole; if that fails, the next one takes its place."""
        with contextlib.suppress(OSError):
            self._file.close()
            self._path.unlink(missing_ok=True)


def whole(value: Any) -> int:
    """The value, if it is a whole number.

    Raises:
        wire.ProtocolError: code `field`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise wire.ProtocolError("field", f"{value!r} is not a whole number"[:200])
    return value


def payload_digest(payload: bytes, at: int, size: int) -> Any:
    """SHA-256 of a part of a result that came in one piece."""
    return hashlib.sha256(payload[at : at + size])


def wrong_parts(parts: ResultParts, size: int, digest: Callable[[int, int], Any]) -> str:
    """What is wrong with a result: parts that do not lie in it, or are not what they are said to be."""
    for name, part in parts.by_name.items():
        if part.offset + part.size > size:
            return f"{name} ends at byte {part.offset + part.size} of {size}"
        if digest(part.offset, part.size).hexdigest() != part.sha256:
            return f"the digest of {name} does not match"
    return ""
