"""The manifest of a code snapshot: its files with their hashes, and its links.

Rule: no path and no link of a manifest leads out of the tree that is made from it.
"""

import json
import os
import zlib
from typing import List, NamedTuple, Optional, Tuple

from remote_agent.agent.spool.code.blobs import BlobStore
from remote_agent.protocol.constants import MANIFEST_VERSION, MANIFEST_WHOLE
from remote_agent.protocol.fields import is_sha256
from remote_agent.system.private_files import SpoolError

__all__ = ["Manifest", "ManifestError", "ManifestReader", "check_manifest"]

#: Bytes of an unpacked manifest; about 500,000 files.
_MAX_MANIFEST = 128 << 20


class ManifestError(SpoolError):
    """The manifest is of another version, too large, or names a path outside the tree."""


class Manifest(NamedTuple):
    """The files (path, mode, size, sha256) and links (path, target) of a snapshot."""

    files: List[Tuple[str, int, int, str]]
    links: List[Tuple[str, str]]


class ManifestReader:
    """Reads the parts of a manifest as they come (`launcher/code/files/manifest.py` says what they are).

    Attributes:
        waiting: the names of parts that are still to be read, each as often as the manifest has it.
    """

    def __init__(self, root: str) -> None:
        self.waiting = [root]
        self._read = Manifest([], [])
        self._bytes = 0

    def read(self, store: BlobStore) -> Optional[Manifest]:
        """Read what is here. Returns the manifest when it is complete.

        Raises:
            ManifestError: it cannot be used.
            SpoolError: a part was altered. It was removed.
            OSError: the disk.
        """
        missing = []
        while self.waiting:
            name = self.waiting[-1]
            if store.has(name):
                below = self._take(store.read(name))
                self.waiting.pop()
                self.waiting += below
            else:
                missing.append(self.waiting.pop())
        self.waiting = missing
        return None if missing else check_manifest(self._read)

    def _take(self, data: bytes) -> List[str]:
        """Take a part. Returns the names of the parts below it."""
        unpacker = zlib.decompressobj()
        try:
            is_whole = not data.startswith(b"{")
            text = unpacker.decompress(data, _MAX_MANIFEST) if is_whole else data
            self._bytes += len(text)
            if unpacker.unconsumed_tail or self._bytes > _MAX_MANIFEST:
                raise ManifestError("the code manifest is over {} bytes".format(_MAX_MANIFEST))
            content = json.loads(text.decode("utf-8"))
            if content.get("version") != (MANIFEST_WHOLE if is_whole else MANIFEST_VERSION):
                raise ManifestError("code manifest of version {!r}".format(content.get("version")))
            below = [str(name) for name in content.get("parts", [])]
            files = [(str(path), int(mode), int(size), str(sha)) for path, mode, size, sha in content.get("files", [])]
            links = [(str(path), str(target)) for path, target in content.get("links", [])]
        except (AttributeError, TypeError, ValueError, zlib.error) as error:
            raise ManifestError("the code manifest cannot be read: {!r}".format(error)) from None
        for name in below:
            if not is_sha256(name):
                raise ManifestError("the code manifest names content {!r}".format(name[:80]))
        self._read.files.extend(files)
        self._read.links.extend(links)
        return below


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
