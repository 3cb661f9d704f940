"""Finds out which part of an environment is on this host, before anything is sent or built.

Rule: nothing is changed, so this can be asked at any time, even while a run builds the same environment.
"""

import os
import shutil
from typing import Any, Dict

from remote_agent.agent.environments.build import room_lacking
from remote_agent.agent.environments.store.store import EnvironmentStore
from remote_agent.agent.spool.code.blobs import BlobStore
from remote_agent.protocol.specs.environment import EnvironmentSpec

__all__ = ["compare"]


def compare(cache: str, boot: str, spec: EnvironmentSpec) -> Dict[str, Any]:
    """Compare an environment with what is in the cache folder.

    Returns:
        `is_there`: whether it can be used. `files`, `bytes`: everything from which it is made; `missing_files`,
        `missing_bytes`: what would be sent. `free`: free bytes on the disk. `lacking`: the error if there is too
        little room; empty if there is enough.
    """
    store, blobs = EnvironmentStore(cache, boot), BlobStore(os.path.join(cache, "blobs"))
    is_there = store.python(spec.key) is not None
    sizes = {wheel.sha256: wheel.size for wheel in spec.files}
    if store.uv(spec) is None:
        sizes[spec.uv] = spec.uv_size
    missing = [size for sha256, size in sizes.items() if not is_there and not blobs.has(sha256)]
    return {
        "is_there": is_there,
        "files": len(sizes),
        "bytes": sum(sizes.values()),
        "missing_files": len(missing),
        "missing_bytes": sum(missing),
        "free": shutil.disk_usage(cache).free,
        "lacking": "" if is_there else room_lacking(store, spec, sum(missing)),
    }
