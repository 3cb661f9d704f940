"""What to do when something fails: retries, lost hosts, time limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field

from launcher.util.frozen import frozen

__all__ = ["Policies"]


@frozen
class Policies:
    """What to do when something fails.

    Attributes:
        retries: kind of error -> number of further attempts; `*` for every other kind.
        on_host_loss: `wait` (for ever), `retry` (elsewhere, after host_loss_timeout) or `fail` (after it).
        host_loss_timeout: seconds since a host's link last worked. Also how long the run waits for a host that is there but
            cannot take jobs.
        max_failures: after this many failed jobs, no further job starts, and running jobs are cancelled; None: no limit.
        callbacks: name of each callback that hosts got -> whether it may stop the run. Reports of other callbacks are ignored.
        slots: host -> its number of slots, if the user gave it. It is the most that the host gets.
        job_limit: a job must have an outcome this many seconds after its start, whatever its host does; None: no limit.
        end_limit: the same for a job that was asked to end, counted from that time.
        kill_limit: the same for a job that was killed.
    """

    retries: dict[str, int] = field(default_factory=dict)
    on_host_loss: str = "wait"
    host_loss_timeout: float = 600.0
    max_failures: int | None = None
    callbacks: Callable[[], Mapping[str, bool]] = dict
    slots: Mapping[str, int] = field(default_factory=dict)
    job_limit: float | None = None
    end_limit: float | None = None
    kill_limit: float | None = None

    def may_retry(self, kind: str, attempt: int) -> bool:
        """Whether another attempt follows one that failed with an error of this kind."""
        return attempt <= self.retries.get(kind, self.retries.get("*", 0))
