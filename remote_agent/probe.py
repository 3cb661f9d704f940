"""A job that reports what jobs find on this host, for `launcher doctor`.

Rule: it runs like a job of an application, and changes nothing.
"""

import os
import shutil
import sys
import time
from typing import Any, Dict

from remote_agent.job_process.current import current_job

__all__ = ["probe"]

_PACKAGES = ("cloudpickle", "omegaconf", "hydra")


def probe(config: Any) -> Dict[str, Any]:
    """Return plain data: `python`, `executable`, `time` (seconds since the epoch), `free` (bytes), `folder`,
    `packages`, `cold` (why nothing waits here for the next run; empty if something may).

    `packages` has the `version` of each name, and `is_ours` if it comes from the bundle because the environment has
    none.
    """
    from remote_agent.agent.zygotes.warm import why_none_now

    job = current_job()
    folder = job.output_dir if job is not None else os.getcwd()
    return {
        "python": "{}.{}.{}".format(*sys.version_info[:3]),
        "executable": sys.executable,
        "time": time.time(),
        "folder": folder,
        "free": shutil.disk_usage(folder).free,
        "cold": why_none_now(dict(os.environ)),
        "packages": {name: _package(name) for name in _PACKAGES},
    }


def _package(name: str) -> Dict[str, Any]:
    import importlib

    module = importlib.import_module(name)
    version = getattr(module, "__version__", "")
    return {"version": str(version), "is_ours": os.sep + "_vendor" + os.sep in str(module.__file__)}
