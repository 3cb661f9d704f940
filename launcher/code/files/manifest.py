"""The manifest of a snapshot: in parts, as hosts get it, and in one piece, as the journal has it.

Rule: the same files give the same parts, and an edit of one file changes few of them, however many files there are. So a host that
has the parts of an earlier run needs only those few.

A part is JSON, and its name is its sha256. A leaf lists files and links. What does not fit into one leaf is divided among sixteen parts,
by the first hex digit of the sha256 of each path, then by the second, and so on. Their names are the part above. The root names the snapshot.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from launcher.errors import CodeError
from remote_agent.protocol.constants import MANIFEST_VERSION, MANIFEST_WHOLE

__all__ = ["SnapshotFile", "StoredManifest", "in_one_piece", "in_parts", "stored", "unstored"]

#: Files and links of a leaf, at most.
_LEAF = 64
_encode = json.JSONEncoder(separators=(",", ":")).encode


class SnapshotFile(NamedTuple):
    """One file: its path relative to the root, mode (0755 or 0644), size in bytes and sha256."""

    path: str
    mode: int
    size: int
    sha256: str


class StoredManifest(NamedTuple):
    """What a journal has.

    Attributes:
        whole: the manifest as hosts got it, if it was in one piece.
    """

    files: tuple[SnapshotFile, ...]
    links: tuple[tuple[str, str], ...]
    whole: bytes | None


def in_parts(files: Sequence[SnapshotFile], links: Sequence[tuple[str, str]]) -> tuple[str, dict[str, bytes]]:
    """The name of the root, and every part by its name."""
    parts: dict[str, bytes] = {}
    all_entries: Iterable[Sequence[Any]] = (*files, *links)
    entries = [(hashlib.sha256(os.fsencode(entry[0])).hexdigest(), entry) for entry in all_entries]
    entries.sort()
    return _divided(entries, 0, parts), parts


def _divided(entries: list[tuple[str, Sequence[Any]]], depth: int, parts: dict[str, bytes]) -> str:
    content: dict[str, Any] = {"version": MANIFEST_VERSION}
    if len(entries) <= _LEAF:
        content["files"] = [entry for _, entry in entries if len(entry) == 4]
        content["links"] = [entry for _, entry in entries if len(entry) == 2]
    else:
        by_digit: dict[str, list[tuple[str, Sequence[Any]]]] = {}
        for entry in entries:
            by_digit.setdefault(entry[0][depth], []).append(entry)
        content["parts"] = [_divided(below, depth + 1, parts) for below in by_digit.values()]
    data = _encode(content).encode("ascii")
    name = hashlib.sha256(data).hexdigest()
    parts[name] = data
    return name


def in_one_piece(files: Sequence[SnapshotFile], links: Sequence[tuple[str, str]]) -> bytes:
    """The manifest as the journal has it, but for its compression."""
    return _encode({"version": MANIFEST_VERSION, "files": files, "links": links}).encode("ascii")


def stored(whole: bytes) -> bytes:
    """The manifest as the journal has it."""
    return zlib.compress(whole, 1)


def unstored(data: bytes) -> StoredManifest:
    """Read what a journal has.

    Raises:
        CodeError: a newer launcher wrote it.
    """
    content = json.loads(zlib.decompress(data))
    if content["version"] not in (MANIFEST_WHOLE, MANIFEST_VERSION):
        raise CodeError(
            f"the run's code manifest is of version {content['version']!r}, which this launcher does not read"
        )
    return StoredManifest(
        tuple(SnapshotFile(str(path), int(mode), int(size), str(sha)) for path, mode, size, sha in content["files"]),
        tuple((str(path), str(target)) for path, target in content["links"]),
        data if content["version"] == MANIFEST_WHOLE else None,
    )
