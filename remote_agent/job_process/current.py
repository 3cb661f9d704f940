"""Tells the application and its job hooks which job this process is and, above all, where its output files go.

Rule: it is set once per job, before any code of the application runs. Outside a job it is None.
"""

from dataclasses import dataclass
from typing import Optional, Tuple

__all__ = ["CurrentJob", "EarlierAttempt", "current_job", "set_current_job"]


@dataclass(frozen=True)
class EarlierAttempt:
    """An attempt at the same job that began and did not complete it.

    Attributes:
        attempt: its number.
        host: where it was; empty if that is not known.
        kind: why it ended, as in `JobError.kind`: `preempted`, `node_failed`, `exception`...
        folder: its output folder, if that is still on this host; else None. On a host that shares the controller's files it is the job's own.
    """

    __module__ = "remote_agent"  # for good: pickles name it

    attempt: int
    host: str
    kind: str
    folder: Optional[str]


@dataclass(frozen=True)
class CurrentJob:
    """The job of this process.

    Attributes:
        num: its number in the run.
        job_id: `RUN#NUM`, as for `launcher show`.
        attempt: the number of the attempt; the first is 1.
        host: the name of the host in the run.
        output_dir: an absolute path on this machine. Files in it are sent back.
        earlier: the attempts before this one that began, in their order.
    """

    __module__ = "remote_agent"  # for good: pickles name it

    num: int
    job_id: str
    attempt: int
    host: str
    output_dir: str
    earlier: Tuple[EarlierAttempt, ...] = ()


_current: Optional[CurrentJob] = None


def current_job() -> Optional[CurrentJob]:
    """Return the job of this process; None outside a job, where the same code may run, too."""
    return _current


def set_current_job(job: CurrentJob) -> None:
    """Set the job of this process."""
    global _current  # noqa: PLW0603 - a process is one job
    _current = job
