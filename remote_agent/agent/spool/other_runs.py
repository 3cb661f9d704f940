"""What the spools of other runs on this host say: whether an agent is there, and what waits in them.

Rule: nothing is changed. Any thread may ask.
"""

import os
import socket
import threading
from typing import Dict, Tuple

from remote_agent.agent.spool.log import scan
from remote_agent.system.host import runtime_folder_of, slug

__all__ = ["count_attempts", "is_running", "may_run"]

_SOCKET = "agent.sock"
#: The longest path of a socket that every system takes, in bytes.
_LONGEST = 100


def count_attempts(log: str) -> Tuple[int, int]:
    """Count (results that no controller has acknowledged, attempts without a result) in a spool's log."""
    open_attempts: Dict[str, bool] = {}
    try:
        for header in scan(log):
            attempt, record = str(header.get("a", "")), header.get("r")
            if record == "accepted":
                open_attempts[attempt] = False
            elif record == "final" and attempt in open_attempts:
                open_attempts[attempt] = True
            elif record == "acked":
                open_attempts.pop(attempt, None)
    except OSError:
        return 0, 0
    finals = sum(open_attempts.values())
    return finals, len(open_attempts) - finals


def is_running(spool: str) -> bool:
    """Whether an agent answers at the spool's socket, or jobs of the run may be in a batch system's allocations."""
    if has_pooled_jobs(spool):
        return True
    runtime = runtime_folder_of(spool)
    if runtime is None:
        return False
    try:
        folder = os.open(runtime, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _answers(runtime, folder)
    finally:
        os.close(folder)


def has_pooled_jobs(spool: str) -> bool:
    """Whether jobs that no controller has the results of lie in a pool for allocations; see `remote_agent.slurm.pool.pool`."""
    jobs = os.path.join(spool, "jobs")
    try:
        # Files that are being written have hidden names.
        return any(not job.startswith(".") for name in os.listdir(jobs) for job in os.listdir(os.path.join(jobs, name)))
    except OSError:
        return False


def _answers(runtime: str, folder: int) -> bool:
    path = os.path.join(runtime, _SOCKET)
    if len(os.fsencode(path)) <= _LONGEST:
        return _connects(path)
    if os.path.isdir("/proc/self/fd"):
        return _connects("/proc/self/fd/{}/{}".format(folder, _SOCKET))
    if threading.current_thread() is not threading.main_thread():
        return True  # the working folder is the whole process's, so that only the main thread may change it
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchdir(folder)
        return _connects(_SOCKET)
    finally:
        os.fchdir(here)
        os.close(here)


def _connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(path)
        except OSError:
            return False
    return True


def may_run(spool: str) -> bool:
    """Whether something of a run may still run, or be started again. Of a run whose agent is on another machine nobody here can tell."""
    if is_running(spool) or count_attempts(os.path.join(spool, "log"))[1]:
        return True
    try:
        names = os.listdir(spool)
    except OSError:
        return False
    own = "runtime.{}".format(slug(socket.gethostname()))
    return any(name.startswith("runtime.") and name != own for name in names)
