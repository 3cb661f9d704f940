"""How often the submitter looks at the shared disk, and for how long it waits for more jobs before it asks Slurm.

Rule: what follows soon after something new is looked for at once, and a quiet disk is left alone. So a look comes late by a tenth of the time
that the wait took, and never by more than the longest pause, but where there are many logs, or a slow disk. Files of running jobs are read in the rest of
the same part of the time.
"""

from typing import Optional

from remote_agent.agent.output_sync import ReadLimit

__all__ = ["MOST_GATHERED", "Gathering", "LookPace"]

#: Seconds between two looks: at least, and at most while an allocation runs, and while none does.
_LEAST, _MOST, _MOST_IDLE = 0.05, 0.5, 1.0
#: The pause is this part of the time since the last news.
_PART = 0.1
#: The most logs that are opened in a second.
_LOGS = 200.0
#: It is at least so many times what the last look took.
_LOOK_FACTOR = 10.0
#: Seconds after the last job that came: when only one has come, and when several have; and the most since the first one.
_ALONE, _TOGETHER, MOST_GATHERED = 0.05, 0.2, 1.0


class LookPace(ReadLimit):
    """When to look, and when files of running jobs may be read, which waits for both. Times are monotonic.

    Attributes:
        free_at: when the last look, or the last batch of files, has taken no more than its part of the time.
    """

    def __init__(self) -> None:
        self.free_at = 0.0
        self._at = 0.0
        self._news_at = 0.0

    @property
    def at(self) -> float:
        """When the next look is due."""
        return self._at

    def news(self, now: float) -> None:
        """Record that something new was seen, or asked for, so that more may follow at once."""
        self._news_at = now
        self._at = min(self._at, now + _LEAST)

    def looked(self, begun: float, ended: float, logs: int) -> None:
        """Record a look, at so many logs of allocations that run."""
        pause = max(_LEAST, min(_PART * (ended - self._news_at), _MOST if logs else _MOST_IDLE), logs / _LOGS)
        self._at = ended + max(pause, _LOOK_FACTOR * (ended - begun))
        self.read(begun, ended)

    def read(self, begun: float, ended: float) -> None:
        """Record a look, or a batch of files. No look waits for files."""
        self.free_at = max(self.free_at, ended + _LOOK_FACTOR * (ended - begun))


class Gathering:
    """Jobs that come one after the other are asked for together."""

    def __init__(self) -> None:
        self._first_at: Optional[float] = None
        self._count = 0

    def came(self, now: float) -> float:
        """Record a job. Returns when to ask."""
        if self._first_at is None:
            self._first_at = now
        self._count += 1
        return min(now + (_ALONE if self._count == 1 else _TOGETHER), self._first_at + MOST_GATHERED)

    def asked(self) -> None:
        """Record that those that have come are being asked for."""
        self._first_at, self._count = None, 0
