"""The store of environments on a host: where they are, who may build one, and who uses one.

Rule: an environment is complete or missing. It is made in a folder with another name, which is renamed when it is complete. It can be used
at once. When it is on the disk, a file says so; after a power cut, an environment without that file does not count. A lock only saves
work: if it fails (a home on a network, a clock that jumps), two runs may build the same environment, and one of them wins. The lock is a
file that exists, and not a locked file, because network file systems may not support locks.

    <cache>/envs/<key>          an environment; its `environment.json` is what makes it one. If that has `nodes`, nodes build it in a folder of that
                                name on their own disks, and only its files are here
    <cache>/envs/.part.*        one that is being built, or was given up
    <cache>/envs/.lock.<key>    who builds it
    <cache>/envs/.lock.pruning  who removes files that environments share, when no environment has them any more
    <cache>/envs/.use/<key>/*   the agents that use it
    <cache>/wheels/<sha256>/    wheels under their names; the same files as in `blobs`
    <cache>/uv                  uv's own cache (`uv_cache.py`): files of environments are hard links into it
    <cache>/uv-bin/<sha256>     uv
"""

import json
import os
import time
from typing import Any, Callable, Dict, Optional, Tuple

from remote_agent.agent.environments.store.uv_cache import UvCache
from remote_agent.protocol.fields import is_sha256
from remote_agent.protocol.specs.environment import EnvironmentSpec
from remote_agent.system.host import machine_id
from remote_agent.system.private_files import make_private_folder, open_private
from remote_agent.system.processes import birth, is_alive

__all__ = ["LAYOUT", "PRUNING", "EnvironmentStore", "read_description"]

#: A lock of another machine does not count after this many seconds without a touch.
_FOREIGN_PATIENCE = 60.0
LAYOUT = 1
#: In the place of a key: the lock of the process that removes files that environments share.
PRUNING = "pruning"
#: The file in an environment that is on the disk.
_ON_DISK = "on-disk"


class EnvironmentStore:
    """The environments of this user on this host.

    Args:
        cache: the cache folder of all runs.
        boot: the id of this boot of the machine.
        machine: the id of the machine; None for this machine.
    """

    def __init__(self, cache: str, boot: str, machine: Optional[str] = None) -> None:
        self.cache = cache
        self.machine = machine if machine is not None else machine_id()
        self.uv_cache = UvCache(os.path.join(cache, "uv"), self.machine, boot)
        self.folder = os.path.join(cache, "envs")
        self.boot = boot
        #: For a lock of another machine: its content, and when that was first seen.
        self._foreign: Optional[Tuple[Any, float]] = None
        self._held: Dict[str, str] = {}

    def path(self, key: str) -> str:
        """Return the path of an environment, if it exists."""
        if not is_sha256(key):
            raise ValueError("an environment is named {!r}".format(key[:80]))
        return os.path.join(self.folder, key)

    def python(self, key: str) -> Optional[str]:
        """Return the Python of an environment; None if it does not exist, or the Python with which it was made is gone."""
        path = self.path(key)
        python = os.path.join(path, "bin", "python")
        # `exists` follows the link to the Python with which it was made.
        is_there = os.path.exists(os.path.join(path, "environment.json")) and os.path.exists(python)
        return python if is_there and not self.is_doubtful(key) else None

    def is_described(self, key: str) -> bool:
        """Whether it says what it is made from, so that its files are kept. Where nodes build it on their own disks, nothing else is here."""
        return read_description(self.path(key)) is not None

    def is_doubtful(self, key: str) -> bool:
        """Whether it was written before this boot of the machine, which may have gone down before it was on the disk."""
        path = self.path(key)
        if os.path.exists(os.path.join(path, _ON_DISK)) or not os.path.isdir(path):
            return False
        said = read_description(path)
        if said is None:
            return True
        # Files from another machine came over a network, so they are there, whatever happened to that machine.
        return said.get("machine") == self.machine and said.get("boot") != self.boot

    def sync(self, key: str) -> None:
        """Bring an environment to the disk, and record that. It takes as long as all writes that wait for the disk.

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
        """Return uv, if it exists completely."""
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
        """Record that an agent uses it. It stays as long as that agent has something to run. Its age counts from its last use."""
        folder = os.path.join(self.folder, ".use", key)
        try:
            make_private_folder(folder)
            fd = open_private(os.path.join(folder, user), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.close(fd)
        except OSError:
            return  # on a full disk it looks unused for longer than it is

    # -- the lock ------------------------------------------------------------------------------------------------

    def lock(self, key: str) -> bool:
        """Take the lock to build an environment. Returns False if another run builds it."""
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
        """Whether a lock says that somebody builds it. If it is from another machine, nobody knows whether its holder still lives."""
        return self._is_held(self._lock_path(key))

    def other_locks(self, key: str) -> bool:
        """Whether anybody else makes an environment, or removes shared files, now; `key`: what this agent makes."""
        names = [name[len(".lock.") :] for name in os.listdir(self.folder) if name.startswith(".lock.")]
        return any(self.is_being_built(name) for name in names if name != key and name not in self._held)

    def touch(self) -> None:
        """Touch our locks, to show other machines that they are held."""
        for key in self._held:
            try:
                os.utime(self._lock_path(key))
            except OSError:
                continue  # a clean-up has removed it

    def unlock(self, key: str) -> None:
        """Release the lock. If somebody else has taken it away in the meantime, leave it."""
        text = self._held.pop(key, None)
        if text is not None and self._read_text(self._lock_path(key)) == text:
            try:
                os.unlink(self._lock_path(key))
            except OSError:
                pass  # it is gone, or the next run will find it stale

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
            # Its maker died before it wrote to it, or is about to write.
            return self._is_fresh(("", changed))
        if boot == self.boot:
            return is_alive(pid, started)
        # It is from another machine, or from an earlier boot of this one. Its clock is not compared with ours.
        return self._is_fresh((text, changed))

    def _is_fresh(self, seen: Any) -> bool:
        now = time.monotonic()
        if self._foreign is None or self._foreign[0] != seen:
            self._foreign = (seen, now)
        return now - self._foreign[1] < _FOREIGN_PATIENCE

    @staticmethod
    def _take_away(path: str) -> None:
        """Remove a lock whose holder is gone. It is first renamed to a unique name, so that only one of several runs removes it."""
        aside = "{}.{}".format(path, os.urandom(6).hex())
        try:
            os.rename(path, aside)
            os.unlink(aside)
        except OSError:
            return  # another run was faster


def read_description(folder: str) -> Optional[Dict[str, Any]]:
    """Return the description in an environment; None if it has no valid one."""
    try:
        with open(os.path.join(folder, "environment.json"), encoding="utf-8") as file:
            content = json.load(file)
        EnvironmentSpec.from_json(content["spec"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return content if content.get("layout") == LAYOUT else None


def _sync_all(folder: str) -> None:
    """Sync the whole file system. Syncing the thousands of files of an environment one by one would take minutes."""
    import ctypes  # it is slow, and every agent imports this module

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
