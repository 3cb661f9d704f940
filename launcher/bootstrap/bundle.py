"""The bundle: the agent and what it needs on a host, as one deterministic zip. `launcher.bootstrap.start` sends it.

Rule: nothing is installed on a host. The bundle has its SHA-256 as its name, is sent once, and runs on any Python >=
3.8.

    remote_agent/**.py  launcher/__init__.py  _vendor/cloudpickle/  _vendor/family/{antlr4,hydra,omegaconf,yaml}/
    _vendor/also/colorlog/  stage0_unpack.py

The vendored packages are the pure Python files of those installed on the controller, unchanged except for what
`launcher.bootstrap.hydra_fallbacks` replaces. colorlog is included if it is installed: no application imports it, but
the configs of hydra-colorlog name it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import NamedTuple

import remote_agent
from launcher.bootstrap import hydra_fallbacks
from launcher.errors import LauncherError
from launcher.util.frozen import frozen
from launcher.util.user_folders import cache_folder, make_user_folder, write_user_file
from remote_agent.shared.versions import family_of

__all__ = ["Bundle", "build_bundle", "unpack"]

_KEEP_CACHED = 4
#: Packages that a composed config may name though the application does not import them. Included if installed here.
_ALSO = ("colorlog",)
_LEFT_OUT = frozenset({"__pycache__", "test_utils", "tests", "extra"})


class _Source(NamedTuple):
    name: str
    path: str
    size: int
    changed: int


@frozen
class Bundle:
    """The agent and what it needs, as one zip.

    Attributes:
        sha256: of the zip, in hex; its name on every host.
        size: of the zip, in bytes.
    """

    sha256: str
    size: int
    _path: str = ""
    _bytes: bytes | None = field(default=None, repr=False)

    @property
    def data(self) -> bytes:
        """The zip's bytes. They are read from the cache only when a host lacks them."""
        if self._bytes is not None:
            return self._bytes
        try:
            data = Path(self._path).read_bytes()
        except FileNotFoundError:
            data = b""
        if hashlib.sha256(data).hexdigest() != self.sha256:
            # Somebody has cleaned or damaged the cache since then. The sources are still there.
            data = _zip(_sources())
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise LauncherError("the launcher's own files changed while it ran; start it again")
        return data


def build_bundle() -> Bundle:
    """Return the bundle of this installation, from the user's cache if nothing has changed.

    Raises:
        LauncherError: a package that the bundle needs is not installed here.
    """
    sources = _sources()
    makers = [_source(path, "") for path in (__file__, hydra_fallbacks.__file__)]
    fingerprint = hashlib.sha256(repr((makers, sources)).encode()).hexdigest()[:32]
    folder = cache_folder() / "bundles"
    index = folder / f"{fingerprint}.json"
    try:
        known = json.loads(index.read_bytes())
        path = folder / f"{known['sha256']}.zip"
        if path.stat().st_size == known["size"]:
            return Bundle(known["sha256"], known["size"], str(path))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # it is not cached or not readable, so it is built below
    data = _zip(sources)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        write_user_file(folder / f"{sha256}.zip", data)
        write_user_file(index, json.dumps({"sha256": sha256, "size": len(data)}).encode())
        _prune(folder)
    except OSError:
        pass  # without a cache it only takes longer
    return Bundle(sha256, len(data), "", data)


def _prune(folder: Path) -> None:
    by_age = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in by_age[2 * _KEEP_CACHED :]:
        path.unlink(missing_ok=True)


def _sources() -> list[_Source]:
    """Return the files that go into the bundle, sorted by their names there."""
    here = os.path.dirname(os.path.abspath(__file__))
    found = list(_walk(os.path.dirname(os.path.abspath(remote_agent.__file__)), "remote_agent"))
    found.append(_source(os.path.join(os.path.dirname(here), "__init__.py"), "launcher/__init__.py"))
    found.append(_source(os.path.join(here, "unpack.py"), "stage0_unpack.py"))
    found.extend(_walk(_package_folder("cloudpickle"), "_vendor/cloudpickle"))
    for package in family_of(_package_folder("omegaconf")):
        found.extend(_walk(_package_folder(package), f"_vendor/family/{package}"))
    for package in _ALSO:
        if package in sys.modules or importlib.util.find_spec(package) is not None:
            found.extend(_walk(_package_folder(package), f"_vendor/also/{package}"))
    return sorted(found)


def _source(path: str, name: str) -> _Source:
    status = os.stat(path)
    return _Source(name, path, status.st_size, status.st_mtime_ns)


def _walk(folder: str, name: str) -> Iterator[_Source]:
    with os.scandir(folder) as entries:
        for entry in entries:
            inner = f"{name}/{entry.name}"
            if entry.is_dir():
                if entry.name not in _LEFT_OUT:
                    yield from _walk(entry.path, inner)
            elif entry.name.endswith((".py", ".yaml")):
                status = entry.stat()
                yield _Source(inner, entry.path, status.st_size, status.st_mtime_ns)


def _package_folder(package: str) -> str:
    module = sys.modules.get(package)
    origin = module.__file__ if module is not None else None
    if origin is None:
        spec = importlib.util.find_spec(package)
        origin = spec.origin if spec is not None else None
    if origin is None:
        raise LauncherError(f"{package!r} is not installed here, but hosts need it; install the launcher again")
    return os.path.dirname(os.path.abspath(origin))


def _zip(sources: Sequence[_Source]) -> bytes:
    """Make the zip. The same files give the same bytes, because it has no times, modes or owners of this machine."""
    import zipfile

    content = {source.name: Path(source.path).read_bytes() for source in sources}
    for name, (old, new) in hydra_fallbacks.ADJUSTMENTS.items():
        if name in content:
            content[name] = content[name].replace(old, new)
    content.update(hydra_fallbacks.STAND_INS)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(content):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = 0o100600 << 16
            archive.writestr(info, content[name], zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()


def unpack(bundle: Bundle, folder: str | os.PathLike[str]) -> Path:
    """Unpack the bundle to `<folder>/<sha256>`, as stage-0 does on a host, and return that folder.

    It may exist already.
    """
    import zipfile

    target = Path(folder) / bundle.sha256
    if target.is_dir():
        return target
    make_user_folder(Path(folder))
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        with zipfile.ZipFile(io.BytesIO(bundle.data)) as archive:
            for name in archive.namelist():
                path = new / name
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(archive.read(name))
        try:
            new.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return target
