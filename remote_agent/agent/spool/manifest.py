"""The manifest of a code snapshot: its files with their hashes, and its links.

Rule: no path and no link of a manifest leads out of the tree that is made from it.
"""

import json
import os
import zlib
from typing import List, NamedTuple, Tuple

from remote_agent.protocol.constants import MANIFEST_VERSION
from remote_agent.protocol.fields import is_sha256
from remote_agent.system.private_files import SpoolError

__all__ = ["Manifest", "ManifestError", "check_manifest", "read_manifest"]

#: Bytes of an unpacked manifest; about 500,000 files.
_MAX_MANIFEST = 128 << 20


class ManifestError(SpoolError):
    """The manifest is of another version, too large, or names a path outside the tree."""


class Manifest(NamedTuple):
    """The files (path, mode, size, sha256) and links (path, target) of a snapshot."""

    files: List[Tuple[str, int, int, str]]
    links: List[Tuple[str, str]]


def read_manifest(data: bytes) -> Manifest:
    """Read a manifest from the controller.

    Raises:
        ManifestError: it cannot be used.
    """
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, _MAX_MANIFEST)
        if unpacker.unconsumed_tail:
            raise ManifestError("the code manifest is over {} bytes".format(_MAX_MANIFEST))
        content = json.loads(text.decode("utf-8"))
        if content.get("version") != MANIFEST_VERSION:
            raise ManifestError("code manifest of version {!r}".format(content.get("version")))
        files = [(str(path), int(mode), int(size), str(sha)) for path, mode, size, sha in content["files"]]
        links = [(str(path), str(target)) for path, target in content.get("links", [])]
    except (AttributeError, KeyError, TypeError, ValueError, zlib.error) as error:
        raise ManifestError("the code manifest cannot be read: {!r}".format(error)) from None
    return check_manifest(Manifest(files, links))


def check_manifest(manifest: Manifest) -> Manifest:
    """Return the manifest.

    Raises:
        ManifestError: it names something that is no content, or leads out of the tree.
    """
    for _, _, _, sha in manifest.files:
        if not is_sha256(sha):
            raise ManifestError("the code manifest names content {!r}".format(sha[:80]))
    for path in [entry[0] for entry in manifest.files] + [link[0] for link in manifest.links]:
        parts = path.split("/")
        if not path or "" in parts or "." in parts or ".." in parts or "\0" in path:
            raise ManifestError("the code manifest names {!r}".format(path))
    for path, target in manifest.links:
        folder = os.path.dirname(path)
        if os.path.isabs(target) or os.path.normpath(os.path.join(folder, target)).startswith(".."):
            raise ManifestError("the link {!r} leads out of the code".format(path))
    return manifest
