"""A cache of file hashes, and of the content that was hashed.

Rule: a hash is kept, under the file's size, times and inode, only if the file had not changed for a while before it was read. A file that
changed within the same tick of the clock is read again, as git does with its index. Both caches are in the user's cache folder,
may be deleted at any time, and only the user can read them (0700, 0600).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import CodeError
from launcher.util.user_folders import cache_folder, make_user_folder, write_user_file

if TYPE_CHECKING:
    import zipfile

__all__ = ["ContentStore", "FileHashes", "KnownManifest"]

_VERSION = 2
#: A file must not have changed for this long before it was read; some clocks count whole seconds only.
_REST_NS = 2_000_000_000
_MAX_KEPT = 1 << 30
_PIECE = 1 << 20


def _stamp(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


class ContentStore:
    """The content of files as it was hashed, by hash, for a host that asks for it after the files were edited.

    Each run that has new content writes one uncompressed zip archive, whose members are named by their hash: 2,000 small files
    would be slow.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = _MAX_KEPT) -> None:
        self._folder = folder if folder is not None else cache_folder() / "content"
        self._max_bytes = max_bytes
        self._new: zipfile.ZipFile | None = None
        self._new_names: set[str] = set()
        self._is_broken = False

    def keep(self, sha256: str, data: bytes) -> None:
        """Keep content, if that is possible. It can be read after `close`."""
        if self._is_broken or sha256 in self._new_names:
            return
        import zipfile

        try:
            if self._new is None:
                make_user_folder(self._folder)
                file = open(self._folder / f".{secrets.token_hex(8)}", "xb", opener=_private)  # noqa: SIM115
                self._new = zipfile.ZipFile(file, "w")
            self._new.writestr(zipfile.ZipInfo(sha256), data)
            self._new_names.add(sha256)
        except OSError:
            # The disk is full, or the home folder is read-only: the files themselves can still be read.
            self._is_broken = True

    def close(self) -> None:
        """Write the archive, and delete the oldest ones above the cap. `keep` may be called again afterwards."""
        new, self._new = self._new, None
        self._new_names.clear()
        if new is None:
            return
        file = new.fp
        temporary = Path(str(getattr(file, "name", "")))
        try:
            new.close()
            if file is not None:
                file.close()
            if self._is_broken:
                temporary.unlink()
                return
            os.replace(temporary, self._folder / f"{time.time_ns():020d}-{temporary.name[1:]}.zip")
            self._prune()
        except OSError:
            self._is_broken = True
            with contextlib.suppress(OSError):
                temporary.unlink()

    def read(self, sha256: str) -> bytes | None:
        """The content, if it was kept and is undamaged."""
        import zipfile

        for path in reversed(self._packs()):
            try:
                with zipfile.ZipFile(path) as pack:
                    data = pack.read(sha256)
            except (KeyError, OSError, zipfile.BadZipFile):
                continue
            if hashlib.sha256(data).hexdigest() == sha256:
                return data
        return None

    def _packs(self) -> list[Path]:
        """The archives, oldest first."""
        try:
            return sorted(path for path in self._folder.iterdir() if path.suffix == ".zip")
        except OSError:
            return []

    def _prune(self) -> None:
        total = 0
        for path in reversed(self._packs()):
            total += path.stat().st_size
            if total > self._max_bytes:
                path.unlink()


class FileHashes:
    """sha256 of the files of one project.

    Attributes:
        hashed: the number of files that had to be read.
    """

    def __init__(self, root: Path, store: ContentStore) -> None:
        self._root = root
        self._store = store
        self._path = _cache_of(root, "json")
        self._known = self._loaded()
        self._used: dict[str, list[object]] = {}
        self.hashed = 0

    def _loaded(self) -> dict[str, list[object]]:
        try:
            head, _, data = self._path.read_bytes().partition(b"\n")
            if head != _head(data):
                return {}  # another version wrote it, or it is damaged
            files = json.loads(data)
        except (OSError, ValueError):
            return {}
        return files if isinstance(files, dict) else {}

    def sized(self, name: str, status: os.stat_result) -> tuple[int, str]:
        """(size, sha256) of a file of the project.

        Args:
            status: of the file, read just now.

        Raises:
            CodeError: it cannot be read, or does not stop changing.
        """
        known = self._known.get(name)
        if isinstance(known, list) and len(known) == 5 and isinstance(known[4], str) and known[:4] == _stamp(status):
            self._used[name] = known
            return status.st_size, known[4]
        return self._read(name)

    def _read(self, name: str) -> tuple[int, str]:
        path = self._root / name
        for _ in range(3):
            begun = time.time_ns()
            try:
                with path.open("rb") as file:
                    before = _stamp(os.fstat(file.fileno()))
                    data = file.read()
                    after = _stamp(os.fstat(file.fileno()))
            except OSError as error:
                raise CodeError(f"{path}: {error.strerror}; leave it out, or make it readable") from None
            if before != after or len(data) != before[0]:
                continue
            self.hashed += 1
            digest = hashlib.sha256(data).hexdigest()
            self._store.keep(digest, data)
            if begun - max(before[1], before[2]) > _REST_NS:
                self._used[name] = [*before, digest]
            return before[0], digest
        raise CodeError(f"{path} keeps changing while it is read; leave it out of the code")

    def save(self) -> None:
        """Write the hashes of the files that were asked for. If that fails, the next run takes longer."""
        if self._used == self._known:
            return
        data = json.dumps(self._used, separators=(",", ":")).encode("ascii")
        _write(self._path, _head(data) + b"\n" + data)


class KnownManifest:
    """The name of the manifest of a project's last snapshot, so that the manifest of the same files need not be made again."""

    def __init__(self, root: Path) -> None:
        self._path = _cache_of(root, "manifest")

    def name_of(self, files: str) -> str | None:
        """The name, if the snapshot had the files with this hash."""
        try:
            head, _, data = self._path.read_bytes().partition(b"\n")
        except OSError:
            return None
        known, _, name = data.decode("ascii", "replace").partition(" ")
        return name if head == _head(data) and known == files else None

    def remember(self, files: str, name: str) -> None:
        """Keep the name. If that fails, the next run takes longer."""
        data = f"{files} {name}".encode("ascii")
        _write(self._path, _head(data) + b"\n" + data)


def _cache_of(root: Path, what: str) -> Path:
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
    return cache_folder() / "hashes" / f"{name}.{what}"


def _write(path: Path, data: bytes) -> None:
    """Write a file of the cache, if that can be done."""
    with contextlib.suppress(OSError):
        write_user_file(path, data)


def _head(data: bytes) -> bytes:
    """The first line of the cache. A wrong hash would be one that no file has, so hosts could not be sent it."""
    return f"{_VERSION} {hashlib.sha256(data).hexdigest()}".encode("ascii")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
