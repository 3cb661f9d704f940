"""What a job's process may still do when the job has its result: end as Python does, and leave processes behind.

Rule: it has a time limit. What is killed beyond it is recorded with what was still running, so that the user learns it.
"""

import os
import signal
import time
from typing import List

from remote_agent.agent.spool.attempt import Attempt
from remote_agent.agent.spool.attempts import Attempts
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.system.processes import described, is_alive, kill_whole, members

__all__ = ["MAX_RUNNING", "Shutdown", "send_signal"]

#: A job must say within this many seconds what its shutdown waits for. A job in native code cannot answer.
ASK_PATIENCE = 2.0
#: How many names of things that were still running are reported.
MAX_RUNNING = 40


class Shutdown:
    """Ends the processes of jobs that have their results."""

    def __init__(self, paths: SpoolPaths, attempts: Attempts) -> None:
        self._paths = paths
        self._attempts = attempts

    @staticmethod
    def begin(attempt: Attempt) -> None:
        """Let a process with a result shut down as Python does. It keeps its slot as long as that may take."""
        seconds = attempt.spec.shutdown_timeout
        if attempt.cancel is not None:
            seconds = min(seconds, attempt.spec.grace)
        attempt.state = "ending"
        attempt.deadline = None
        attempt.ending_at = time.monotonic()
        attempt.kill_at = attempt.ending_at + seconds

    def end(self, attempt: Attempt) -> None:
        """End a shutdown that takes too long: ask the job what it waits for, and kill it after the answer."""
        if attempt.asked_at is None:
            attempt.asked_at = time.monotonic()
            attempt.kill_at = attempt.asked_at + ASK_PATIENCE
            send_signal(attempt, signal.SIGTERM)
        else:
            self.kill(attempt)

    def kill(self, attempt: Attempt) -> None:
        """Kill the job, and record for the user what was still running."""
        now = time.monotonic()
        token = self._paths.token(attempt)
        if attempt.cut is None:
            others = [pid for pid in members(token, attempt.pid, attempt.pid_started) if pid != attempt.pid]
            running = attempt.running + [described(pid) for pid in others]
            self._record_cut(attempt, running, now - (attempt.ending_at or now))
        attempt.kill_at = now + 5.0
        kill_whole(attempt.pid, attempt.pid_started, token)

    def _record_cut(self, attempt: Attempt, running: List[str], seconds: float) -> None:
        """Record that the job was killed after its result. `seconds`: how long it had time to shut down."""
        attempt.cut = {
            "seconds": seconds,
            "running": running[:MAX_RUNNING],
            "is_cancelled": attempt.cancel is not None or attempt.is_shutdown_shortened,
        }
        self._attempts.record(attempt, "cut", attempt.cut)

    def record_left(self, attempt: Attempt, running: List[str], changing: List[str]) -> None:
        """Record that what the job had left behind was killed. `changing`: files of its output directory that still changed then."""
        attempt.cut = {
            "seconds": None,
            "running": running[:MAX_RUNNING],
            "waited": max(0.0, time.time() - attempt.left_since),
            "changing": changing,
            "is_cancelled": attempt.cancel is not None or attempt.is_shutdown_shortened,
        }
        self._attempts.record(attempt, "cut", attempt.cut)

    def shorten(self, attempt: Attempt, kill: bool) -> None:
        """Let the shutdown of a cancelled job take no longer than its grace period; so with what it left behind."""
        attempt.is_shutdown_shortened = True
        if attempt.has_exited:
            if attempt.left_until is not None:
                until = time.monotonic() + (0.0 if kill else attempt.spec.grace)
                attempt.left_until = min(attempt.left_until, until)
            return
        if kill:
            self.kill(attempt)
        elif attempt.asked_at is None and attempt.kill_at is not None:
            attempt.kill_at = min(attempt.kill_at, time.monotonic() + attempt.spec.grace)


def send_signal(attempt: Attempt, number: int) -> None:
    """Send a signal to the process of an attempt, if it lives."""
    if attempt.pid is None or attempt.has_exited or not is_alive(attempt.pid, attempt.pid_started):
        return
    try:
        os.kill(attempt.pid, number)
    except ProcessLookupError:
        pass  # the job has just ended; its exit will be reported
