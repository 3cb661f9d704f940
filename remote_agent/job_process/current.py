"""Which job this process is, for the application and its job hooks: above all, where its output files go.

Rule: it is set once per process, before any code of the application runs. Outside of a job there is none.
"""

from dataclasses import dataclass
from typing import Optional

__all__ = ["CurrentJob", "current_job", "set_current_job"]


@dataclass(frozen=True)
class CurrentJob:
    """The job of this process.

    Attributes:
        num: its number in the run.
        job_id: `RUN#NUM`, as `launcher show` takes it.
        attempt: 1 for the first.
        host: the host's name in the run.
        output_dir: absolute, on this machine; what is written below it comes back.
    """

    __module__ = "remote_agent"  # for good: pickles name it

    num: int
    job_id: str
    attempt: int
    host: str
    output_dir: str


_current: Optional[CurrentJob] = None


def current_job() -> Optional[CurrentJob]:
    """The job that this process is; None outside of a job, where the same code may run, too."""
    return _current


def set_current_job(job: CurrentJob) -> None:
    """Set the job of this process."""
    global _current  # noqa: PLW0603 - a process is one job
    _current = job
