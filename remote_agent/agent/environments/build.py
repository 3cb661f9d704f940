"""Builds an environment from files that are here: uv installs exactly these wheels, and asks no index.

Rule: it is made in a separate folder, which is renamed when the environment is complete and was tested. If anything fails before, nothing
is left that anybody would use.
"""

import json
import os
import re
import shutil
import time
from typing import List, Optional

from remote_agent.agent.environments.fetched_pythons import FetchedPythons
from remote_agent.agent.environments.programs import ADVICE, ROOM, Advice, BuildError, Programs
from remote_agent.agent.environments.store.store import LAYOUT, EnvironmentStore
from remote_agent.agent.environments.store.unpacked import altered_files
from remote_agent.agent.spool.code.blobs import BlobStore
from remote_agent.protocol.specs.environment import EnvironmentSpec, Wheel
from remote_agent.shared.disk import digest_of
from remote_agent.system.private_files import make_private_folder, open_private

__all__ = ["BuildError", "Builder", "room_lacking"]

#: How much larger installed wheels are.
_UNPACKED = 4
#: Lists what lies where this Python looks for packages. Reading what each says of itself would take as long as installing it.
_PROBE = "import os,sys;print(*(n for p in sys.path if os.path.isdir(p) for n in os.listdir(p)),sep='\\n')"
_ALLOW = "\n    next: allow 'downloads' for this host, or install a Python there that the lock fits"
_NO_PYTHON = "\n    next: see whether the host reaches that address, or a mirror (UV_PYTHON_INSTALL_MIRROR there); or install a Python there that the lock fits"
_INFO = re.compile(r"([A-Za-z0-9._-]+?)-[^-]+\.dist-info")


def room_lacking(
    store: EnvironmentStore, spec: EnvironmentSpec, missing: int, advice: Advice = ADVICE, *, is_built: bool = True
) -> str:
    """Return the error if there is too little room for an environment; empty if there is enough. `is_built`: not only its files lie there."""
    needed = missing + (_UNPACKED * sum(wheel.size for wheel in spec.files) if is_built else 0) + ROOM
    free = shutil.disk_usage(store.cache).free
    if free >= needed:
        return ""
    return "{} free in {}, and the environment needs about {}{}".format(
        _size(free), store.cache, _size(needed), advice.more_room
    )


def _size(count: int) -> str:
    return "{:.1f} GiB".format(count / (1 << 30)) if count >= 1 << 30 else "{:.0f} MiB".format(count / (1 << 20))


class Builder:
    """Builds one environment. `stop` ends it from another thread.

    Args:
        fetches_python: uv may fetch its Python.
        files: where wheels and uv lie under their names; None if they lie where it is built.
        advice: for whoever reads the error.
    """

    def __init__(
        self,
        store: EnvironmentStore,
        blobs: BlobStore,
        spec: EnvironmentSpec,
        *,
        fetches_python: bool = False,
        files: Optional[EnvironmentStore] = None,
        advice: Advice = ADVICE,
    ) -> None:
        self._fetches_python = fetches_python
        self._files = files if files is not None else store
        self._advice = advice
        self._store = store
        self._blobs = blobs
        self._spec = spec
        self._programs = Programs(store.folder, spec.limit, advice)

    def stop(self) -> None:
        """End the running program. `build` then raises."""
        self._programs.stop()

    def build(self) -> None:
        """Build the environment, and rename it.

        Raises:
            BuildError: it cannot be built.
            SpoolError, OSError: the disk.
        """
        store, spec = self._store, self._spec
        if store.python(spec.key) is not None:
            return
        self._remove_old_parts()
        lacking = room_lacking(store, spec, 0, self._advice)
        if lacking:
            raise BuildError(lacking)
        self._check_files()
        self._programs.uv_cache = store.uv_cache.begin(spec.key)
        uv = self._uv()
        python = self._python(uv)
        part = os.path.join(store.folder, ".part.{}.{}".format(spec.key[:16], os.urandom(6).hex()))
        os.mkdir(part, 0o700)
        try:
            self._install(uv, python, part)
            if altered_files(part):
                # Somebody has edited a file of another environment, or a disk has lost some: everything is unpacked again.
                shutil.rmtree(part)
                os.mkdir(part, 0o700)
                self._programs.uv_cache = store.uv_cache.renew(spec.key)
                self._install(uv, python, part)
            self._try(part)
            self._describe(part)
            self._publish(part)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def gather(self, nodes: str) -> None:
        """Have here what nodes need to build it on their own disks, and describe it. `nodes`: the folder there, for who lists it.

        Raises:
            BuildError: something is not here.
            SpoolError, OSError: the disk.
        """
        store, spec = self._store, self._spec
        self._remove_old_parts()
        self._check_files()
        # uv writes there only if it fetches a Python.
        self._programs.uv_cache = store.uv_cache.begin(spec.key)
        self._python(self._uv())
        for wheel in spec.files:
            self._wheel(wheel)
        if store.is_described(spec.key):
            return
        part = os.path.join(store.folder, ".part.{}.{}".format(spec.key[:16], os.urandom(6).hex()))
        os.mkdir(part, 0o700)
        try:
            self._describe(part, nodes=nodes)
            self._publish(part)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _remove_old_parts(self) -> None:
        """Remove parts of this environment that a dead builder has left. The caller holds the lock."""
        for name in os.listdir(self._store.folder):
            if name.startswith(".part.{}.".format(self._spec.key[:16])):
                shutil.rmtree(os.path.join(self._store.folder, name), ignore_errors=True)

    def _check_files(self) -> None:
        """Check the files, because a clean-up may have removed some since they arrived."""
        wanted = {wheel.sha256: wheel.file for wheel in self._spec.files}
        if self._files.uv(self._spec) is None:
            wanted[self._spec.uv] = "uv"
        gone = [name for sha256, name in wanted.items() if not self._blobs.has(sha256)]
        if gone:
            raise BuildError("these have gone since they arrived: {}".format(", ".join(gone[:20])), gone)

    def _uv(self) -> str:
        """Return uv. It is made from its content if it does not exist yet."""
        there = self._files.uv(self._spec)
        if there is not None:
            return there
        path = os.path.join(self._files.cache, "uv-bin", self._spec.uv)
        data = self._blobs.read(self._spec.uv)
        temporary = "{}.{}".format(path, os.urandom(6).hex())
        fd = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                os.fchmod(file.fileno(), 0o700)
            os.rename(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        return path

    def _python(self, uv: str) -> str:
        """Return the program of the Python. uv fetches it, and checks its hash, if it is one that uv has, and it is not here yet."""
        pythons, python = FetchedPythons(self._files.cache), self._spec.python
        path, name = pythons.path(python), pythons.name_of(python)
        if name is None:
            return python
        if path is not None:
            return path
        if not self._fetches_python:
            raise BuildError("{}, which uv had fetched, has gone, and may not be fetched{}".format(name, _ALLOW))
        make_private_folder(pythons.folder)
        # What an earlier time has left of it may be a part.
        options = ["--no-bin", "--reinstall", "--install-dir", pythons.folder]
        try:
            self._programs.run([uv, "python", "install", *options, name], is_online=True)
        except BuildError as error:
            raise error if self._programs.is_stopped else BuildError("{}{}".format(error, _NO_PYTHON)) from None
        pythons.keep(name)
        made = pythons.path(python)
        if made is None:
            raise BuildError("uv has fetched {}, and there is no Python in it".format(name))
        return made

    def _wheel(self, wheel: Wheel) -> str:
        """Return the folder in which a wheel has its name. The path stays the same, because uv's cache knows a wheel by its path."""
        folder = os.path.join(self._files.cache, "wheels", wheel.sha256)
        path = os.path.join(folder, wheel.file)
        blob = self._blobs.path(wheel.sha256)
        if os.path.exists(path) and os.path.samefile(path, blob):
            return folder
        make_private_folder(folder)
        temporary = os.path.join(folder, ".{}".format(os.urandom(6).hex()))
        try:
            os.link(blob, temporary)
        except OSError:
            shutil.copy2(blob, temporary)  # a file system without hard links
        os.rename(temporary, path)
        return folder

    def _install(self, uv: str, python: str, part: str) -> None:
        wheels = self._spec.files
        self._programs.run(
            [uv, "venv", "--quiet", "--relocatable", "--no-project", "--allow-existing", "--python", python, part]
        )
        if not wheels:
            return
        lines = ["--no-index"]
        for wheel in wheels:
            lines.append("--find-links {}".format(_escaped(self._wheel(wheel))))
            lines.append("{}=={} --hash=sha256:{}".format(wheel.name, wheel.version, wheel.sha256))
        listed = os.path.join(part, "requirements.txt")
        with open(listed, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        command = [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--no-build", "--require-hashes"]
        try:
            self._programs.run([*command, "--python", os.path.join(part, "bin", "python"), "--requirements", listed])
        except BuildError as error:
            if self._programs.is_stopped:
                raise
            altered = self._altered()
            if altered:
                raise BuildError(
                    "content that was altered since it arrived was removed: {}".format(", ".join(altered)), altered
                ) from None
            raise error from None

    def _altered(self) -> List[str]:
        """Return wheels whose content does not match their name. They are removed."""
        found = []
        for wheel in self._spec.files:
            path = self._blobs.path(wheel.sha256)
            if _digest(path) != wheel.sha256:
                found.append(wheel.file)
                shutil.rmtree(os.path.join(self._files.cache, "wheels", wheel.sha256), ignore_errors=True)
                try:
                    os.unlink(path)
                except FileNotFoundError:
                    continue  # a clean-up has removed it
        return found

    def _try(self, part: str) -> None:
        """Check that the Python of the environment starts, and finds what was installed."""
        said = self._programs.run([os.path.join(part, "bin", "python"), "-I", "-c", _PROBE])
        found = (_INFO.fullmatch(line) for line in said.splitlines())
        there = {_canonical(one.group(1)) for one in found if one is not None}
        lost = [wheel.name for wheel in self._spec.files if _canonical(wheel.name) not in there]
        if lost:
            raise BuildError("after the installation these are not there: {}".format(", ".join(lost[:20])))

    def _describe(self, part: str, **more: str) -> None:
        content = {"layout": LAYOUT, "spec": self._spec.to_json(), "built": time.time(), **more}
        content.update(boot=self._store.boot, machine=self._store.machine)
        fd = open_private(os.path.join(part, "environment.json"), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(content, file)

    def _publish(self, part: str) -> None:
        target = self._store.path(self._spec.key)
        if os.path.isdir(target) and self._store.python(self._spec.key) is None:
            # Its Python is gone, or the power failed while it was written, so nobody can use it.
            aside = os.path.join(self._store.folder, ".part.{}.old{}".format(self._spec.key[:16], os.urandom(4).hex()))
            os.rename(target, aside)
            shutil.rmtree(aside, ignore_errors=True)
        try:
            os.rename(part, target)
        except OSError:
            if self._store.python(self._spec.key) is None:
                raise
            return  # another builder has made the same in the meantime


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return str(digest_of(file, 0, os.fstat(file.fileno()).st_size).hexdigest())
    except OSError:
        return ""


def _escaped(path: str) -> str:
    return re.sub(r"([\\ #])", r"\\\1", path)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
