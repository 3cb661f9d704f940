"""Where environments lie on a host, who may build one, and who uses one.

Rule: an environment is there as a whole or not at all: it is made in a folder of another name, which is renamed when it is complete. It
is used at once; when it is on the disk, too, a file says so. After a loss of power, one without that file counts as none. A lock only saves work: where it fails (a home on a network, a clock that jumps), two may build the same, and one of them wins.
The lock is a file that is made, not one that is locked, because file systems on a network may know no locks.

    <cache>/envs/<key>          an environment; its `environment.json` is what makes it one
    <cache>/envs/.part.*        one that is being made, or was given up
    <cache>/envs/.lock.<key>    who makes it
    <cache>/envs/.use/<key>/*   the agents that use it
    <cache>/wheels/<sha256>/    wheels under their names; the same files as in `blobs`
    <cache>/uv                  uv's own cache (`uv_cache.py`): files of environments are hard links into it
    <cache>/uv-bin/<sha256>     uv
"""

import json
import os
import time
from typing import Any, Callable, Dict, Optional, Tuple

from remote_agent.agent.environments.uv_cache import UvCache
from remote_agent.protocol.environment_spec import EnvironmentSpec
from remote_agent.protocol.fields import is_sha256
from remote_agent.system.host import machine_id
from remote_agent.system.private_files import make_private_folder, open_private
from remote_agent.system.processes import birth, is_alive

__all__ = ["LAYOUT", "EnvironmentStore", "read_description"]

#: Seconds without a touch after which a lock of another machine counts no more.
_FOREIGN_PATIENCE = 60.0
LAYOUT = 1
#: In an environment that is on the disk.
_ON_DISK = "on-disk"


class EnvironmentStore:
    """The environments of this user on this host.

    Args:
        cache: the cache folder of all runs.
        boot: names this life of the machine.
        machine: names the machine; None for the one that we are on.
    """

    def __init__(self, cache: str, boot: str, machine: Optional[str] = None) -> None:
        self.cache = cache
        self.machine = machine if machine is not None else machine_id()
        self.uv_cache = UvCache(os.path.join(cache, "uv"), self.machine, boot)
        self.folder = os.path.join(cache, "envs")
        self.boot = boot
        #: Of a lock that another machine has: what it said, and when that was first seen.
        self._foreign: Optional[Tuple[Any, float]] = None
        self._held: Dict[str, str] = {}

    def path(self, key: str) -> str:
        """Where an environment lies, if it is there."""
        if not is_sha256(key):
            raise ValueError("an environment is named {!r}".format(key[:80]))
        return os.path.join(self.folder, key)

    def python(self, key: str) -> Optional[str]:
        """The Python of an environment; None where it is not there, or that from which it was made has gone."""
        path = self.path(key)
        python = os.path.join(path, "bin", "python")
        # `exists` follows the link to the Python that it was made from.
        is_there = os.path.exists(os.path.join(path, "environment.json")) and os.path.exists(python)
        return python if is_there and not self.is_doubtful(key) else None

    def is_doubtful(self, key: str) -> bool:
        """It was written in an earlier life of this machine, which may have ended before it was on the disk."""
        path = self.path(key)
        if os.path.exists(os.path.join(path, _ON_DISK)) or not os.path.isdir(path):
            return False
        said = read_description(path)
        if said is None:
            return True
        # What another machine has written came over a network: it is there, whatever became of that machine.
        return said.get("machine") == self.machine and said.get("boot") != self.boot

    def sync(self, key: str) -> None:
        """Bring an environment to the disk, and note that it is there. That takes as long as everything that waits for the disk.

        Raises:
            OSError: the disk.
        """
        path = self.path(key)
        note = os.path.join(path, _ON_DISK)
        if os.path.exists(note):
            return
        _sync_all(path)
        os.close(open_private(note, os.O_WRONLY | os.O_CREAT))
        self.uv_cache.synced(key)

    def uv(self, spec: EnvironmentSpec) -> Optional[str]:
        """uv, if it is there as a whole."""
        path = os.path.join(self.cache, "uv-bin", spec.uv)
        try:
            is_whole = os.path.getsize(path) == spec.uv_size
        except OSError:
            return None
        return path if is_whole and os.access(path, os.X_OK) else None

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            SpoolError, OSError: they cannot be made.
        """
        for name in ("envs", "envs/.use", "wheels", "uv", "uv-bin"):
            make_private_folder(os.path.join(self.cache, name))

    # -- using ---------------------------------------------------------------------------------------------------

    def use(self, key: str, user: str) -> None:
        """Note that an agent uses it: it stays as long as that agent has something to run, and is as young as its last use."""
        folder = os.path.join(self.folder, ".use", key)
        try:
            make_private_folder(folder)
            fd = open_private(os.path.join(folder, user), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.close(fd)
        except OSError:
            return  # without room it looks unused for longer than it is

    # -- the lock ------------------------------------------------------------------------------------------------

    def lock(self, key: str) -> bool:
        """Be the one that makes an environment; False: another one is at it."""
        path = self._lock_path(key)
        mine = {"boot": self.boot, "pid": os.getpid(), "started": birth(os.getpid()), "nonce": os.urandom(8).hex()}
        text = json.dumps(mine)
        for _ in range(3):
            try:
                fd = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                if self._is_held(path):
                    return False
                self._take_away(path)
                continue
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)
            self._held[key] = text
            return True
        return False

    def is_being_built(self, key: str) -> bool:
        """Somebody holds the lock, as far as it says; of another machine, nobody knows whether that one is still there."""
        return self._is_held(self._lock_path(key))

    def touch(self) -> None:
        """Show other machines that the locks are held."""
        for key in self._held:
            try:
                os.utime(self._lock_path(key))
            except OSError:
                continue  # somebody has cleaned up

    def unlock(self, key: str) -> None:
        """Let others make it. A lock that somebody took away meanwhile is not ours to remove."""
        text = self._held.pop(key, None)
        if text is not None and self._read_text(self._lock_path(key)) == text:
            try:
                os.unlink(self._lock_path(key))
            except OSError:
                pass  # it is gone, or found stale by whoever comes next

    def _lock_path(self, key: str) -> str:
        return os.path.join(self.folder, ".lock." + key)

    @staticmethod
    def _read_text(path: str) -> Optional[str]:
        try:
            with open(path, encoding="utf-8") as file:
                return file.read(10_000)
        except (OSError, ValueError):
            return None

    def _is_held(self, path: str) -> bool:
        try:
            changed = os.stat(path).st_mtime_ns
        except OSError:
            return False
        text = self._read_text(path)
        try:
            holder = json.loads(text or "")
            boot, pid, started = str(holder["boot"]), int(holder["pid"]), str(holder["started"])
        except (LookupError, TypeError, ValueError):
            # Whoever made it died before it wrote, or is about to write.
            return self._is_fresh(("", changed))
        if boot == self.boot:
            return is_alive(pid, started)
        # Another machine, or this one before it was started again. Its clock is not compared with ours.
        return self._is_fresh((text, changed))

    def _is_fresh(self, seen: Any) -> bool:
        now = time.monotonic()
        if self._foreign is None or self._foreign[0] != seen:
            self._foreign = (seen, now)
        return now - self._foreign[1] < _FOREIGN_PATIENCE

    @staticmethod
    def _take_away(path: str) -> None:
        """Remove a lock whose holder is gone; by a name of its own, so that only one of several takes it."""
        aside = "{}.{}".format(path, os.urandom(6).hex())
        try:
            os.rename(path, aside)
            os.unlink(aside)
        except OSError:
            return  # somebody was faster


def read_description(folder: str) -> Optional[Dict[str, Any]]:
    """What an environment says of itself; None where it is none."""
    try:
        with open(os.path.join(folder, "environment.json"), encoding="utf-8") as file:
            content = json.load(file)
        EnvironmentSpec.from_json(content["spec"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return content if content.get("layout") == LAYOUT else None


def _sync_all(folder: str) -> None:
    """Bring all files of a file system to the disk: of the thousands of an environment, one by one would take minutes."""
    import ctypes  # takes a while, and every agent imports this module

    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync: Optional[Callable[[int], int]] = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if sync is None:
            os.sync()
        elif sync(fd):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), folder)
    finally:
        os.close(fd)
