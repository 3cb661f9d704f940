"""Makes room for an environment that is about to be built: old environments go, and the files of packages that only they had.

Rule: what is in use stays, however large it is. Nothing goes that a run which builds or receives an environment at the same time may need: of
those, and of who removes such files, each sees the other's lock.
"""

import os
import shutil
import time
from typing import Dict, Iterator, List, NamedTuple, Set, Tuple

from remote_agent.agent.environments.store.inventory import EnvironmentInventory
from remote_agent.agent.environments.store.store import PRUNING, EnvironmentStore, read_description
from remote_agent.agent.environments.store.uv_cache import uv_caches
from remote_agent.agent.spool.code.blobs import BlobStore
from remote_agent.protocol.specs.environment import EnvironmentSpec
from remote_agent.shared.disk import files_below

__all__ = ["UNUSED", "Evicted", "evict"]

#: Seconds without a use after which an environment goes, whatever the budget is.
UNUSED = 30 * 86400.0


#: The most that a file of uv's that names another one has, in bytes.
_POINTER = 1 << 16


class Evicted(NamedTuple):
    """What went.

    Attributes:
        keys: the environments.
        bytes: what they had of their own, and the files of packages.
        total: what is left of environments, in bytes; files that several have count once.
    """

    keys: List[str]
    bytes: int
    total: int

    def told(self) -> str:
        """As the user reads it."""
        number = len(self.keys)
        return "{} removed ({}), which no job used; the others take {:.1f} GiB".format(
            "an old environment was" if number == 1 else "{} old environments were".format(number),
            "{:.1f} MiB".format(self.bytes / (1 << 20)),
            self.total / (1 << 30),
        )


def evict(
    store: EnvironmentStore, inventory: EnvironmentInventory, blobs: BlobStore, spec: EnvironmentSpec, budget: int
) -> Evicted:
    """Remove environments that were not used for long, and then those whose last use is the longest ago, until the rest fits.

    Args:
        spec: what is about to be built. It stays, and so do its files.
        budget: bytes that all environments together may have.

    Raises:
        OSError: the disk.
    """
    keys = inventory.complete()
    files = {key: _files(store.path(key)) for key in keys}
    last = {key: inventory.last_use(key) for key in keys if files[key]}
    gone: List[str] = []
    freed = 0
    for key in sorted(last, key=lambda one: last[one]):
        is_old = time.time() - last[key] > UNUSED
        if key == spec.key or not (is_old or _total(files) > budget):
            continue
        usage = inventory.usage(key)
        if inventory.remove(key):
            continue  # it is in use
        gone.append(key)
        freed += usage.bytes - usage.shared
        del files[key]
    if gone:
        freed += _prune(store, inventory, blobs, spec)
    return Evicted(gone, freed, _total(files))


_Files = Dict[Tuple[int, int], int]


def _files(path: str) -> _Files:
    """(device, inode) -> bytes of the files below a folder."""
    return {(status.st_dev, status.st_ino): status.st_blocks * 512 for status in files_below(path)}


def _total(files: Dict[str, _Files]) -> int:
    every: _Files = {}
    for one in files.values():
        every.update(one)
    return sum(every.values())


def _prune(store: EnvironmentStore, inventory: EnvironmentInventory, blobs: BlobStore, spec: EnvironmentSpec) -> int:
    """Remove the files of packages that no environment has any more; returns how many bytes went.

    Nothing is removed while another run builds: the next one that evicts comes to it.
    """
    if not store.lock(PRUNING):
        return 0
    try:
        if store.other_locks(spec.key):
            return 0
        wanted = {wheel.sha256 for wheel in spec.files}
        for key in inventory.complete():
            said = read_description(store.path(key))
            if said is not None:
                wanted |= {wheel.sha256 for wheel in EnvironmentSpec.from_json(said["spec"]).files}
        freed = _prune_wheels(store, blobs, wanted)
        return freed + sum(_prune_unpacked(cache) for cache in uv_caches(os.path.join(store.cache, "uv")))
    finally:
        store.unlock(PRUNING)


def _prune_wheels(store: EnvironmentStore, blobs: BlobStore, wanted: Set[str]) -> int:
    freed = 0
    folder = os.path.join(store.cache, "wheels")
    for sha256 in os.listdir(folder) if os.path.isdir(folder) else []:
        if sha256 in wanted:
            continue
        try:
            freed += os.lstat(blobs.path(sha256)).st_blocks * 512
            os.unlink(blobs.path(sha256))
        except FileNotFoundError:
            pass  # somebody has cleaned up
        shutil.rmtree(os.path.join(folder, sha256), ignore_errors=True)
    return freed


def _prune_unpacked(cache: str) -> int:
    """Remove from one of uv's caches what it has unpacked of wheels that no environment has; returns how many bytes went.

    What was unpacked of a wheel lies in a folder of its own, whose files environments link to. A small file of uv's names that folder.

    uv believes that file. So it goes first, and where none is found, uv keeps its things in another way, and all of it stays.
    """
    unused = _unused_archives(cache)
    named: Set[str] = set()
    for pointer in _pointers(cache):
        try:
            with open(pointer, "rb") as file:
                content = file.read(_POINTER + 1)
            found = {path for path in unused if os.path.basename(path).encode() in content}
            if found:
                os.unlink(pointer)
                named |= found
        except OSError:
            continue  # it went away just now, or stays with what it names
    for path in named:
        shutil.rmtree(path, ignore_errors=True)
    return sum(unused[path] for path in named)


def _unused_archives(cache: str) -> Dict[str, int]:
    """The folders in which no file has another name, with their bytes."""
    unused = {}
    for name in os.listdir(cache) if os.path.isdir(cache) else []:
        for archive in os.listdir(os.path.join(cache, name)) if name.startswith("archive-v") else []:
            path = os.path.join(cache, name, archive)
            sizes = [os.lstat(os.path.join(top, file)) for top, _, files in os.walk(path) for file in files]
            if sizes and all(status.st_nlink == 1 for status in sizes):
                unused[path] = sum(status.st_blocks * 512 for status in sizes)
    return unused


def _pointers(cache: str) -> Iterator[str]:
    for name in os.listdir(cache) if os.path.isdir(cache) else []:
        for top, _, files in os.walk(os.path.join(cache, name)) if name.startswith("wheels-v") else []:
            paths = [os.path.join(top, file) for file in files]
            yield from (path for path in paths if os.lstat(path).st_size <= _POINTER)
