"""What a job has used, as its own process can tell: CPU time, and the peak of memory.

Rule: what belongs to an earlier job of the same process is never counted. Where it cannot be kept apart, the answer is None. It takes some
microseconds, once before and once after the job.
"""

import os
import resource
import sys
from typing import Optional

from remote_agent.job import ResourcesUsed

__all__ = ["UsageWatch", "lifetime"]

#: Written to it, "5" makes the kernel forget the peak of this process's memory. Only Linux has it.
_RESET = "/proc/self/clear_refs"
#: On macOS `ru_maxrss` counts bytes, elsewhere units of 1,024 bytes.
_UNIT = 1 if sys.platform == "darwin" else 1024


def _bytes(told: resource.struct_rusage) -> int:
    return int(told.ru_maxrss) * _UNIT


def _seconds(told: resource.struct_rusage) -> float:
    return told.ru_utime + told.ru_stime


def lifetime(told: resource.struct_rusage) -> ResourcesUsed:
    """What a process has used in all its life, with the children that it had waited for: from what the system says when it has ended."""
    return ResourcesUsed(cpu_seconds=_seconds(told), peak_memory=_bytes(told))


class UsageWatch:
    """One job in this process, from when this is made on."""

    #: Whether this process has had a job. A fork begins with what its zygote says, which has none.
    _has_had_one = False

    def __init__(self) -> None:
        self._own: Optional[resource.struct_rusage] = None
        self._children: Optional[resource.struct_rusage] = None
        self._is_reset = False
        #: Seconds of CPU time of this process, and of the children that it had waited for, when it was last asked.
        self.spent = 0.0
        if UsageWatch._has_had_one:
            self._is_reset = _forget_peak()
            self._own = resource.getrusage(resource.RUSAGE_SELF)
            self._children = resource.getrusage(resource.RUSAGE_CHILDREN)
        UsageWatch._has_had_one = True

    def used(self, seconds: float) -> ResourcesUsed:
        """Return what the job has used so far. `seconds`: how long it took."""
        own = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = self.spent = _seconds(own) + _seconds(children)
        if self._own is not None and self._children is not None:
            cpu -= _seconds(self._own) + _seconds(self._children)
        return ResourcesUsed(
            wall_seconds=max(seconds, 0.0), cpu_seconds=max(cpu, 0.0), peak_memory=self._peak(own, children)
        )

    def _peak(self, own: resource.struct_rusage, children: resource.struct_rusage) -> Optional[int]:
        if self._own is None or self._children is None:
            return max(_bytes(own), _bytes(children))
        if not self._is_reset and own.ru_maxrss <= self._own.ru_maxrss:
            return None
        # A process that has ended had faults, so their number shows whether this job has waited for one.
        if children.ru_minflt == self._children.ru_minflt:
            return _bytes(own)
        if children.ru_maxrss > max(self._children.ru_maxrss, own.ru_maxrss):
            return _bytes(children)
        # The peak is that of a child of an earlier job, and hides those of this job's.
        return _bytes(own) if children.ru_maxrss <= own.ru_maxrss else None


def _forget_peak() -> bool:
    """Make the peak of this process's memory begin anew. Returns False where that is not possible."""
    try:
        fd = os.open(_RESET, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, b"5")
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
