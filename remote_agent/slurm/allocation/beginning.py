"""How an allocation begins: the jobs' Python is started before the agent of the allocation is imported, so that both start at the same time.

Rule: it is a spare as on other hosts (`remote_agent.agent.zygotes.spare`), so a job cannot tell whether there was one. It writes into the folder of this
incarnation alone.
"""

import json
import os
import sys
from typing import Dict, Optional

from remote_agent.agent.zygotes.spare import Spare, start_spare
from remote_agent.slurm.batch.batch_slurm import Slurm
from remote_agent.system.host import folders
from remote_agent.system.private_files import make_private_folder

__all__ = ["begin_allocation"]

#: As in `incarnations`, which is imported later.
_FOLDER = "incarnations"


def begin_allocation(run: str, host: str, workdir: Optional[str], bundle: str, options: Dict[str, str]) -> int:
    """Be the agent of the allocation in which this process runs, until it has nothing to do. Returns the exit code."""
    batch = Slurm(sys.stderr.fileno())
    job, restarts = (os.environ.get(name) for name in batch.variables())
    shared = folders(run, host, workdir)
    incarnation = _unused(shared.spool, str(job), int(restarts or 0))
    spare: Optional[Spare] = None
    own = os.path.join(shared.spool, _FOLDER, incarnation)
    for folder in (os.path.dirname(own), own):
        make_private_folder(folder)
    if "spare" in options:
        cache = options.get("environments", shared.cache)
        spare = start_spare(options["spare"], bundle, own, cache, _threads(options))
    from remote_agent.slurm.allocation.allocation import serve_allocation

    return serve_allocation(run, host, shared, bundle, incarnation, batch, spare, options)


def _unused(spool: str, job: str, restart: int) -> str:
    """The name of this start. A system that has lost its state may give an id twice; then it is a later start of the same job."""
    while os.path.exists(os.path.join(spool, _FOLDER, "{}.{}".format(job, restart), "log")):
        restart += 1
    return "{}.{}".format(job, restart)


def _threads(options: Dict[str, str]) -> int:
    """How many threads a job's numerical libraries start, if its class says it; as `remote_agent.agent.jobs.queue` counts them."""
    part = json.loads(options["part"]) if "part" in options else None
    return int(part["cpus"]) if part else 0
