"""The wheels for hosts, as files on this machine: fetched, or built from an sdist, and stored by content.

Rule: a file is used only if the lock has its hash. Only this machine asks an index, with its own credentials. No host gets a credential,
and an address only by `addresses`. A wheel that is built here must fit any platform, or it is refused by name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from launcher.environments.credentials import credentials_for
from launcher.environments.git import check_out, is_git_address
from launcher.environments.lock import write_whole
from launcher.environments.select import Chosen
from launcher.environments.uv import Steps, run_uv, without_secrets
from launcher.errors import PackagesError
from launcher.util.user_folders import cache_folder, make_user_folder
from remote_agent.protocol.fields import is_sha256

__all__ = ["WheelCache", "digest_of"]

_PIECE = 1 << 20
#: How many seconds an index may be silent.
_TIMEOUT = 60
_TRIES = 3
#: How many bytes must come within that time.
_SLOWEST = 64 << 10
_FITS_ALL = re.compile(r"-(?:py2\.)?py3-none-any\.whl$")


class WheelCache:
    """Files by their sha256, in the user's cache folder.

    Args:
        indexes: [name, address] of the project's indexes. uv uses the names to look for credentials.
        steps: the steps to which this work belongs.
    """

    def __init__(self, indexes: Mapping[str, str], folder: Path | None = None, steps: Steps | None = None) -> None:
        self._steps = steps or Steps()
        self._indexes = indexes
        self._folder = folder if folder is not None else cache_folder() / "packages"

    def path(self, sha256: str) -> Path:
        """Return the path of a file, if it exists."""
        return self._folder / sha256[:2] / sha256

    def fetch(self, chosen: Chosen, *, is_doubtful: bool = False) -> Path:
        """Return the file. It is fetched if it is not here, or if it is doubtful and was altered.

        Raises:
            PackagesError: it cannot be fetched, or does not match the lock.
        """
        path = self.path(chosen.sha256)
        if path.is_file() and not (is_doubtful and self._was_altered(path, chosen)):
            return path
        temporary = self._temporary(path)
        try:
            digest = _copy(chosen, temporary, self._indexes, self._steps)
            if digest != chosen.sha256:
                raise PackagesError(
                    f"environment: {chosen.file} has the sha256 {digest}, and the lock says {chosen.sha256}: it was "
                    "replaced or altered; find out why before you lock again"
                )
            temporary.replace(path)
        except OSError as error:
            raise PackagesError(
                f"environment: {chosen.file} cannot be kept in {self._folder}: {error.strerror or error}"
            ) from None
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def _was_altered(self, path: Path, chosen: Chosen) -> bool:
        """Whether its content does not match its name. If so, it is removed."""
        if digest_of(path) == chosen.sha256:
            return False
        path.unlink(missing_ok=True)
        if chosen.url == path.as_uri():
            raise PackagesError(
                f"environment: {chosen.file}, which was built on this machine, was altered in {self._folder}, and was removed\n    "
                "next: start the run again; it is then built again"
            )
        return True

    def wheel_of(self, chosen: Chosen) -> Chosen:
        """Return the wheel that is built from an sdist or a commit, or a wheel unchanged. An earlier wheel of the same source is used again.

        Raises:
            PackagesError: it cannot be built, or fits only this machine.
        """
        if chosen.is_wheel:
            return chosen
        source = (
            hashlib.sha256(f"{chosen.sha256}/{chosen.folder}".encode()).hexdigest() if chosen.folder else chosen.sha256
        )
        note = self._folder / "built" / f"{source}.json"
        built = self._read_note(note, chosen)
        if built is not None:
            return built
        if not self._steps.may_build:
            raise PackagesError(
                f"environment: {chosen.name} ({chosen.file}) is no wheel, and would be built on this machine by its own code; this is "
                "not done here\n    next: `launcher prepare` or a run builds it, if you trust it; or choose a version that has a wheel"
            )
        is_commit = is_git_address(chosen.url)
        sdist = None if is_commit else self.fetch(chosen)
        make_user_folder(self._folder)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".build.") as folder:
            if sdist is None:
                named = check_out(chosen.url, chosen.file, Path(folder, "git"), self._steps)
            else:
                named = Path(folder, chosen.file)
                shutil.copyfile(sdist, named)
                if chosen.folder:
                    named = _unpacked(chosen, named, Path(folder, "archive"))
            run_uv(
                f"a wheel of {chosen.file}",
                ["build", "--quiet", "--wheel", "--no-config", "--out-dir", str(Path(folder, "out")), str(named)],
                cwd=Path(folder),
                # The same content gives the same wheel at any time.
                environment={"SOURCE_DATE_EPOCH": "1577836800"},
                steps=self._steps,
            )
            (wheel,) = Path(folder, "out").glob("*.whl")
            if not _FITS_ALL.search(wheel.name):
                raise PackagesError(
                    f"environment: {chosen.name} {chosen.version} has no wheel for this host, and what is built from its source "
                    f"({wheel.name}) fits only this machine; choose a version that has wheels, or build one and name it in the lock"
                )
            sha256 = digest_of(wheel)
            path = self.path(sha256)
            make_user_folder(path.parent)
            wheel.replace(path)
            write_whole(note, json.dumps({"file": wheel.name, "sha256": sha256}).encode())
        return _as_built(chosen, wheel.name, sha256, path)

    def _read_note(self, note: Path, chosen: Chosen) -> Chosen | None:
        try:
            said = json.loads(note.read_bytes())
            file, sha256 = str(said["file"]), str(said["sha256"])
        except (OSError, ValueError, LookupError, TypeError):
            return None
        path = self.path(sha256)
        if not is_sha256(sha256) or not path.is_file():
            return None
        return _as_built(chosen, file, sha256, path)

    def _temporary(self, path: Path) -> Path:
        try:
            make_user_folder(path.parent)
        except OSError as error:
            raise PackagesError(f"environment: {path.parent} cannot be made: {error.strerror or error}") from None
        return path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")


def _unpacked(chosen: Chosen, archive: Path, target: Path) -> Path:
    """Unpack an archive that has the lock's hash; returns the folder of its package. Its code is run next, to build the wheel."""
    import tarfile

    # Early versions of 3.10 and 3.11 have no filters.
    checked: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") and tarfile.is_tarfile(archive) else {}
    try:
        shutil.unpack_archive(archive, target, **checked)
        inside = list(target.iterdir())
    except (OSError, ValueError, tarfile.TarError, shutil.ReadError) as error:
        raise PackagesError(f"environment: {chosen.file} cannot be unpacked: {error}") from None
    # An sdist has one folder, and everything in it.
    package = (inside[0] if len(inside) == 1 and inside[0].is_dir() else target) / chosen.folder
    if not package.is_dir():
        raise PackagesError(f"environment: {chosen.file} has no folder {chosen.folder}")
    return package


def _as_built(chosen: Chosen, file: str, sha256: str, path: Path) -> Chosen:
    # A lock need not say the version of a commit: the wheel does.
    version = chosen.version or file.split("-")[1]
    size = path.stat().st_size
    return replace(
        chosen, version=version, file=file, sha256=sha256, size=size, is_wheel=True, url=path.as_uri(), folder=""
    )


def digest_of(path: Path) -> str:
    """Return the sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _copy(chosen: Chosen, target: Path, indexes: Mapping[str, str], steps: Steps) -> str:
    """Fetch the content. Returns its sha256. After a broken connection it is tried again."""
    parts = urlsplit(chosen.url)
    if parts.scheme == "file":
        try:
            shutil.copyfile(unquote(parts.path), target)
        except OSError as error:
            raise PackagesError(f"environment: {unquote(parts.path)}: {error.strerror or error}") from None
        return digest_of(target)
    if parts.scheme not in ("http", "https"):
        raise PackagesError(f"environment: {chosen.file}: {parts.scheme}: is not an address that can be fetched")
    # A run whose files are all on its hosts needs none of these.
    import ssl
    import urllib.error

    for left in reversed(range(_TRIES)):
        try:
            return _download(chosen.url, target, indexes, steps)
        except (urllib.error.URLError, ssl.SSLError, ConnectionError, TimeoutError) as error:
            status = getattr(error, "code", None)
            if left and (status is None or status >= 500):
                continue
            raise PackagesError(_why(chosen, error, status)) from None
    raise AssertionError("the last try returns or raises")


def _why(chosen: Chosen, error: Exception, status: int | None) -> str:
    address = without_secrets(chosen.url)
    reason = f"status {status}" if status is not None else str(getattr(error, "reason", error))
    step = ""
    if status in (401, 403):
        step = "; its index asks for credentials: put them into ~/.netrc, or into UV_INDEX_NAME_USERNAME and UV_INDEX_NAME_PASSWORD, here"
    return f"environment: {address} cannot be fetched: {reason}{step}"


def _download(url: str, target: Path, indexes: Mapping[str, str], steps: Steps) -> str:
    import urllib.request

    parts = urlsplit(url)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    request = urllib.request.Request(bare, headers={"User-Agent": "hydra-remote-launcher"})  # noqa: S310 - http or https, see _copy
    credentials = credentials_for(url, indexes)
    if credentials is not None:
        value = base64.b64encode(":".join(credentials).encode()).decode()
        # Credentials must not go to a server to which the request is redirected.
        request.add_unredirected_header("Authorization", f"Basic {value}")
    digest = hashlib.sha256()
    began, count = time.monotonic(), 0
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, target.open("wb") as file:  # noqa: S310 - as above
        while piece := answer.read1(_PIECE):
            steps.check()
            digest.update(piece)
            file.write(piece)
            count += len(piece)
            now = time.monotonic()
            if now - began > _TIMEOUT:
                if count < _SLOWEST:
                    raise TimeoutError(f"only {count} bytes came within {_TIMEOUT} s")
                began, count = now, 0
    return digest.hexdigest()
