"""Packages and projects made for a test: wheels, sdists, an index that is a folder, locks. Nothing here asks a network."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from launcher.environments.uv import uv_program

__all__ = ["guarded_index", "lock_project", "make_project", "make_sdist", "make_wheel"]


def make_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    files: Mapping[str, str | bytes] | None = None,
    *,
    tag: str = "py3-none-any",
    requires: tuple[str, ...] = (),
) -> Path:
    """A wheel with these files, by default one module that says its version."""
    folder.mkdir(parents=True, exist_ok=True)
    content = dict(files if files is not None else {f"{name}.py": f"version = {version!r}\n"})
    info = f"{name}-{version}.dist-info"
    content[f"{info}/METADATA"] = "\n".join(
        [
            "Metadata-Version: 2.1",
            f"Name: {name}",
            f"Version: {version}",
            *(f"Requires-Dist: {one}" for one in requires),
        ]
    )
    content[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
    path = folder / f"{name}-{version}-{tag}.whl"
    record = []
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in content.items():
            data = text.encode() if isinstance(text, str) else text
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            record.append(f"{file},sha256={digest},{len(data)}")
            archive.writestr(zipfile.ZipInfo(file), data)
        record.append(f"{info}/RECORD,,")
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "\n".join(record) + "\n")
    return path


def make_sdist(
    folder: Path, name: str, version: str = "1.0", *, tag: str = "py3-none-any", before: str = "pass"
) -> Path:
    """An sdist that builds a wheel of that tag by a backend of its own, which needs nothing.

    Args:
        before: a line that runs before it builds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wheel = make_wheel(folder / ".inner", name, version, tag=tag)
    base = f"{name}-{version}"
    project = f'[project]\nname = "{name}"\nversion = "{version}"\n'
    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "pyproject.toml": f'{project}[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": (
            "import os, shutil\n\n\n"
            "def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):\n"
            f"    {before}\n"
            f"    shutil.copy(os.path.join(os.path.dirname(__file__), {wheel.name!r}), wheel_directory)\n"
            f"    return {wheel.name!r}\n"
        ),
    }
    path = folder / f"{base}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file, data in [*((file, text.encode()) for file, text in files.items()), (wheel.name, wheel.read_bytes())]:
            member = tarfile.TarInfo(f"{base}/{file}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    wheel.unlink()
    wheel.parent.rmdir()
    return path


def make_project(
    folder: Path, index: Path, dependencies: tuple[str, ...], *, more: str = "", python: str = ">=3.8"
) -> Path:
    """A project that depends on packages of an index; locked with `lock_project`."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = ", ".join(f'"{one}"' for one in dependencies)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "project"\nversion = "0"\nrequires-python = "{python}"\ndependencies = [{listed}]\n{more}\n'
        f'[[tool.uv.index]]\nname = "made"\nurl = "{index.as_uri()}"\nformat = "flat"\ndefault = true\n'
    )
    return folder


def lock_project(folder: Path) -> Path:
    """The project's uv.lock, made by uv."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    done = subprocess.run(
        [uv_program(), "lock", "--quiet"],
        cwd=folder,
        env={**environment, "UV_PYTHON_DOWNLOADS": "never"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    return folder / "uv.lock"


@contextmanager
def guarded_index(file: Path, needs: str) -> Iterator[tuple[str, list[str]]]:
    """An index that gives this file to who has the credentials; gives the file's address, and the paths that were asked."""
    asked: list[str] = []
    wanted = f"Basic {base64.b64encode(needs.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.headers["Authorization"] != wanted:
                self.send_error(401)
                return
            data = file.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{file.name}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
