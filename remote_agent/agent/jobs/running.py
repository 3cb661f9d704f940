"""Attempts that have a process: handing them to their zygote, reading what they send, ending them.

Rule: a cancel or timeout is recorded before any signal is sent, because the record decides the kind of the error.
"""

import contextlib
import os
import selectors
import signal
import socket
import time
from typing import Callable, Dict, Iterator, List, Optional, Set

from remote_agent.agent.jobs.job_messages import JobMessages
from remote_agent.agent.jobs.queue import JobQueue, started
from remote_agent.agent.jobs.reports import Reports
from remote_agent.agent.jobs.shutdown import Shutdown, send_signal
from remote_agent.agent.jobs.workers import Worker, Workers
from remote_agent.agent.link.controller import Controller
from remote_agent.agent.resources.gpus import GpuPool
from remote_agent.agent.resources.shares import variables
from remote_agent.agent.resources.usage import since
from remote_agent.agent.spool.attempt import Attempt, failed_envelope
from remote_agent.agent.spool.attempts import Attempts
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.agent.zygotes.client import ZygoteClient, ZygoteGone
from remote_agent.agent.zygotes.pool import Zygotes
from remote_agent.job import ERROR_KINDS, JobError, ResourcesUsed
from remote_agent.protocol import wire
from remote_agent.protocol.constants import REPORTS
from remote_agent.protocol.messages import Cancel, Start
from remote_agent.protocol.result_parts import NO_PARTS
from remote_agent.protocol.specs.job import ForkSpec
from remote_agent.protocol.trace import TRACEPARENT, traceparent
from remote_agent.system.host import unwritable
from remote_agent.system.private_files import open_private
from remote_agent.system.processes import TOKEN, birth, kill_whole

__all__ = ["RunningJobs"]

#: A zygote must fork a job within this many seconds.
FORK_PATIENCE = 60.0
#: A longer payload might not be taken at once by a worker, so the job gets a new process.
_MAX_TO_WORKER = 1 << 16


class RunningJobs:
    """Attempts that have a process, or are about to.

    `on_end` is set by the agent: called with an attempt whose process is gone and whose socket was read to its end. `messages` takes what jobs
    say, and `shutdown` ends those that have their results.
    """

    def __init__(
        self,
        paths: SpoolPaths,
        selector: selectors.BaseSelector,
        attempts: Attempts,
        queue: JobQueue,
        zygotes: Zygotes,
        controller: Controller,
        gpus: GpuPool,
        reports: Reports,
    ) -> None:
        self._paths = paths
        self._selector = selector
        self._attempts = attempts
        self._queue = queue
        self._zygotes = zygotes
        self._controller = controller
        self._gpus = gpus
        self.shutdown = Shutdown(paths, attempts)
        self.messages = JobMessages(attempts, controller, reports, self.shutdown, zygotes.blobs.path)
        self._workers = Workers()
        self.on_end: Callable[[Attempt], None] = lambda attempt: None

    # -- with the zygote -----------------------------------------------------------------------------------------

    def start(self, attempt: Attempt, zygote: ZygoteClient) -> None:
        """Let a worker do the job, or the zygote fork it."""
        payload, payload_file = b"", ""
        if attempt.payload_blob:
            payload_file = self._zygotes.blobs.path(attempt.payload_blob)
        elif attempt.payload is not None:
            payload = self._attempts.log.read(attempt.payload)
        spec = self.fork_spec(attempt, payload_file).to_json()
        header: Start = {"t": "fork", "attempt": attempt.id, "spec": spec, "leases": 0}
        try:
            if not self._hand_to_worker(attempt, zygote, header, payload):
                self.hand_over(attempt, zygote, header, payload)
        except ZygoteGone:
            # No zygote has the job, so the next one starts it.
            self._queue.requeue(attempt)
            return
        except OSError as error:
            why = unwritable(error, self._paths.spool) if error.filename else str(error.strerror or error)
            message = "the job could not be set up: {}".format(why)
            failure = JobError("host", type(error).__name__, message)
            attempt.has_exited = True
            self._attempts.record_final(attempt, failed_envelope(attempt, failure, time.time()), NO_PARTS, b"")
            self.on_end(attempt)
            return
        self._controller.say(started(attempt))

    def fork_spec(self, attempt: Attempt, payload_file: str) -> ForkSpec:
        """The spec for the process of an attempt. `payload_file`: where its payload is, if that is not sent along."""
        slot_env: Dict[str, Optional[str]] = dict(self._variables(attempt))
        slot_env[TOKEN] = self._paths.token(attempt)
        slot_env[REPORTS] = self._paths.reports(attempt)
        if attempt.spec.trace:
            slot_env[TRACEPARENT] = traceparent(attempt.spec.trace, attempt.id)
        earlier = [self._paths.with_folder(one, attempt.spec) for one in attempt.spec.earlier]
        job = attempt.spec._replace(output_dir=self._paths.output_dir(attempt), earlier=earlier)
        return ForkSpec(job, slot_env, self._paths.spool, payload_file, attempt.cpus, self._queue.threads)

    def _variables(self, attempt: Attempt) -> Dict[str, str]:
        """The variables of the attempt's share: its GPUs and, if its number of CPUs is not the run's, its threads."""
        found = variables(attempt)
        threads = self._queue.threads_of(attempt)
        zygote = self._zygotes.get(attempt.spec.zygote)
        if threads != self._queue.threads and zygote is not None:
            found.update(dict.fromkeys(zygote.own_threads(), str(threads)))
        return found

    def hand_over(self, attempt: Attempt, zygote: ZygoteClient, header: Start, payload: bytes) -> None:
        """Give an attempt, or its epilogue, to the zygote, with its socket, its streams and its GPUs.

        Raises:
            ZygoteGone: the zygote did not get it, and never will.
            OSError: a file or a socket cannot be opened.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            ours.setblocking(False)
            with self._streams(attempt) as fds:
                leases = self._leases(attempt, header)
                zygote.fork(header, payload, [theirs.fileno(), *fds, *leases])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._begin(attempt, ours)
        attempt.handed_at = time.monotonic()
        if zygote.isolation != "reuse" or header["t"] != "fork":
            self._selector.register(ours, selectors.EVENT_READ, lambda sock, mask: self.drain(attempt))
            return
        worker = attempt.worker = Worker(attempt, zygote, self._variables(attempt), ours)
        self._workers.add(worker)
        self._selector.register(ours, selectors.EVENT_READ, lambda sock, mask: self._drain_worker(worker))

    @staticmethod
    def _begin(attempt: Attempt, sock: socket.socket) -> None:
        attempt.decoder = wire.Decoder()
        attempt.sock = sock
        attempt.has_exited = False
        attempt.status = None

    def _leases(self, attempt: Attempt, header: Start) -> List[int]:
        """Return the descriptors by which the process has its GPUs as long as it lives, and write their number into the header."""
        leases = self._gpus.descriptors(attempt.gpus or [], attempt.id)
        header["leases"] = len(leases)
        return leases

    @contextlib.contextmanager
    def _streams(self, attempt: Attempt) -> Iterator[List[int]]:
        """Open the files of stdout and stderr."""
        fds: List[int] = []
        try:
            for path in self._paths.streams(attempt).values():
                # One by one, so that open files are closed below even if the next one cannot be opened.
                fds.append(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))  # noqa: PERF401
            yield fds
        finally:
            for fd in fds:
                os.close(fd)

    # -- with workers --------------------------------------------------------------------------------------------

    def _hand_to_worker(self, attempt: Attempt, zygote: ZygoteClient, header: Start, payload: bytes) -> bool:
        """Give a job to a worker that waits, and had the same GPUs and threads. Returns False if there is none for it.

        Raises:
            OSError: a file cannot be opened.
        """
        environment = self._variables(attempt)
        idle = self._workers.idle()
        fitting = next((one for one in idle if one.zygote is zygote and one.environment == environment), None)
        if fitting is None or fitting.pid is None or len(payload) > _MAX_TO_WORKER:
            # The job gets a new process. One that waits goes for it, so that there are never more than ran at once.
            for worker in idle[:1] if fitting is None else [fitting]:
                self._end_worker(worker)
            return False
        attempt.pid, attempt.pid_started, attempt.is_reused = fitting.pid, fitting.started, True
        # This is in the file before the worker has the job, so that a later agent finds the process.
        self._attempts.record(attempt, "forked", {"pid": fitting.pid, "start": fitting.started, "reused": True})
        with self._streams(attempt) as fds:
            fds = [*fds, *self._leases(attempt, header)]
            is_sent = self._attempts.write() and fitting.send(wire.encode(header, payload, passed_on=True), fds)
        if not is_sent:
            attempt.pid, attempt.pid_started, attempt.is_reused = None, "", False
            self._end_worker(fitting)
            return False
        self._begin(attempt, fitting.sock)
        attempt.state = "running"
        attempt.worker, fitting.attempt = fitting, attempt
        return True

    def _drain_worker(self, worker: Worker) -> None:
        if worker.attempt is not None:
            self.drain(worker.attempt)
        else:
            # It has ended, or says something that nobody has asked for.
            self._end_worker(worker)

    def _end_worker(self, worker: Worker) -> None:
        """Let a worker that waits end: nothing more will come over its socket."""
        worker.is_last = True
        if worker.sock.fileno() >= 0:
            self._selector.unregister(worker.sock)
            worker.sock.close()

    def waiting_pids(self) -> Set[int]:
        """Return the processes of workers that wait."""
        return {worker.pid for worker in self._workers.idle() if worker.pid is not None}

    def close_workers(self) -> None:
        """Let all workers end that wait."""
        for worker in self._workers.idle():
            self._end_worker(worker)

    def kill_workers(self) -> None:
        """Kill the workers that have not ended."""
        for worker in self._workers:
            kill_whole(worker.pid, worker.started, "{}/{}".format(self._paths.run, worker.name))

    def _over(self, attempt: Attempt) -> None:
        """The job is over, and nothing of it is left in its process. Its worker waits for the next job, if it may have one."""
        worker = attempt.worker
        is_certain = worker is not None and not worker.is_last and attempt.final is not None and attempt.decoder.is_idle
        is_untouched = attempt.cancel is None and attempt.asked_at is None and not attempt.is_shutdown_shortened
        if is_certain and attempt.pid is None:
            return  # its zygote is about to report its process
        attempt.is_idle = False
        if not is_certain or not is_untouched or attempt.cut is not None:
            # It ends, and its zygote reports that as for any job.
            self._close_socket(attempt)
            return
        self._attempts.record(attempt, "over", {})
        used = None if attempt.final is None else attempt.final.envelope.resources_used
        worker.peak_memory = max(worker.peak_memory, (used.peak_memory or 0) if used is not None else 0)
        attempt.leave_process()
        worker.attempt = None
        self.on_end(attempt)

    def left_alone(self, name: str) -> Optional[Attempt]:
        """The zygote of this process is gone. Returns the attempt that the process has, if any."""
        worker = self._workers.remove(name)
        if worker is None:
            return self._attempts.alive(name)
        if worker.attempt is None:
            self._end_worker(worker)
        elif worker.attempt.is_idle:
            self._over(worker.attempt)
        return worker.attempt

    # -- what a zygote reports -----------------------------------------------------------------------------------

    def forked(self, zygote: ZygoteClient, attempt_id: str, pid: int) -> None:
        """Record that the process of an attempt has started."""
        attempt = self._attempts.alive(attempt_id)
        if attempt is None:
            return
        zygote.children[attempt_id] = pid
        attempt.handed_at = None
        attempt.pid, attempt.pid_started = pid, birth(pid)
        if attempt.worker is not None:
            attempt.worker.pid, attempt.worker.started = pid, attempt.pid_started
        self._attempts.record(attempt, "forked", {"pid": pid, "start": attempt.pid_started})
        if attempt.state == "claimed":
            attempt.state = "running"
        if attempt.is_idle:
            self._over(attempt)
        elif attempt.cancel is not None:
            self._terminate(attempt)

    def check_fork(self, attempt: Attempt, now: float) -> None:
        """Kill a zygote that has not forked within FORK_PATIENCE: it hangs. Its end is then handled like any other."""
        if attempt.handed_at is not None and now - attempt.handed_at > FORK_PATIENCE:
            attempt.handed_at = None
            zygote = self._zygotes.get(attempt.spec.zygote)
            if zygote is not None and zygote.process is not None:
                self._controller.note(
                    "zygote {} no longer starts jobs, so it is killed and replaced".format(zygote.key)
                )
                zygote.process.kill()

    def exited(self, attempt_id: str, status: int, used: Optional[ResourcesUsed] = None) -> None:
        """Record that the process of an attempt, or the worker of that name, has ended."""
        worker = self._workers.remove(attempt_id)
        if worker is not None and worker.attempt is None:
            self._end_worker(worker)
            return
        attempt = self._attempts.alive(attempt_id) if worker is None else worker.attempt
        if attempt is not None and not attempt.awaits_zygote:
            if used is not None and not attempt.in_epilogue:
                attempt.seen.at_death = since(attempt, used)
            attempt.status = status
            attempt.has_exited = True
            self.drain(attempt)
            self.on_end(attempt)

    # -- what a job says -----------------------------------------------------------------------------------------

    def drain(self, attempt: Attempt) -> None:
        """Read what is on the job's socket."""
        while attempt.sock is not None:
            try:
                data = attempt.sock.recv(1 << 18)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data and not self.messages.read(attempt, attempt.decoder, data):
                data = b""
            if not data:
                self._close_socket(attempt)
            elif attempt.is_idle:
                self._over(attempt)

    def _close_socket(self, attempt: Attempt) -> None:
        self._selector.unregister(attempt.sock)
        attempt.sock.close()
        attempt.sock = None

    # -- ending one ----------------------------------------------------------------------------------------------

    def on_cancel(self, header: Cancel, payload: bytes) -> None:
        """Cancel these attempts, or all of them."""
        kind = header["kind"]
        if kind not in ERROR_KINDS:
            raise wire.ProtocolError("field", "cancel: kind {!r}".format(kind))
        chosen = header["attempts"]
        every = [one.id for one in self._attempts] if chosen is None else chosen
        for attempt_id in every:
            attempt = self._attempts.get(attempt_id)
            if attempt is not None and attempt.final is None:
                self.cancel(attempt, kind, header["kill"], header["why"])
            elif attempt is not None and not attempt.is_over:
                self.shutdown.shorten(attempt, header["kill"])

    def cancel(self, attempt: Attempt, kind: str, kill: bool = False, why: str = "") -> None:
        """End an attempt: by SIGTERM and a grace period, or at once. An attempt that waits is final at once."""
        if attempt.state == "queued":
            self._queue.cancel(attempt, kind, why)
            return
        if attempt.cancel is None:
            attempt.cancel = kind
            self._attempts.record(attempt, "cancel", {"kind": kind})
            self._attempts.write()
        if kill:
            kill_whole(attempt.pid, attempt.pid_started, self._paths.token(attempt))
        else:
            self._terminate(attempt)

    def _terminate(self, attempt: Attempt) -> None:
        """Send SIGTERM. A job that does not end within the grace period is killed."""
        if attempt.outcome is not None or attempt.in_epilogue:
            # The application has ended. Its end hooks have their own time limit.
            return
        self._send_end_reason(attempt)
        send_signal(attempt, signal.SIGTERM)
        attempt.kill_at = time.monotonic() + attempt.spec.grace

    @staticmethod
    def _send_end_reason(attempt: Attempt) -> None:
        """Tell the job why it gets SIGTERM, so that its end hooks know it too."""
        if attempt.sock is None or attempt.cancel is None:
            return
        try:
            message: Cancel = {
                "t": "cancel",
                "attempts": [attempt.id],
                "kind": attempt.cancel,
                "kill": False,
                "why": "",
            }
            attempt.sock.send(wire.encode(message))
        except OSError:
            return  # the job has ended, or does not read; the record decides in any case
