"""What runs on this host now, for `launcher top`: the user's runs with their jobs, and the use of memory and CPUs.

Rule: looking changes nothing, and disturbs no agent: the spools say it. A log that has not changed is not read again.
"""

import os
import time
from typing import Any, Callable, Dict, Iterable, List, Tuple

from remote_agent.agent.spool.log import scan
from remote_agent.agent.spool.other_runs import is_running
from remote_agent.system.host import usable_cpus
from remote_agent.system.resources import memory_here
from remote_agent.system.waiting.inherited import free_memory

__all__ = ["ClusterStates", "UseListing"]

#: Says of a run, a host and its spool on a batch system what each attempt does, as in the answer to `look`.
ClusterStates = Callable[[str, str, str], Dict[str, Dict[str, Any]]]

#: Runs in an answer, and running jobs of each that are named. The others are counted.
_MOST_RUNS = 100
_MOST_JOBS = 200
#: Where a run on a batch system has its jobs; the log beside it is of the login node alone.
_POOL = "claims"
#: record of a spool's log -> the state of its attempt from then on; empty: there is nothing more to see of it.
_STATES = {
    "accepted": "queued",
    "unclaimed": "queued",
    "started": "running",
    "final": "",
    "crashed": "",
    "unstarted": "",
    "acked": "",
}


class UseListing:
    """Lists it, as often as it is asked.

    Args:
        cluster_states: see there.
    """

    def __init__(self, cluster_states: ClusterStates) -> None:
        self._cluster_states = cluster_states
        #: Path of a log -> its size and time of change, and what it says.
        self._known: Dict[str, Tuple[Tuple[int, int], Dict[str, Any]]] = {}

    def list_use(self, spools: Iterable[Tuple[str, str, str]]) -> Dict[str, Any]:
        """Return what is in use.

        `at` is the time here, `memory` and `memory_free` are bytes, `load` is that of the last minute. Each of `runs` has `run`, `host` (the name of its
        spool), `queued`, `running` (numbers of jobs), and `jobs`: attempt and begin of those that run.

        Args:
            spools: the path of each, its run, and the name of its folder.
        """
        memory = memory_here()
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        runs = [dict(self._jobs(path, run, host), run=run, host=host) for path, run, host in spools if is_running(path)]
        return {
            "at": time.time(),
            "cpus": usable_cpus(),
            "load": load,
            "memory": memory,
            "memory_free": int(memory * min(max(free_memory(), 0.0), 1.0)),
            "runs": runs[:_MOST_RUNS],
        }

    def _jobs(self, spool: str, run: str, host: str) -> Dict[str, Any]:
        if os.path.isdir(os.path.join(spool, _POOL)):
            return _counted(self._cluster_states(run, host, spool))
        log = os.path.join(spool, "log")
        try:
            status = os.stat(log)
        except OSError:
            return {"queued": 0, "running": 0, "jobs": []}
        stamp = (status.st_size, status.st_mtime_ns)
        known = self._known.get(log)
        if known is None or known[0] != stamp:
            known = self._known[log] = (stamp, _jobs_in(log))
        return known[1]


def _jobs_in(log: str) -> Dict[str, Any]:
    queued: Dict[str, None] = {}
    running: Dict[str, Any] = {}
    try:
        for header in scan(log):
            attempt, state = str(header.get("a", "")), _STATES.get(str(header.get("r")))
            if state is None:
                continue
            queued.pop(attempt, None)
            running.pop(attempt, None)
            if state == "queued":
                queued[attempt] = None
            elif state == "running":
                running[attempt] = header.get("at")
    except OSError:
        return {"queued": 0, "running": 0, "jobs": []}
    jobs: List[Any] = [[attempt, at] for attempt, at in running.items()]
    return {"queued": len(queued), "running": len(running), "jobs": jobs[:_MOST_JOBS]}


def _counted(states: Dict[str, Dict[str, Any]]) -> Dict[str, Any]:
    queued = [one for one in states.values() if one["state"] == "queued"]
    jobs: List[Any] = [[attempt, one["started_at"]] for attempt, one in states.items() if one["state"] == "running"]
    return {"queued": len(queued), "running": len(jobs), "jobs": jobs[:_MOST_JOBS]}
