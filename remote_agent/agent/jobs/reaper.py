"""What follows the end of a job's process: its own record is read, and end hooks that have not fired yet fire in an epilogue.

Rule: an end without a result becomes a FAILED result that says what killed the job. An outcome in the spool stays as it is.
"""

import functools
import os
import signal
import time
from typing import Callable, List, Optional, Set, Tuple

from remote_agent.agent.jobs.left_behind import still_changing
from remote_agent.agent.jobs.queue import JobQueue
from remote_agent.agent.jobs.reports import Reports
from remote_agent.agent.jobs.running import RunningJobs
from remote_agent.agent.link.controller import Controller
from remote_agent.agent.resources.usage import with_usage
from remote_agent.agent.spool.attempt import Attempt, Recorded, error_of_status, failed_envelope
from remote_agent.agent.spool.attempts import Attempts
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.agent.zygotes.client import ZygoteClient, ZygoteGone
from remote_agent.agent.zygotes.pool import ZygoteListener, Zygotes
from remote_agent.job import JobError, ResourcesUsed
from remote_agent.protocol.messages import Start
from remote_agent.protocol.result_parts import NO_PARTS
from remote_agent.protocol.specs.job import EpilogueSpec
from remote_agent.shared.failure import timed_out
from remote_agent.system.background import BackgroundThread
from remote_agent.system.private_files import open_private
from remote_agent.system.processes import (
    age,
    birth,
    described,
    has_begun,
    has_group,
    holder_of,
    is_alive,
    kill_group,
    kill_tokens,
    kill_whole,
    left_by,
)

__all__ = ["Reaper"]

#: How often an epilogue that died is tried again (each time, it must have entered at least one hook).
MAX_EPILOGUES = 20
#: How often a job is given to another zygote when a zygote dies before it has forked the job.
MAX_HAND_OVERS = 5
#: Processes that a job left behind are killed after this many seconds.
SWEEP_AFTER = 10.0


class Reaper(ZygoteListener):
    """Takes care of attempts whose process has ended, or whose zygote has.

    The agent sets `explain_kill`, and `on_over`, which is called with each attempt that has a result and no process any more.
    """

    def __init__(
        self,
        paths: SpoolPaths,
        attempts: Attempts,
        queue: JobQueue,
        zygotes: Zygotes,
        running: RunningJobs,
        background: BackgroundThread,
        controller: Controller,
        reports: Reports,
    ) -> None:
        self._paths = paths
        self._attempts = attempts
        self._queue = queue
        self._zygotes = zygotes
        self._running = running
        self._background = background
        self._controller = controller
        self._reports = reports
        self._ended_tokens: Set[str] = set()
        self._sweep_at = 0.0
        self.on_over: Callable[[Attempt], None] = lambda attempt: None
        #: Says more of the error of a job that was killed, if it can.
        self.explain_kill: Callable[[Attempt, JobError], None] = lambda attempt, error: None

    # -- what zygotes report -------------------------------------------------------------------------------------

    def forked(self, zygote: ZygoteClient, attempt_id: str, pid: int) -> None:
        """Record that a process has begun."""
        self._running.forked(zygote, attempt_id, pid)

    def exited(self, attempt_id: str, status: int, used: Optional[ResourcesUsed]) -> None:
        """Record that a process has ended."""
        self._running.exited(attempt_id, status, used)

    def orphaned(self, attempt_ids: List[str]) -> None:
        """Watch jobs that have lost their zygote by their pid."""
        for attempt_id in attempt_ids:
            attempt = self._running.left_alone(attempt_id)
            if attempt is not None:
                attempt.is_polled = True

    def unusable(self, zygote: ZygoteClient, error: JobError) -> None:
        """Fail the attempts of a zygote that cannot prepare the application."""
        self._queue.unusable(zygote, error)

    # -- processes of before -------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take over attempts that an earlier agent started. Their time limits go on, and a cancel is repeated."""
        for attempt in self._attempts.active():
            if attempt.has_exited:
                continue
            self._find(attempt)
            timeout = attempt.spec.timeout
            if timeout and attempt.outcome is None and attempt.crash is None and attempt.final is None:
                gone_by = (age(attempt.pid) if attempt.pid is not None else None) or 0.0
                if attempt.is_reused:
                    # The process is older than the job.
                    gone_by = min(gone_by, max(0.0, time.time() - (attempt.started_at or 0.0)))
                attempt.deadline = time.monotonic() + timeout - gone_by
            if attempt.final is not None:
                self._running.shutdown.begin(attempt)
            elif attempt.outcome is not None or attempt.crash is not None:
                attempt.kill_at = time.monotonic() + attempt.spec.hook_timeout
            elif attempt.cancel is not None:
                self._running.cancel(attempt, attempt.cancel)

    def fail_doubtful(self, attempts: List[Attempt]) -> None:
        """Fail attempts that may have started. Because that is unknown, they must not start again."""
        for attempt in attempts:
            message = "the host went down, or its spool was damaged, when the job was about to start"
            self._attempts.record_final(
                attempt, failed_envelope(attempt, JobError("lost", message=message), None), NO_PARTS, b""
            )
            attempt.state = "final"

    def _find(self, attempt: Attempt) -> None:
        """Find the process of an attempt whose pid was not recorded."""
        if attempt.pid is None:
            attempt.pid = holder_of(self._paths.stream(attempt, "stdout"))
            if attempt.pid is not None:
                attempt.pid_started = birth(attempt.pid)

    def poll(self, attempt: Attempt) -> None:
        """Check an attempt that has lost its zygote, or whose epilogue waits for one."""
        if attempt.is_doubted:
            return
        if attempt.awaits_zygote:
            self._crashed(attempt)
            return
        if not attempt.has_exited:
            self._running.drain(attempt)
            self._adopt_orphan_file(attempt)
            self._find(attempt)
            if attempt.pid is not None and is_alive(attempt.pid, attempt.pid_started):
                return
            if attempt.pid is None and attempt.sock is not None:
                # Some process holds the other end, so it was forked, but the zygote could not report it.
                return
            attempt.has_exited = True
        self._running.drain(attempt)
        self.ended(attempt)

    # -- the end of a process ------------------------------------------------------------------------------------

    def ended(self, attempt: Attempt) -> None:
        """Handle the end of an attempt's process. Everything that it sent has been read."""
        if attempt.final is not None and attempt.pid is not None and self._waits_for_leftovers(attempt, attempt.pid):
            return
        if attempt.final is None:
            kill_whole(attempt.pid, attempt.pid_started, self._paths.token(attempt))
            self._adopt_orphan_file(attempt)
        self._reports.read(attempt, time.monotonic(), is_last=True)
        if attempt.final is None and self._never_began(attempt):
            attempt.hand_overs += 1
            self._queue.requeue(attempt)
            return
        if attempt.final is None:
            self._crashed(attempt)
            return
        attempt.state = "final"
        attempt.kill_at = attempt.deadline = None
        attempt.is_polled = attempt.awaits_zygote = False
        self._queue.release_slot(attempt)
        self._attempts.ended(attempt)
        self._reports.forget(attempt)
        self._ended_tokens.add(self._paths.token(attempt))
        self.on_over(attempt)

    def _never_began(self, attempt: Attempt) -> bool:
        """Whether the zygote ended between the hand-over and the fork, or a worker before it had read of the job, so that the attempt
        may start again.

        If so, no process was reported or found (other than the worker), and none has sent or printed anything, or marked its stdout file.
        """
        return (
            (attempt.is_reused or (attempt.pid is None and attempt.status is None))
            and attempt.cancel is None
            and attempt.boot == self._paths.boot
            and not (attempt.entered or attempt.outcome or attempt.crash or attempt.state_at)
            and attempt.hand_overs < MAX_HAND_OVERS
            and not has_begun(self._paths.stream(attempt, "stdout"))
        )

    def _waits_for_leftovers(self, attempt: Attempt, pid: int) -> bool:
        """Whether to wait for processes that the job has left behind.

        They have a moment to end, and then they are named and killed.

        Usually there are none, which one system call shows.
        """
        attempt.kill_at = None
        if not has_group(pid, attempt.pid_started):
            return False
        now = time.monotonic()
        if attempt.left_until is None:
            seconds = attempt.spec.children_timeout
            if attempt.cancel is not None or attempt.is_shutdown_shortened:
                seconds = min(seconds, attempt.spec.grace)
            attempt.left_since, attempt.left_until = time.time(), now + seconds
        left = left_by(pid)
        if left and now < attempt.left_until:
            attempt.is_polled = True
            return True
        if left and attempt.cut is None:
            folder = self._paths.output_dir(attempt)
            changing = still_changing(folder, attempt.left_since, left) if attempt.spec.outputs else []
            self._running.shutdown.record_left(attempt, [described(one) for one in left], changing)
        kill_group(pid, attempt.pid_started)
        return False

    def sweep(self, now: float) -> None:
        """Kill processes that jobs have left behind in sessions of their own, for many jobs at a time."""
        if not self._ended_tokens:
            self._sweep_at = now + SWEEP_AFTER
        elif now >= self._sweep_at:
            self._sweep_at = now + SWEEP_AFTER
            left, self._ended_tokens = self._ended_tokens, set()
            ended: List[Tuple[str, str]] = []
            self._background.submit(lambda: ended.extend(kill_tokens(left)), functools.partial(self._note_swept, ended))

    def _note_swept(self, ended: List[Tuple[str, str]], error: Optional[BaseException]) -> None:
        for token, what in ended:
            num = token.rpartition("/")[2].partition(".")[0]
            self._controller.note(
                "job {}: {} was killed; the job had left it running in a session of its own, so what it wrote after the job is not "
                "here".format(num, what)
            )

    def sweep_now(self) -> None:
        """Kill every process of the run, and report it while the controller is still there."""
        for attempt in self._attempts.active():
            kill_whole(attempt.pid, attempt.pid_started, self._paths.token(attempt))
            self._ended_tokens.add(self._paths.token(attempt))
        if self._ended_tokens:
            self._note_swept(kill_tokens(self._ended_tokens), None)

    def _adopt_orphan_file(self, attempt: Attempt) -> None:
        """Read what a job wrote to its own file while there was no agent. The file has all of its frames."""
        decoder = attempt.orphan_decoder
        if decoder is None:
            return
        try:
            fd = open_private(self._paths.orphan(attempt), os.O_RDONLY)
        except FileNotFoundError:
            return
        with os.fdopen(fd, "rb") as file:
            file.seek(attempt.orphan_read)
            while True:
                data = file.read(1 << 18)
                if not data:
                    return
                attempt.orphan_read += len(data)
                if not self._running.messages.read(attempt, decoder, data):
                    attempt.orphan_decoder = None
                    return

    # -- epilogues -----------------------------------------------------------------------------------------------

    def _crashed(self, attempt: Attempt) -> None:
        """The attempt ended without a result: record why, and let an epilogue fire the end hooks that are missing."""
        recorded = self._outcome_of_crash(attempt)
        attempt.deadline = attempt.kill_at = None
        zygote = self._zygotes.get(attempt.spec.zygote)
        can_go_on = attempt.epilogues < MAX_EPILOGUES and (
            attempt.epilogues == 0 or len(attempt.entered) > attempt.entered_before
        )
        if not can_go_on or (zygote is not None and zygote.state == "failed"):
            self._give_up_epilogue(attempt, recorded)
            return
        attempt.awaits_zygote = attempt.is_polled = attempt.has_exited = True
        if zygote is None or zygote.state != "ready":
            # `poll` tries again until the controller has said how to prepare the application.
            return
        try:
            self._epilogue(attempt, zygote, recorded)
        except ZygoteGone:
            return
        except OSError as error:
            self._controller.note("job {}: its end hooks cannot run: {}".format(attempt.id, error))
            self._give_up_epilogue(attempt, recorded)
            return
        attempt.awaits_zygote = attempt.is_polled = False
        attempt.in_epilogue = True
        attempt.epilogues += 1
        attempt.entered_before = len(attempt.entered)
        attempt.pid, attempt.pid_started = None, ""
        attempt.kill_at = time.monotonic() + attempt.spec.hook_timeout

    def _give_up_epilogue(self, attempt: Attempt, recorded: Recorded) -> None:
        attempt.has_exited = True
        self._attempts.record_final(attempt, recorded.envelope, recorded.parts, same_as=recorded.reference)
        self.ended(attempt)

    def _outcome_of_crash(self, attempt: Attempt) -> Recorded:
        """Return how the job ended."""
        if attempt.outcome is not None:
            return attempt.outcome
        if attempt.crash is not None:
            # Whatever has killed an epilogue since then did not kill the job.
            return Recorded(attempt.crash, NO_PARTS, None)
        has_rebooted = attempt.boot != self._paths.boot
        error = error_of_status(
            attempt.status,
            "the host was restarted while the job ran" if has_rebooted else "its zygote or agent died, too",
        )
        if has_rebooted:
            error.kind = "lost"
        elif error.signal == signal.SIGKILL and attempt.cancel is None:
            self.explain_kill(attempt, error)
        if attempt.cancel is not None:
            error.kind = attempt.cancel
            # Do not mention the kernel's log, because the SIGKILL was ours.
            how = "killed by SIGKILL" if error.signal == signal.SIGKILL else error.message
            if attempt.cancel == "timeout":
                how = "{} ({})".format(timed_out(attempt.spec.timeout), how)
            error.message = how
        died = failed_envelope(attempt, error, time.time())
        attempt.crash = with_usage(attempt, died, self._zygotes.blobs.path)
        self._attempts.record(attempt, "crashed", {"envelope": attempt.crash.to_json()})
        return Recorded(attempt.crash, NO_PARTS, None)

    def _epilogue(self, attempt: Attempt, zygote: ZygoteClient, recorded: Recorded) -> None:
        log = self._attempts.log
        state = b""
        if attempt.state_at is not None and not attempt.state_file:
            state = log.read(attempt.state_at)
        if attempt.gpus:
            self._queue.retake_gpus(attempt)
        payload_file = outcome_file = ""
        if attempt.payload_blob:
            payload_file = self._zygotes.blobs.path(attempt.payload_blob)
        elif attempt.payload is not None:
            payload_file = self._paths.payload(attempt, ".job")
            _write(payload_file, log.read(attempt.payload))
        if recorded.reference is not None and not recorded.parts.file:
            outcome_file = self._paths.payload(attempt, ".outcome")
            _write(outcome_file, log.read(recorded.reference))
        spec = EpilogueSpec(
            fork=self._running.fork_spec(attempt, payload_file),
            entered=[list(entry) for entry in attempt.entered],
            envelope=recorded.envelope,
            has_outcome=attempt.outcome is not None,
            parts=recorded.parts,
            outcome_file=outcome_file,
            state_file=attempt.state_file or "",
        )
        header: Start = {"t": "epilogue", "attempt": attempt.id, "spec": spec.to_json(), "leases": 0}
        self._running.hand_over(attempt, zygote, header, state)


def _write(path: str, data: bytes) -> None:
    fd = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
