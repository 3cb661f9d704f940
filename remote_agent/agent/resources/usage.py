"""What jobs use: put together from what their processes say, what the system says of a process that has ended, and looks at the host.

Rule: nothing waits for a look. It is seldom, takes place in a thread of its own, and rarer still where it takes long. A job that is over before the
first look costs nothing here.
"""

import os
import threading
import time
from typing import Callable, Dict, List, NamedTuple, Optional

from remote_agent.agent.spool.attempt import Attempt, greatest
from remote_agent.agent.spool.attempts import Attempts
from remote_agent.job import ResourcesUsed
from remote_agent.protocol.envelope import Envelope
from remote_agent.system.gpus import GpuUse, gpu_use
from remote_agent.system.process_use import ProcessUse, use_of

__all__ = ["UsageWatch", "since", "with_usage"]

#: Seconds from the begin of a job to the first look, and from look to look.
FIRST, EVERY = 2.0, 5.0
#: Looks take at most this share of the time of one CPU.
_SHARE = 1 / 300


class _Wanted(NamedTuple):
    attempt: Attempt
    pid: int
    started: str
    gpus: List[str]
    spent: float


class _Look(NamedTuple):
    wanted: _Wanted
    used: Optional[ProcessUse]
    gpus: List[GpuUse]


class UsageWatch:
    """Looks at running attempts from time to time."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        self._next = 0.0
        self._thread: Optional[threading.Thread] = None
        self._found: List[_Look] = []
        self._took = 0.0

    def tick(self, now: float) -> None:
        """Take in what a look has found, and begin the next one when it is due. Called in each turn of the agent."""
        if now < self._next:
            return
        if self._thread is not None:
            if self._thread.is_alive():
                # A driver of GPUs may hang.
                self._next = now + 1.0
                return
            self._take()
            self._next = now + max(EVERY, self._took / _SHARE)
            return
        wanted = [one for one in map(_wanted, self._due(now)) if one is not None]
        self._next = now + 1.0
        if wanted:
            self._thread = threading.Thread(target=self._look, args=(wanted,), name="usage", daemon=True)
            self._thread.start()

    def _due(self, now: float) -> List[Attempt]:
        return [
            one
            for one in self._attempts.active()
            if one.outcome is None and one.crash is None and one.final is None and now - (one.begun_at or 0.0) >= FIRST
        ]

    def _look(self, wanted: List[_Wanted]) -> None:
        before = time.monotonic()
        used = use_of({one.pid: one.started for one in wanted})
        uuids = sorted({uuid for one in wanted for uuid in one.gpus})
        gpus: Dict[str, GpuUse] = gpu_use(uuids) if uuids else {}
        self._found = [
            _Look(one, used.get(one.pid), [gpus[uuid] for uuid in one.gpus if uuid in gpus]) for one in wanted
        ]
        self._took = time.monotonic() - before

    def _take(self) -> None:
        found, self._found, self._thread = self._found, [], None
        for look in found:
            attempt, pid = look.wanted.attempt, look.wanted.pid
            # A worker may have another job by now.
            if attempt.final is None and attempt.pid == pid:
                gpus = look.gpus if len(look.gpus) == len(look.wanted.gpus) else []
                attempt.seen.add(look.used, gpus, look.wanted.spent)


def _wanted(attempt: Attempt) -> Optional[_Wanted]:
    if attempt.pid is None or (attempt.is_reused and attempt.worker is None):
        return None
    spent = attempt.worker.spent if attempt.worker is not None else 0.0
    return _Wanted(attempt, attempt.pid, attempt.pid_started, attempt.gpus or [], spent)


def since(attempt: Attempt, died_with: ResourcesUsed) -> Optional[ResourcesUsed]:
    """What a process used since it has this job. `died_with`: what it used in all its life; None if that cannot be told apart."""
    if not attempt.is_reused:
        return died_with
    worker = attempt.worker
    if worker is None:
        return None
    cpu, peak = died_with.cpu_seconds, died_with.peak_memory
    return ResourcesUsed(
        cpu_seconds=None if cpu is None else max(0.0, cpu - worker.spent),
        peak_memory=peak if peak is not None and peak > worker.peak_memory else None,
    )


def with_usage(attempt: Attempt, envelope: Envelope, blob: Callable[[str], str]) -> Envelope:
    """Return the envelope with all that is known of what the attempt has used. `blob`: sha256 -> where that content is."""
    seen = attempt.seen
    told = envelope.resources_used or seen.at_death or ResourcesUsed()
    return envelope._replace(
        resources_used=ResourcesUsed(
            wall_seconds=told.wall_seconds if told.wall_seconds is not None else envelope.duration,
            cpu_seconds=greatest(told.cpu_seconds, seen.cpu_seconds),
            peak_memory=greatest(told.peak_memory, seen.peak_memory),
            gpu_share=told.gpu_share if seen.gpu_share is None else min(seen.gpu_share, 1.0),
            peak_gpu_memory=greatest(told.peak_gpu_memory, seen.peak_gpu_memory),
            bytes_in=_bytes_in(attempt, blob),
        )
    )


def _bytes_in(attempt: Attempt, blob: Callable[[str], str]) -> Optional[int]:
    if attempt.payload_blob:
        try:
            return os.path.getsize(blob(attempt.payload_blob))
        except OSError:
            return None  # it is not needed any more
    return attempt.payload.payload_length if attempt.payload is not None else None
