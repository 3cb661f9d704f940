"""`slurm:` of a host: what allocations on a cluster have, and how jobs are put into them.

Rule: it is checked before anything is sent, and the message names the place and says what is allowed. What is passed on to sbatch as it is can
only be refused there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from launcher.errors import InventoryError
from launcher.util.text.near import names_like
from launcher.util.text.quoting import shown

__all__ = ["slurm_options"]

#: `jobs`, if an allocation takes one job after the other.
_MANY = "many"
_MOST = 10_000
#: Kinds of an end after which a job can go on by itself.
_REQUEUE_KINDS = ("preempted", "node_failed", "time_limit", "out_of_memory", "lost")
_MOST_REQUEUE = 1000
_MOST_IDLE = 7 * 86400
#: The longest path of a folder, in characters.
_LONGEST = 200
_PATTERNS = {
    "cpus": (re.compile(r"[1-9][0-9]{0,8}"), "a number of CPUs"),
    "gpus": (re.compile(r"([A-Za-z0-9_.-]+:)?[0-9]{1,6}"), "a number of GPUs, such as 1 or a100:1"),
    "mem": (re.compile(r"[0-9]{1,15}[KMGT]?", re.IGNORECASE), "an amount of memory as sbatch reads it, such as 32G"),
    "nodes": (re.compile(r"[1-9][0-9]{0,4}"), "a number of nodes"),
    "tasks": (re.compile(r"[1-9][0-9]{0,6}"), "a number of tasks"),
    "time": (
        re.compile(
            r"[0-9]{1,9}(:[0-9]{1,2}){0,2}|[0-9]{1,6}-[0-9]{1,2}(:[0-9]{1,2}){0,2}|unlimited|infinite", re.IGNORECASE
        ),
        "a time as sbatch reads it: minutes (90), 4:00:00, or days and hours (1-12)",
    ),
}
#: Options of sbatch that are the launcher's own: by them it finds its allocations again, or reads what sbatch says. With the short form, if there is one.
_OWN = {
    "--array": "-a",
    "--dependency": "-d",
    "--help": "-h",
    "--job-name": "-J",
    "--output": "-o",
    "--parsable": "",
    "--test-only": "",
    "--usage": "",
    "--version": "-V",
    "--wait": "-W",
    "--wrap": "",
}


def slurm_options(where: str, value: Any) -> dict[str, Any]:
    """Check `slurm:` of a host. Returns it.

    Raises:
        InventoryError: naming the field.
    """
    if not isinstance(value, dict):
        raise InventoryError(
            f"{where}: {shown(value)} is not a mapping of what an allocation has; write for example {{partition: gpu, time: 4:00:00}}"
        )
    for key, content in value.items():
        check = _CHECKS.get(key) if isinstance(key, str) else None
        if check is None:
            near = names_like(shown(key).strip("'"), _CHECKS)
            hint = f"did you mean {shown(near[0])}?" if near else f"known are {', '.join(_CHECKS)}"
            raise InventoryError(f"{where}: unknown field {shown(key)}; {hint}")
        check(f"{where}: {key}", content)
    for key, (pattern, what) in _PATTERNS.items():
        if key in value and not pattern.fullmatch(str(value[key])):
            raise InventoryError(f"{where}: {key}: {shown(value[key])} is not {what}")
    if value.get("slots", 1) > 1 and value.get("jobs", _MANY) != _MANY:
        raise InventoryError(
            f"{where}: jobs: an allocation with slots={value['slots']} takes many jobs; leave jobs out, or slots for an allocation for each job"
        )
    _check_several(where, value)
    return value


def _check_several(where: str, value: dict[str, Any]) -> None:
    """Refuse what does not go with jobs of several nodes or tasks. Each has its allocation for itself: Slurm ends what it has started on other
    nodes with the allocation, and not before.
    """
    nodes, tasks = int(value.get("nodes", 1)), int(value.get("tasks", 0))
    if "tasks" in value and tasks < nodes:
        raise InventoryError(
            f"{where}: tasks: {tasks} are fewer than {nodes} nodes, and each node has one at least; write {nodes} or more, or fewer nodes"
        )
    if max(nodes, tasks) > 1 and (value.get("jobs") == _MANY or value.get("slots", 1) > 1):
        name = "slots" if value.get("slots", 1) > 1 else "jobs"
        several = f"nodes={nodes}" if nodes > 1 else f"tasks={tasks}"
        raise InventoryError(
            f"{where}: {name}: a job with {several} has an allocation for itself; leave {name} out, or say "
            f"`{several.partition('=')[0]}` in the `resources` of the jobs that need several"
        )


def _plain(where: str, value: Any) -> None:
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise InventoryError(f"{where}: {shown(value)} is neither text nor a number; put it between quotes")


def _count(where: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
        raise InventoryError(f"{where}: {shown(value)} is not a number from 1 to {_MOST}")


def _jobs(where: str, value: Any) -> None:
    if isinstance(value, bool) or value not in (1, _MANY):
        raise InventoryError(f"{where}: {shown(value)} is neither 1 (each job has an allocation) nor {_MANY}")


def _idle(where: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST_IDLE:
        raise InventoryError(f"{where}: {shown(value)} is not a number of seconds from 0 to {_MOST_IDLE}")


def _options(where: str, value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InventoryError(
            f'{where}: {shown(value)} is not a list of options of sbatch; write for example ["--qos=high"]'
        )
    if value and not value[0].startswith("-"):
        raise InventoryError(
            f"{where}: {shown(value[0])} is no option of sbatch; one begins with -, such as --qos=high"
        )
    for one in value:
        _option(where, one)


def _option(where: str, one: str) -> None:
    name = re.split("[= ]", one, maxsplit=1)[0]
    for own, short in _OWN.items():
        # sbatch takes the beginning of a name, too.
        is_long = len(name) > len("--") and own.startswith(name)
        is_short = bool(short) and not one.startswith("--") and one.startswith(short)
        if is_long or is_short:
            raise InventoryError(
                f"{where}: {shown(one)}: the launcher sets {own} itself, or needs it unset; leave it out"
            )


def _environments(where: str, value: Any) -> None:
    is_plain = isinstance(value, str) and len(value) <= _LONGEST and value.isprintable()
    path = PurePosixPath(value) if is_plain else PurePosixPath()
    if not path.is_absolute() or ".." in path.parts or str(path) != value.rstrip("/"):
        raise InventoryError(
            f"{where}: {shown(value)} is not the absolute path of a folder on a disk that each node has for itself, such as /scratch/me"
        )


def _epilogue_job(where: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InventoryError(f"{where}: {shown(value)} is neither true nor false")


def _requeue(where: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise InventoryError(f"{where}: {shown(value)} is not a mapping, such as {{preempted: 3}}")
    for kind, most in value.items():
        if kind not in _REQUEUE_KINDS:
            raise InventoryError(f"{where}: unknown kind {shown(kind)}; known are {', '.join(_REQUEUE_KINDS)}")
        if isinstance(most, bool) or not isinstance(most, int) or not 0 <= most <= _MOST_REQUEUE:
            raise InventoryError(f"{where}: {kind}: {shown(most)} is not a number from 0 to {_MOST_REQUEUE}")


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "partition": _plain,
    "account": _plain,
    "time": _plain,
    "cpus": _plain,
    "gpus": _plain,
    "mem": _plain,
    "nodes": _plain,
    "tasks": _plain,
    "slots": _count,
    "jobs": _jobs,
    "idle": _idle,
    "allocations": _count,
    "options": _options,
    "requeue": _requeue,
    "epilogue_job": _epilogue_job,
    "environments": _environments,
}
