"""Which code is sent: the project around the application, as a manifest of content hashes.

Rule: a host gets the content that was hashed. If a file is edited later, its old content is sent, which was kept as it was hashed.
`launcher.code.files.project_files` chooses the files.

Links within the project are sent as links. A link to a file outside is sent as that file, a link to a folder outside is refused
by name, and a broken link is left out.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from launcher.code.files.file_hashes import ContentStore, FileHashes, KnownManifest
from launcher.code.files.manifest import SnapshotFile, in_one_piece, in_parts, stored, unstored
from launcher.code.files.project_files import IGNORE_FILE, find_project
from launcher.code.files.project_metadata import FOLDER as METADATA_FOLDER
from launcher.code.files.project_metadata import metadata_of
from launcher.errors import CodeError
from launcher.util.same_name import folded

__all__ = ["IGNORE_FILE", "MAX_CODE_BYTES", "Snapshot", "SnapshotFile", "take"]

MAX_CODE_BYTES = 100 << 20
MAX_FILES = 100_000


@dataclass(frozen=True)
class Snapshot:
    """The code of a run.

    Attributes:
        root: the folder that the paths are relative to.
        files, links: what is sent; links are (path, target).
        commit: HEAD of the git work tree, or empty.
        dirty: the work tree differs from it.
        notes: for the user: which parts of the project were left out, and why.
        hashed: the number of files that had to be read for it.
    """

    root: Path
    files: tuple[SnapshotFile, ...]
    links: tuple[tuple[str, str], ...] = ()
    commit: str = ""
    dirty: bool = False
    notes: tuple[str, ...] = ()
    hashed: int = field(default=0, compare=False)
    _store: ContentStore = field(default_factory=ContentStore, compare=False, repr=False)
    #: By hash: content that is not in a file of the project.
    _made: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)

    #: The manifest as hosts got it, if a launcher sent it that did not divide it.
    _whole: bytes | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of_manifest(cls, root: Path, manifest: bytes, commit: str, dirty: bool) -> Snapshot:
        """The snapshot that has this manifest in a journal. Its files are read below root when they are needed.

        Raises:
            CodeError: a newer launcher wrote it.
        """
        files, links, whole = unstored(manifest)
        return cls(root, files, links, commit, dirty, _whole=whole)

    def manifest_bytes(self) -> bytes:
        """The manifest as the journal has it."""
        return self._whole if self._whole is not None else stored(self._in_one_piece)

    @cached_property
    def _in_one_piece(self) -> bytes:
        return in_one_piece(self.files, self.links)

    @cached_property
    def hash(self) -> str:
        """Names the snapshot: the name of its manifest's root. The same files give the same hash."""
        if self._whole is not None:
            # Not divided: hosts know it by the hash of these very bytes.
            return hashlib.sha256(self._whole).hexdigest()
        files, known = hashlib.sha256(self._in_one_piece).hexdigest(), KnownManifest(self.root)
        name = known.name_of(files)
        if name is None:
            name = self._divided[0]
            known.remember(files, name)
        return name

    @cached_property
    def _divided(self) -> tuple[str, dict[str, bytes]]:
        return in_parts(self.files, self.links)

    @property
    def manifest_parts(self) -> Mapping[str, bytes]:
        """The manifest as hosts get it: its parts by their names. They are made when a host asks for the first."""
        return self._divided[1] if self._whole is None else {self.hash: self._whole}

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @cached_property
    def _by_hash(self) -> dict[str, SnapshotFile]:
        return {file.sha256: file for file in self.files}

    @cached_property
    def _folders(self) -> frozenset[str]:
        """Every folder with something in it; the root is the empty text."""
        found = {""}
        for path in [*(file.path for file in self.files), *(path for path, _ in self.links)]:
            folder = path.rpartition("/")[0]
            while folder not in found:
                found.add(folder)
                folder = folder.rpartition("/")[0]
        return frozenset(found)

    def has_content(self, sha256: str) -> bool:
        """Whether a file has the content with this hash."""
        return sha256 in self._by_hash

    def size_of(self, sha256: str) -> int:
        """Bytes of the content with this hash, which a file has."""
        return self._by_hash[sha256].size

    def read(self, sha256: str) -> bytes:
        """The content with this hash: that of the file, or, if that was edited, the content that was kept.

        Raises:
            CodeError: the file was edited, and its old content is not kept any more.
        """
        made = self._made.get(sha256)
        if made is not None:
            return made
        path = self.root / self._by_hash[sha256].path
        try:
            data = path.read_bytes()
        except OSError:
            data = b""
        if hashlib.sha256(data).hexdigest() == sha256:
            return data
        kept = self._store.read(sha256)
        if kept is None:
            raise CodeError(
                f"{path} changed after the run began, and its old content was not kept; start the run again"
            )
        return kept

    def has_file(self, path: str) -> bool:
        """Whether this file is one of those that are sent."""
        name = os.path.relpath(os.path.realpath(path), os.path.realpath(self.root))
        # A link is sent as a link; the file behind it is sent under its own name.
        return name in self._by_path or os.path.relpath(path, self.root) in self._by_path

    def has_folder(self, path: Path) -> bool:
        """Whether something in this folder is sent."""
        name = os.path.relpath(os.path.realpath(path), os.path.realpath(self.root))
        return name == "." or name in self._folders

    def relative(self, path: Path) -> str:
        """A path of this machine, relative to the root: its own if it is sent, else that of the nearest folder that is.

        `.` if it lies outside.
        """
        name = os.path.relpath(os.path.realpath(path), os.path.realpath(self.root))
        if name == "." or name.startswith(".."):
            return "."
        if name in self._by_path:
            return name
        while name not in self._folders:
            name = name.rpartition("/")[0]
        return name or "."

    @cached_property
    def _by_path(self) -> frozenset[str]:
        return frozenset(file.path for file in self.files)

    def sys_path(self, app: Path, paths: Sequence[str]) -> list[str]:
        """The entries of a `sys.path` that are sent, relative to the root, in their order.

        Next come the folders of editable installs that are not on the path. If the application can be imported from none of
        these, its folder (for a package: the folder that holds it) comes first. The project's metadata comes last.

        Args:
            app: the application's file or folder.
            paths: `sys.path` of this process.
        """
        root = os.path.realpath(self.root)
        out: list[str] = []
        for path in [*paths, *_editable_folders()]:
            name = os.path.relpath(os.path.realpath(path or os.getcwd()), root)
            name = "" if name == "." else name
            if name in self._folders and (name or ".") not in out:
                out.append(name or ".")
        folder = Path(os.path.realpath(app))
        folder = folder if folder.is_dir() else folder.parent
        own = os.path.relpath(folder, root)
        if not (own.startswith("..") or any(one in (".", own) or own.startswith(f"{one}/") for one in out)):
            while (folder / "__init__.py").exists() and str(folder) != root:
                folder = folder.parent
            out.insert(0, os.path.relpath(folder, root))
        return [*out, METADATA_FOLDER] if METADATA_FOLDER in self._folders else out


def _editable_folders() -> list[str]:
    """The folders from which setuptools' editable installs import packages without an entry in `sys.path`."""
    folders = []
    for name, module in list(sys.modules.items()):
        mapping = getattr(module, "MAPPING", None) if name.startswith("__editable__") else None
        for package, path in (mapping or {}).items():
            if os.path.basename(path).removesuffix(".py") == package.rpartition(".")[2]:
                folders.append(os.path.dirname(path))
    return folders


# -- taking one ----------------------------------------------------------------------------------------------------


def take(
    app: Path,
    *,
    max_bytes: int = MAX_CODE_BYTES,
    root: Path | None = None,
    exclude: Iterable[Path] = (),
    store: ContentStore | None = None,
) -> Snapshot:
    """The snapshot of the project around an application's file (or folder).

    Args:
        max_bytes: cap of all files together.
        root: the project's folder; None looks for it.
        exclude: folders that do not belong to it, such as the run's own.
        store: where content is kept; the user's cache by default.

    Raises:
        CodeError: it is larger than max_bytes, a file cannot be read, or a link leads to a folder outside.
    """
    app = Path(app)
    project = find_project(app if app.is_dir() else app.parent, root=root, exclude=exclude)
    store = store if store is not None else ContentStore()
    hashes = FileHashes(project.root, store)
    found, links, notes = _looked_at(project.root, project.names)
    total = sum(status.st_size for _, status in found)
    if total > max_bytes or len(found) > MAX_FILES:
        raise _too_large(project.root, found, total, max_bytes)
    try:
        files = tuple(
            SnapshotFile(name, 0o755 if status.st_mode & 0o100 else 0o644, size, digest)
            for name, status in found
            for size, digest in (hashes.sized(name, status),)
        )
        metadata = _kept_metadata(project.root, project.names, store)
    finally:
        store.close()
    hashes.save()
    return Snapshot(
        project.root,
        (*files, *(SnapshotFile(name, 0o644, len(data), digest) for name, digest, data in metadata)),
        tuple(links),
        project.commit,
        project.is_dirty,
        tuple(notes),
        hashes.hashed,
        store,
        {digest: data for _, digest, data in metadata},
    )


def _kept_metadata(root: Path, names: Iterable[str], store: ContentStore) -> list[tuple[str, str, bytes]]:
    """(path, hash, content) of the project's own metadata. It is kept: a run may be resumed in another environment."""
    made = []
    for name, data in metadata_of(root, frozenset(names), sys.path):
        digest = hashlib.sha256(data).hexdigest()
        store.keep(digest, data)
        made.append((name, digest, data))
    return made


_Found = list[tuple[str, os.stat_result]]


def _looked_at(root: Path, names: Sequence[str]) -> tuple[_Found, list[tuple[str, str]], list[str]]:
    """(files with their status, links, notes), in the order of the names."""
    top = str(root)
    files: _Found = []
    links: list[tuple[str, str]] = []
    notes: list[str] = []
    for name in names:
        path = f"{top}/{name}"
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # git tracks it, but it was deleted
        except OSError as error:
            raise CodeError(f"{path}: {error.strerror}; leave it out with {IGNORE_FILE}") from None
        if stat.S_ISREG(status.st_mode):
            files.append((name, status))
        elif stat.S_ISLNK(status.st_mode):
            _look_at_link(root, name, files, links, notes)
        elif stat.S_ISDIR(status.st_mode):
            continue  # git tracks a file of that name, and what is in the folder has names of its own
        else:
            notes.append(f"{name} is neither a file nor a link, so it is not sent")
    return files, links, notes + _one_file_each(files)


def _one_file_each(files: _Found) -> list[str]:
    """What to tell of names that are two in git, and one file on a disk that does not tell case, or forms of a letter, apart."""
    if len({folded(name) for name, _ in files}) == len(files):
        return []
    known: dict[str, tuple[str, os.stat_result]] = {}
    notes = []
    for name, status in files:
        first, found = known.setdefault(folded(name), (name, status))
        if first != name and os.path.samestat(found, status):
            notes.append(f"{first} and {name} are the same file on this disk, so both are sent with its content")
    return notes


def _look_at_link(root: Path, name: str, files: _Found, links: list[tuple[str, str]], notes: list[str]) -> None:
    path = root / name
    target = os.readlink(path)
    real = os.path.realpath(path)
    folder = os.path.dirname(name)
    lexical = os.path.normpath(os.path.join(folder, target))
    if real == str(root) or real.startswith(f"{root}/"):
        if os.path.isabs(target) or lexical == ".." or lexical.startswith("../"):
            target = os.path.relpath(real, os.path.realpath(root / folder))
        links.append((name, target))
    elif os.path.isfile(real):
        files.append((name, os.stat(real)))
    elif os.path.isdir(real):
        raise CodeError(
            f"{path} is a link to a folder outside the project ({target}), which a host does not have; name it in "
            f"{IGNORE_FILE}, and give the jobs its path on the host in their config"
        )
    else:
        notes.append(f"{name} is a broken link ({target}), so it is not sent")


def _too_large(root: Path, found: _Found, total: int, cap: int) -> CodeError:
    largest = sorted(found, key=lambda one: -one[1].st_size)[:5]
    lines = "\n".join(f"  {status.st_size / (1 << 20):8.1f} MiB  {name}" for name, status in largest)
    if total <= cap:
        return CodeError(
            f"the code below {root} has {len(found)} files; the limit is {MAX_FILES}. "
            f"Leave out what is not code with {IGNORE_FILE} (gitignore's syntax)."
        )
    return CodeError(
        f"the code below {root} is {total / (1 << 20):.1f} MiB, over the cap of {cap / (1 << 20):.1f} MiB "
        f"(max_code_size). The five largest files:\n{lines}\n"
        f"Leave out what is not code with {IGNORE_FILE} (gitignore's syntax), or raise max_code_size "
        "(--max-code-size)."
    )
