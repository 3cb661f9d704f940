"""What each GPU of this host is used for: by which run and job, and by which processes.

Rule: looking changes nothing, and takes no GPU. What another user says of a lease counts as far as the kernel confirms it.
"""

import os
from typing import Any, Dict, List, Optional, Tuple

from remote_agent.agent.resources.gpus import choose
from remote_agent.system import gpu_lease, gpus
from remote_agent.system.gpu_lease import Holder, process_name, user_of, user_of_process
from remote_agent.system.gpus import Gpu, GpuProcess, Survey

__all__ = ["list_gpus"]

#: Processes of one GPU in an answer.
_MOST_PROCESSES = 100


def list_gpus(wish: Any) -> Tuple[Survey, str, List[Dict[str, Any]]]:
    """Return what was found, why a run with this wish could not use the host, and an item for each GPU.

    An item has `number`, `uuid` (empty if it cannot be read), `name`, `parent`, `total` and `used` (bytes), `is_chosen` (a job of a run with this
    wish may get it), `holder` (None if nobody has it: `pid`, `name`, `user`, `run`, `attempt`, `since`) and `processes` (None if unknown: each with
    `pid`, `name`, `user`, `used`, and `is_of_job` if it belongs to the job that has the GPU).
    """
    found = gpus.survey()
    chosen, why = choose(wish, found)
    holders = gpu_lease.holders()
    items = [_item(place, gpu, holders.get(gpu.uuid), gpu.uuid in chosen) for place, gpu in enumerate(found.gpus)]
    return found, why, items


def _item(place: int, gpu: Gpu, holder: Optional[Holder], is_chosen: bool) -> Dict[str, Any]:
    described = None
    if holder is not None:
        described = {
            "pid": holder.pid,
            "name": process_name(holder.pid) if holder.pid is not None else "",
            "user": user_of(holder.uid),
            "run": holder.run,
            "attempt": holder.attempt,
            "since": holder.since,
        }
    processes = None
    if gpu.processes is not None:
        leader = holder.pid if holder is not None and holder.attempt else None
        processes = [_process(one, leader) for one in gpu.processes[:_MOST_PROCESSES]]
    return {
        "number": place,
        "uuid": gpu.uuid,
        "name": gpu.name,
        "parent": gpu.parent,
        "total": gpu.total,
        "used": gpu.used,
        "is_chosen": is_chosen,
        "holder": described,
        "processes": processes,
    }


def _process(one: GpuProcess, leader: Optional[int]) -> Dict[str, Any]:
    """`leader`: the process of the job that has the GPU, which leads a session."""
    return {
        "pid": one.pid,
        "name": process_name(one.pid),
        "user": user_of_process(one.pid),
        "used": one.used,
        "is_of_job": leader is not None and _session(one.pid) == leader,
    }


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0  # it is gone, or in another container
