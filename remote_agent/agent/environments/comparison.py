"""What of an environment is on this host already, before anything of it is sent or built.

Rule: nothing is changed, so that it can be asked at any time, also while a run builds the same environment.
"""

import os
import shutil
from typing import Any, Dict

from remote_agent.agent.environments.build import room_lacking
from remote_agent.agent.environments.store import EnvironmentStore
from remote_agent.agent.spool.blobs import BlobStore
from remote_agent.protocol.environment_spec import EnvironmentSpec

__all__ = ["compare"]


def compare(cache: str, boot: str, spec: EnvironmentSpec) -> Dict[str, Any]:
    """Compare an environment with what is in the cache folder.

    Returns:
        `is_there`: it can be used as it is. `files`, `bytes`: of all that it is made from; `missing_files`,
        `missing_bytes`: of what would be sent. `free`: bytes on the disk. `lacking`: what to say where there is too
        little room, empty where there is enough.
    """
    store, blobs = EnvironmentStore(cache, boot), BlobStore(os.path.join(cache, "blobs"))
    is_there = store.python(spec.key) is not None
    sizes = {wheel.sha256: wheel.size for wheel in spec.files}
    if not os.path.exists(os.path.join(cache, "uv-bin", spec.uv)):
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
