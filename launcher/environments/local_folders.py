"""Folders of this machine that a lock names as packages. They are not built: their modules come with the project's code.

Rule: a folder that would need a build step is refused by name, and so is one whose modules are not found. No package of a lock is left out
without a word.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from launcher.environments.lock import Lock, read_toml, texts_of
from launcher.errors import PackagesError

__all__ = ["LocalFolder", "check_all_are_named", "check_none_is_built", "local_folders"]

#: Build backends that only copy Python files, unless they are told to do more.
_COPYING = ("setuptools", "hatchling", "flit_core", "flit_scm", "poetry.core", "pdm.backend", "uv_build", "hatch_vcs")
#: What in `setup.py` makes files, or chooses them by code.
_STEPS = re.compile(r"\b(ext_modules|cffi_modules|rust_extensions|cmdclass|cythonize)\b")
#: Keys of pyproject.toml that have a file made, or name build code.
_STEP_KEYS = (
    ("tool", "setuptools", "ext-modules"),
    ("tool", "setuptools", "cmdclass"),
    ("tool", "setuptools_scm", "version_file"),
    ("tool", "setuptools_scm", "write_to"),
    ("tool", "hatch", "build", "hooks"),
    ("tool", "hatch", "build", "targets", "wheel", "hooks"),
    ("tool", "poetry", "build"),
    ("tool", "pdm", "build", "run-setup"),
)
_NEXT = "build a wheel of it (`uv build --wheel FOLDER`), and name that in place of the folder"
_NOT_MODULES = ("setup.py", "conftest.py", "noxfile.py")


@dataclass(frozen=True)
class LocalFolder:
    """A folder that a lock names as a package.

    Attributes:
        path: absolute.
        lock: the file that names it.
    """

    path: Path
    lock: str

    @property
    def is_project(self) -> bool:
        """Whether it is the project of the lock itself, whose code is sent as always. It is never refused."""
        return os.path.realpath(self.path) == os.path.realpath(Path(self.lock).parent)

    def source_root(self) -> Path:
        """Return the folder that holds its modules, for `sys.path`.

        Raises:
            PackagesError: it cannot be imported as it is.
        """
        if not self.path.is_dir():
            raise PackagesError(f"environment: {self.lock} names the folder {self.path}, which is not there")
        step = "" if self.is_project else self._step()
        if step:
            raise PackagesError(
                f"environment: {self.lock} names the folder {self.path}, which has a build step ({step}), so that its "
                f"modules cannot be sent as they are\n    next: {_NEXT}"
            )
        root = next((one for one in (self.path / "src", self.path) if _has_modules(one)), None)
        if root is None and self.is_project:
            return self.path
        if root is None:
            raise PackagesError(
                f"environment: {self.lock} names the folder {self.path}, which has no package in src/ and none at its "
                f"top, so that it is not known what to put on sys.path\n    next: {_NEXT}"
            )
        return root

    def _step(self) -> str:
        """What makes files when it is built; empty if nothing does."""
        setup = _STEPS.search(_read(self.path / "setup.py"))
        if setup is not None:
            return f"{setup[1]} in setup.py"
        try:
            content = read_toml(_read(self.path / "pyproject.toml"))
        except ValueError as error:
            raise PackagesError(f"environment: {self.path / 'pyproject.toml'} is not TOML: {error}") from None
        if _at(content, ("build-system", "backend-path")):
            return "build-system.backend-path in pyproject.toml"
        backend = str(_at(content, ("build-system", "build-backend")) or "setuptools")
        if not backend.startswith(_COPYING):
            return f"build-backend {backend[:60]} in pyproject.toml"
        found = next((keys for keys in _STEP_KEYS if _at(content, keys)), None)
        return f"{'.'.join(found)} in pyproject.toml" if found is not None else ""

    def not_sent(self, project: Path | None) -> PackagesError:
        """Return the error for a folder whose modules do not come with the code."""
        where = f"is not part of the code that is sent (that of {project})" if project else "is sent to no host"
        return PackagesError(
            f"environment: {self.lock} names the folder {self.path}, which {where}\n"
            f"    next: move it into the project, where git does not ignore it; or {_NEXT}"
        )


def local_folders(lock: Lock) -> list[LocalFolder]:
    """Return the folders that a lock names as packages, or that its requirements name.

    Raises:
        PackagesError: a file of it cannot be read.
    """
    top = Path(lock.name).absolute().parent
    if lock.is_resolved:
        paths = list(_in_pylock(lock.text))
    else:
        paths = [path for text in texts_of(lock) for path in _in_requirements(text)]
    found = (Path(os.path.normpath(top / path)) for path in paths)
    folders = (path for path in found if lock.is_resolved or path.is_dir())
    return [LocalFolder(path, lock.name) for path in dict.fromkeys(folders)]


def check_all_are_named(compiled: Lock, lock: Lock) -> None:
    """Check that requirements name each folder that uv found for them: the code was sent with no others.

    A folder that has gone since says nothing: a run that is taken up has its code already.

    Raises:
        PackagesError: one is needed only by another package.
    """
    named = {os.path.realpath(one.path) for one in local_folders(lock)}
    for one in local_folders(compiled):
        if one.path.is_dir() and os.path.realpath(one.path) not in named:
            raise PackagesError(
                f"environment: {lock.name} needs the folder {one.path}, and does not name it itself\n"
                f"    next: add the line `-e {one.path}` to it"
            )


def check_none_is_built(lock: Lock) -> None:
    """Check that uv learns what requirements' folders need without running code of theirs. Its `--no-build` builds editable ones all the same.

    Raises:
        PackagesError: pyproject.toml of one does not say it.
    """
    for one in local_folders(lock):
        try:
            content = read_toml(_read(one.path / "pyproject.toml"))
        except ValueError as error:
            raise PackagesError(f"environment: {one.path / 'pyproject.toml'} is not TOML: {error}") from None
        is_said = _at(content, ("project", "name")) and _at(content, ("project", "version"))
        if not is_said or _at(content, ("project", "dynamic")) or _at(content, ("tool", "uv", "sources")):
            raise PackagesError(
                f"environment: {lock.name} names the folder {one.path}, of which only its own build code says what it needs; "
                "it is not run here\n    next: `launcher prepare` or a run builds it, if you trust it"
            )


def _in_pylock(text: str) -> Iterator[str]:
    if "directory" not in text:
        return  # most have none, and the parser's import takes 3 ms of each run
    try:
        packages = read_toml(text).get("packages")
    except ValueError:
        return  # the choice of its files reports what is wrong with it
    for package in packages if isinstance(packages, list) else ():
        path = _at(package, ("directory", "path"))
        if isinstance(path, str):
            yield path


def _in_requirements(text: str) -> Iterator[str]:
    """Yield what of requirements may be a path of this machine. uv reads paths of included files relative to the first one, too."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        said = re.sub(r"(^|\s)#.*", "", line).strip()
        said = re.sub(r"^(-e|--editable)(\s*=\s*|\s*)", "", said)
        said = re.sub(r"^[A-Za-z0-9][\w.-]*\s*(\[[^]]*\])?\s*@\s*", "", said)
        said = re.sub(r"\s+;.*", "", said)
        path = os.path.expandvars(unquote(urlsplit(said).path) if said.startswith("file:") else said)
        if path and not path.startswith("-") and "://" not in path:
            yield re.sub(r"\[[^]]*\]$", "", path) if not os.path.isdir(path) else path


def _has_modules(folder: Path) -> bool:
    """Whether something can be imported from a folder, other than what serves tests and builds."""
    try:
        entries = list(folder.iterdir())
    except OSError:
        return False
    return any(
        (one.suffix == ".py" and one.name not in _NOT_MODULES)
        or (one.name != "tests" and (one / "__init__.py").is_file())
        for one in entries
    )


def _at(content: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise PackagesError(f"environment: {file} cannot be read: {error.strerror or error}") from None
