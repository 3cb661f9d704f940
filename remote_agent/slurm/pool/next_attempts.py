"""Attempts that follow by themselves: of jobs whose allocation was preempted, or whose node failed.

Rule: whether another attempt follows depends on the job's spec, on the kind of its error and on the run's limits alone. So everybody who sees
the end of an attempt comes to the same answer, and makes the next one in the pool by a link: the first one wins, and a number is never given
twice. Nobody needs a controller for it. The controller hears of it with the result, and follows.

    requeue     kind of error -> how many attempts may have been there before the last one; the first submitter of the run says it
"""

import json
from typing import Dict, Mapping, Optional

from remote_agent.protocol.specs.job import JobSpec
from remote_agent.slurm.pool.pool import Pool
from remote_agent.slurm.shared_disk.shared_files import SharedFiles

__all__ = ["agree", "follows", "make_next", "next_id"]

_REQUEUE = "requeue"
#: What holds if the user says nothing.
_DEFAULT = {"preempted": 3, "node_failed": 1}


def agree(files: SharedFiles, wanted: Optional[Mapping[str, int]]) -> Dict[str, int]:
    """Return the limits of the run: those that its first submitter wanted. None: those that hold if the user says nothing.

    Raises:
        OSError: they are not known.
    """
    own = json.dumps(dict(_DEFAULT if wanted is None else wanted), sort_keys=True).encode("ascii")
    files.offer(own, _REQUEUE)
    data = files.read(_REQUEUE)
    limits: Dict[str, int] = json.loads((own if data is None else data).decode("ascii"))
    return limits


def follows(spec: JobSpec, kind: str, limits: Mapping[str, int]) -> bool:
    """Whether another attempt follows this one, which began and ended with an error of this kind."""
    return len(spec.earlier) < limits.get(kind, 0)


def next_id(attempt: str) -> str:
    """The id of the attempt after this one."""
    num, _, number = attempt.partition(".")
    return "{}.{}".format(num, int(number) + 1)


def make_next(pool: Pool, attempt: str, host: str, kind: str, limits: Mapping[str, int], folder: str = "") -> bool:
    """Make the next attempt of a job, if one follows. Returns whether it does.

    Args:
        kind: that of the error; empty if the attempt never began, so that another one follows whatever the limits.
        folder: where the output of this one is.

    Raises:
        OSError: it is not known whether it is made. The same call may be made again.
    """
    klass = pool.class_of(attempt)
    frame = None if klass is None else pool.job(klass, attempt)
    if klass is None or frame is None or frame.header["t"] != "job":
        return False  # the controller has its result already
    spec = JobSpec.from_json(frame.header["spec"])
    if kind and not follows(spec, kind, limits):
        return False
    earlier = list(spec.earlier)
    if kind:
        earlier.append({"attempt": spec.attempt, "host": host, "kind": kind, "folder": folder})
    following = spec._replace(attempt=spec.attempt + 1, earlier=earlier)
    header = frame.header
    pool.put(
        klass,
        following.attempt_id,
        {"t": "job", "spec": following.to_json(), "payload_blob": header["payload_blob"], "last": False},
        frame.payload,
    )
    return True
