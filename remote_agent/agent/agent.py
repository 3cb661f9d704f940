"""The agent: one per run and host. It owns the spool, the sockets and the zygotes.

Rule: one thread runs one select loop. It decides by the spool's log, and writes to the log before it acts. The agent outlives
every connection: running jobs go on without a controller.

At the end of an attempt `outcome` and `final` come from the job and go into the log. A thread brings the log to the disk, for many
attempts at a time. Only then is the result sent to the controller. What the controller acknowledges is forgotten.

The parts: attempts (what is known, and the log), controller (links), zygotes, queue (waiting jobs and slots), running (jobs that
have a process), reaper (what follows the end of a process), delivery (results and streams). This file connects the parts and runs
the loop.
"""

import errno
import os
import selectors
import shutil
import socket
import time
import traceback
from typing import Any, Callable, Dict, Optional, Sequence

from remote_agent.agent.delivery import Delivery
from remote_agent.agent.fork_server.leaving import leave_fork_server
from remote_agent.agent.jobs.queue import JobQueue
from remote_agent.agent.jobs.reaper import Reaper
from remote_agent.agent.jobs.reports import Reports
from remote_agent.agent.jobs.running import RunningJobs
from remote_agent.agent.link.batching import Batching
from remote_agent.agent.link.controller import Controller
from remote_agent.agent.link.listener import Listener
from remote_agent.agent.output_sync import OutputSync
from remote_agent.agent.queries import Queries
from remote_agent.agent.resources.gpus import GpuPool
from remote_agent.agent.resources.usage import UsageWatch
from remote_agent.agent.spool.attempts import Attempts
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.agent.zygotes.pool import Zygotes
from remote_agent.agent.zygotes.spare import Spare
from remote_agent.protocol.constants import HEARTBEAT
from remote_agent.protocol.messages import Finish, Hello
from remote_agent.shared.disk import remove_tree
from remote_agent.system.background import BackgroundThread
from remote_agent.system.host import Folders, boot_id
from remote_agent.system.private_files import SpoolError, make_private_folder, told_replaceable
from remote_agent.system.processes import kill_whole

__all__ = ["Agent", "log_crash", "remove_spool"]

#: The agent ends after this many seconds without a controller and without work. Its spool stays.
IDLE_EXIT = 120.0
#: The same for an agent that never got a hello and has no link. Its controller gave up while the agent started.
UNGREETED_EXIT = 5.0
#: A job's first report is seen within this many seconds, and further ones sooner.
FIRST_REPORT = 0.4
#: If this many bytes wait, messages to the controller are sent at once.
_SEND_AT_ONCE = 1 << 16


class Agent:
    """The select loop. `serve` returns when the run is over, or when nobody needs the agent any more."""

    def __init__(
        self,
        run: str,
        host: str,
        where: Folders,
        listener: Optional[socket.socket],
        bundle: str,
        umask: int,
        logout_notes: Sequence[str] = (),
        spare: Optional[Spare] = None,
        *,
        leaves_fork_server: bool = False,
    ) -> None:
        self._leaves_fork_server = leaves_fork_server
        self.paths = paths = self.make_paths(run, host, where, bundle, umask)
        self._selector = selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        selector.register(self._wake_read, selectors.EVENT_READ, self._on_wake)
        for name in ("streams", "payload", "blobs", "logs", "reports"):
            make_private_folder(os.path.join(where.spool, name))
        self.controller = controller = Controller(paths, selector, self._on_hello, self._on_greeted, self._on_link_gone)
        #: None in an allocation of a batch system, where no controller comes.
        self._listener = None
        if listener is not None:
            self._listener = Listener(paths, listener, selector, controller.accept, controller.note)
        self.background = background = BackgroundThread(self.wake)
        self.zygotes = zygotes = Zygotes(paths, selector, background, controller, spare)
        self.attempts = attempts = Attempts(
            os.path.join(where.spool, "log"),
            paths.boot,
            self.wake,
            controller.note,
            # Lambdas, because these parts are made below: they need this one.
            lambda attempt: self.delivery.send_early(attempt),  # noqa: PLW0108
            lambda attempt: self.delivery.send(attempt),  # noqa: PLW0108
            lambda error: self.queue.spool_failed(error),  # noqa: PLW0108
            lambda: controller.say({"t": "opened"}),
            lambda attempt: self.reaper.fail_doubtful([attempt]),
        )
        self._gpus = gpus = GpuPool(run, controller.note, background)
        self.queue = JobQueue(attempts, zygotes, controller, gpus)
        self.reports = Reports(paths, attempts, self.queue, controller)
        self.running = RunningJobs(paths, selector, attempts, self.queue, zygotes, controller, gpus, self.reports)
        self.reaper = Reaper(paths, attempts, self.queue, zygotes, self.running, background, controller, self.reports)
        self.delivery = Delivery(paths, attempts, zygotes, background, controller)
        self.queue.start = self.running.start
        gpus.waiting_processes, gpus.end_waiting = self.running.waiting_pids, self.running.close_workers
        self.running.on_end = self.reaper.ended
        self.reaper.on_over = self.delivery.send_outputs
        zygotes.listener = self.reaper
        self.delivery.is_idle = lambda: not attempts.has_active and not self.queue
        self.delivery.running_since = lambda: min(
            (one.started_at or time.time() for one in attempts.active()), default=time.time()
        )
        controller.on_query = Queries(paths, attempts).answer
        if listener is not None:
            for note in told_replaceable((where.cache, where.spool)):
                controller.note(note)
        for note in logout_notes:
            controller.note_logout(note)
        controller.handlers.update(
            job=self.queue.on_job,
            cancel=self.running.on_cancel,
            stop=self.reports.on_stop,
            go=self.queue.on_go,
            take_back=self.queue.on_take_back,
            ack=self.delivery.on_ack,
            held=self.delivery.on_held,
            blob=zygotes.on_blob,
            blobs=zygotes.on_blobs,
            manifest=zygotes.on_manifest,
            prepare=zygotes.on_prepare,
            withheld=zygotes.on_withheld,
            ask_pythons=zygotes.environments.on_ask,
            environment=zygotes.environments.on_environment,
            finish=self._on_finish,
        )
        self._usage = UsageWatch(attempts)
        self._sync = OutputSync(attempts.active, paths.own_output, controller, lambda: BackgroundThread(self.wake))
        controller.handlers["pong"] = self._sync.on_pong
        self._batching = Batching()
        #: Seconds for which waiting messages are held back.
        self._held_for = 0.0
        self._next_poll = 0.0
        self.end_mode: Optional[str] = None
        self._was_interrupted = False
        queued, doubtful = attempts.replay()
        self.queue.restore(queued)
        self.reaper.fail_doubtful(doubtful)
        for attempt in attempts.active():
            gpus.adopt(attempt.gpus or [])
        self.reaper.adopt()

    def make_paths(self, run: str, host: str, where: Folders, bundle: str, umask: int) -> SpoolPaths:
        """Make the paths of this agent."""
        return SpoolPaths(run, host, where, bundle, umask, boot_id())

    # -- the loop ------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Run until `finish`, or until nobody needs the agent."""
        try:
            while self.end_mode is None:
                self._turn(self._timeout())
            self._shut_down()
        finally:
            self._selector.close()

    def _turn(self, timeout: float) -> None:
        for key, mask in self._selector.select(timeout):
            handler: Callable[[Any, int], None] = key.data
            handler(key.fileobj, mask)
        self._tick(time.monotonic())
        self.look_around(time.monotonic())
        self.queue.dispatch()
        self.attempts.flush()
        self.running.messages.confirm_kept()
        self._send(time.monotonic())

    def look_around(self, now: float) -> None:
        """Do what an agent does in each turn that gets its jobs elsewhere. Here they come from the controller."""

    def _send(self, now: float) -> None:
        """Send waiting messages to the controller. While many short jobs wait, messages about several of them go together."""
        link = self.controller.link
        self._held_for = 0.0
        if link is not None and link.outbox:
            if self.queue and link.outbox.size < _SEND_AT_ONCE:
                self._held_for = self._batching.delay(now)
                if self._held_for:
                    return
            self._batching.note_sent(now)
        self.controller.pump()

    def _timeout(self) -> float:
        if self._held_for:
            return self._held_for
        active = self.attempts.active()
        if active and (self.controller.is_live or self.reports.is_reading or self._sync.is_busy):
            return 0.1
        if any(attempt.is_polled or attempt.kill_at or attempt.deadline for attempt in active):
            return 0.1
        return FIRST_REPORT if active else HEARTBEAT / 20

    def wake(self) -> None:
        """Make the loop take its next turn now. From any thread."""
        try:
            os.write(self._wake_write, b"x")
        except BlockingIOError:
            pass  # the pipe is full, so the loop is awake already
        except OSError as error:
            if error.errno != errno.EBADF:
                raise

    def _on_wake(self, fd: int, mask: int) -> None:
        os.read(fd, 4096)
        self.attempts.synced()
        self.background.deliver()
        if self._sync.thread is not None:
            self._sync.thread.deliver()

    # -- the controller ------------------------------------------------------------------------------------------

    def _on_hello(self, hello: Hello) -> Dict[str, Any]:
        room = self.queue.count_slots(hello)
        self.zygotes.threads = self.queue.threads
        return {
            # The log's id shows whether this is still the same spool. If a spool was removed, its successor does not know its attempts.
            "boot_id": "{}/{}".format(self.paths.boot, self.attempts.log.id.hex()),
            "slots": max(self.queue.slots, 1),
            "too_small": self.queue.unusable_gpus or room.lacks(None),
            "room": None if self.queue.unusable_gpus else room.to_json(),
            "gpus": self._gpus.uuids,
            "states": {attempt.id: attempt.short_state() for attempt in self.attempts},
        }

    def _on_greeted(self) -> None:
        self.delivery.resend()
        self.zygotes.environments.announce()
        self.zygotes.announce_all()

    def _on_link_gone(self) -> None:
        self.zygotes.drop_partial()

    def _on_finish(self, header: Finish, payload: bytes) -> None:
        self.end_mode = "keep" if header["keep"] else "remove"
        self._was_interrupted = header["interrupted"]
        if header["interrupted"]:
            self.zygotes.leave_none()

    # -- time ----------------------------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        self.controller.tick(now)
        if self._listener is not None:
            self._listener.tick(now)
        self._gpus.tick(now)
        # Before the streams are looked at: files are not sent while anything else waits to be sent.
        self._sync.tick(now)
        poll = now >= self._next_poll
        if poll:
            self._next_poll = now + 0.1
            self.attempts.check_log_is_in_place()
            self.zygotes.tick(now)
        for attempt in self.attempts.active():
            if attempt.kill_at is not None and now >= attempt.kill_at:
                if attempt.state == "ending":
                    self.running.shutdown.end(attempt)
                else:
                    attempt.kill_at = now + 5.0
                    kill_whole(attempt.pid, attempt.pid_started, self.paths.token(attempt))
            if attempt.deadline is not None and now >= attempt.deadline:
                attempt.deadline = None
                self.running.cancel(attempt, "timeout")
            if attempt.handed_at is not None:
                self.running.check_fork(attempt, now)
            if poll and attempt.is_polled:
                self.reaper.poll(attempt)
            if poll:
                self.reports.read(attempt, now)
                self.delivery.watch_streams(attempt)
        self._usage.tick(now)
        self.reaper.sweep(now)
        alone = self.controller.seconds_alone(now)
        if alone is not None:
            self.on_alone(alone)

    def on_alone(self, seconds: float) -> None:
        """Decide what to do without a controller. `seconds`: for how long there has been none."""
        lease = self.controller.lease
        if lease is not None and seconds > lease:
            for attempt in self.attempts:
                if attempt.final is None and attempt.cancel is None:
                    self.running.cancel(attempt, "cancelled", why="cancelled: its controller's lease ended")
        is_idle = not self.attempts.has_active and not self.queue and not self.attempts.has_unsynced
        if is_idle and seconds > IDLE_EXIT:
            self.end_mode = "keep"
        elif is_idle and seconds > UNGREETED_EXIT and self.controller.was_never_greeted and not any(self.attempts):
            self.end_mode = "remove"

    # -- the end -------------------------------------------------------------------------------------------------

    def _shut_down(self) -> None:
        self.reaper.sweep_now()
        self.controller.close()
        self.running.close_workers()
        self.zygotes.close()
        self.running.kill_workers()
        if self.queue.shares is not None:
            self.queue.shares.close()
        self.attempts.stop()
        self.background.stop()
        self._sync.stop()
        self.attempts.close()
        self._gpus.close()
        if self._listener is not None:
            self._listener.close()
        where = self.paths.where
        if self.end_mode == "remove":
            if not self._was_interrupted:
                self.zygotes.leave_warm()
                if self._leaves_fork_server:
                    # Otherwise the one that this agent was forked from waits on.
                    leave_fork_server(where.cache, self.paths.bundle, self.zygotes.warm_seconds())
            remove_spool(where.spool, self.zygotes)
            if where.runtime != where.spool:
                shutil.rmtree(where.runtime, ignore_errors=True)
            try:
                os.rmdir(os.path.dirname(where.spool))
            except OSError:
                pass  # another host entry of the same run has its spool next to ours


def remove_spool(spool: str, zygotes: Zygotes) -> None:
    """Remove the spool of a run that is over, but for files that jobs have left beside their code, and leave the code to later runs."""
    try:
        zygotes.left.set_aside()
    except OSError:
        traceback.print_exc()
        return  # nothing is removed, because these files may have no other copy
    zygotes.keep_code()
    try:
        remove_tree(spool)
    except OSError:
        traceback.print_exc()
    try:
        zygotes.left.put_back()
    except (OSError, SpoolError):
        traceback.print_exc()


def log_crash(path: str) -> None:
    """Write the traceback of an agent that failed to a file, which the next agent reports."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(time.strftime("%Y-%m-%d %H:%M:%S\n") + traceback.format_exc())
