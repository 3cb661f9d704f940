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
from remote_agent.agent.gpus import GpuPool
from remote_agent.agent.link.batching import Batching
from remote_agent.agent.link.controller import Controller
from remote_agent.agent.link.listener import Listener
from remote_agent.agent.queries import Queries
from remote_agent.agent.queue import JobQueue
from remote_agent.agent.reaper import Reaper
from remote_agent.agent.reports import Reports
from remote_agent.agent.running import RunningJobs
from remote_agent.agent.spool.attempts import Attempts
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.agent.zygotes.pool import Zygotes
from remote_agent.agent.zygotes.spare import Spare
from remote_agent.protocol.constants import HEARTBEAT
from remote_agent.protocol.messages import Finish, Hello
from remote_agent.shared.disk import remove_tree
from remote_agent.system.background import BackgroundThread
from remote_agent.system.host import Folders, boot_id
from remote_agent.system.private_files import make_private_folder
from remote_agent.system.processes import kill_whole

__all__ = ["Agent", "log_crash"]

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
        listener: socket.socket,
        bundle: str,
        umask: int,
        logout_notes: Sequence[str] = (),
        spare: Optional[Spare] = None,
    ) -> None:
        self._paths = paths = SpoolPaths(run, host, where, bundle, umask, boot_id())
        self._selector = selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        selector.register(self._wake_read, selectors.EVENT_READ, self._on_wake)
        for name in ("streams", "payload", "blobs", "logs", "reports"):
            make_private_folder(os.path.join(where.spool, name))
        self._controller = controller = Controller(
            paths, selector, self._on_hello, self._on_greeted, self._on_link_gone
        )
        self._listener = Listener(paths, listener, selector, controller.accept, controller.note)
        self._background = background = BackgroundThread(self._wake)
        self._zygotes = zygotes = Zygotes(paths, selector, background, controller, spare)
        self._attempts = attempts = Attempts(
            os.path.join(where.spool, "log"),
            paths.boot,
            self._wake,
            controller.note,
            # Lambdas, because these parts are made below: they need this one.
            lambda attempt: self._delivery.send_early(attempt),  # noqa: PLW0108
            lambda attempt: self._delivery.send(attempt),  # noqa: PLW0108
            lambda error: self._queue.spool_failed(error),  # noqa: PLW0108
            lambda: controller.say({"t": "opened"}),
            lambda attempt: self._reaper.fail_doubtful([attempt]),
        )
        self._gpus = gpus = GpuPool(run, controller.note, background)
        self._queue = JobQueue(attempts, zygotes, controller, gpus)
        self._reports = Reports(paths, attempts, self._queue, controller)
        self._running = RunningJobs(paths, selector, attempts, self._queue, zygotes, controller, gpus, self._reports)
        self._reaper = Reaper(
            paths, attempts, self._queue, zygotes, self._running, background, controller, self._reports
        )
        self._delivery = Delivery(paths, attempts, zygotes, background, controller)
        self._queue.start = self._running.start
        gpus.waiting_processes, gpus.end_waiting = self._running.waiting_pids, self._running.close_workers
        self._running.on_end = self._reaper.ended
        self._reaper.on_over = self._delivery.send_outputs
        zygotes.listener = self._reaper
        controller.on_query = Queries(paths, attempts).answer
        for note in logout_notes:
            controller.note_logout(note)
        controller.handlers.update(
            job=self._queue.on_job,
            cancel=self._running.on_cancel,
            stop=self._reports.on_stop,
            go=self._queue.on_go,
            take_back=self._queue.on_take_back,
            ack=self._delivery.on_ack,
            blob=zygotes.on_blob,
            blobs=zygotes.on_blobs,
            manifest=zygotes.on_manifest,
            prepare=zygotes.on_prepare,
            withheld=zygotes.on_withheld,
            ask_pythons=zygotes.environments.on_ask,
            environment=zygotes.environments.on_environment,
            finish=self._on_finish,
        )
        self._batching = Batching()
        #: Seconds for which waiting messages are held back.
        self._held_for = 0.0
        self._next_poll = 0.0
        self._end_mode: Optional[str] = None
        self._was_interrupted = False
        queued, doubtful = attempts.replay()
        self._queue.restore(queued)
        self._reaper.fail_doubtful(doubtful)
        for attempt in attempts.active():
            gpus.adopt(attempt.gpus or [])
        self._reaper.adopt()

    # -- the loop ------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Run until `finish`, or until nobody needs the agent."""
        try:
            while self._end_mode is None:
                self._turn(self._timeout())
            self._shut_down()
        finally:
            self._selector.close()

    def _turn(self, timeout: float) -> None:
        for key, mask in self._selector.select(timeout):
            handler: Callable[[Any, int], None] = key.data
            handler(key.fileobj, mask)
        self._tick(time.monotonic())
        self._queue.dispatch()
        self._attempts.flush()
        self._running.confirm_kept()
        self._send(time.monotonic())

    def _send(self, now: float) -> None:
        """Send waiting messages to the controller. While many short jobs wait, messages about several of them go together."""
        link = self._controller.link
        self._held_for = 0.0
        if link is not None and link.outbox:
            if self._queue and link.outbox.size < _SEND_AT_ONCE:
                self._held_for = self._batching.delay(now)
                if self._held_for:
                    return
            self._batching.note_sent(now)
        self._controller.pump()

    def _timeout(self) -> float:
        if self._held_for:
            return self._held_for
        active = self._attempts.active()
        if active and (self._controller.is_live or self._reports.is_reading):
            return 0.1
        if any(attempt.is_polled or attempt.kill_at or attempt.deadline for attempt in active):
            return 0.1
        return FIRST_REPORT if active else HEARTBEAT / 20

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"x")
        except BlockingIOError:
            pass  # the pipe is full, so the loop is awake already
        except OSError as error:
            if error.errno != errno.EBADF:
                raise

    def _on_wake(self, fd: int, mask: int) -> None:
        os.read(fd, 4096)
        self._attempts.synced()
        self._background.deliver()

    # -- the controller ------------------------------------------------------------------------------------------

    def _on_hello(self, hello: Hello) -> Dict[str, Any]:
        room = self._queue.count_slots(hello)
        self._zygotes.threads = self._queue.threads
        return {
            # The log's id shows whether this is still the same spool. If a spool was removed, its successor does not know its attempts.
            "boot_id": "{}/{}".format(self._paths.boot, self._attempts.log.id.hex()),
            "slots": max(self._queue.slots, 1),
            "too_small": self._queue.unusable_gpus or room.lacks(None),
            "room": None if self._queue.unusable_gpus else room.to_json(),
            "gpus": self._gpus.uuids,
            "states": {attempt.id: attempt.short_state() for attempt in self._attempts},
        }

    def _on_greeted(self) -> None:
        self._delivery.resend()
        self._zygotes.environments.announce()
        self._zygotes.announce_all()

    def _on_link_gone(self) -> None:
        self._zygotes.drop_partial()

    def _on_finish(self, header: Finish, payload: bytes) -> None:
        self._end_mode = "keep" if header["keep"] else "remove"
        self._was_interrupted = header["interrupted"]
        if header["interrupted"]:
            self._zygotes.leave_none()

    # -- time ----------------------------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        self._controller.tick(now)
        self._listener.tick(now)
        self._gpus.tick(now)
        poll = now >= self._next_poll
        if poll:
            self._next_poll = now + 0.1
            self._attempts.check_log_is_in_place()
            self._zygotes.tick(now)
        for attempt in self._attempts.active():
            if attempt.kill_at is not None and now >= attempt.kill_at:
                if attempt.state == "ending":
                    self._running.end_shutdown(attempt)
                else:
                    attempt.kill_at = now + 5.0
                    kill_whole(attempt.pid, attempt.pid_started, self._paths.token(attempt))
            if attempt.deadline is not None and now >= attempt.deadline:
                attempt.deadline = None
                self._running.cancel(attempt, "timeout")
            if attempt.handed_at is not None:
                self._running.check_fork(attempt, now)
            if poll and attempt.is_polled:
                self._reaper.poll(attempt)
            if poll:
                self._reports.read(attempt, now)
                self._delivery.watch_streams(attempt)
        self._reaper.sweep(now)
        alone = self._controller.seconds_alone(now)
        if alone is not None:
            self._on_alone(alone)

    def _on_alone(self, seconds: float) -> None:
        lease = self._controller.lease
        if lease is not None and seconds > lease:
            for attempt in self._attempts:
                if attempt.final is None and attempt.cancel is None:
                    self._running.cancel(attempt, "cancelled", why="cancelled: its controller's lease ended")
        is_idle = not self._attempts.has_active and not self._queue and not self._attempts.has_unsynced
        if is_idle and seconds > IDLE_EXIT:
            self._end_mode = "keep"
        elif is_idle and seconds > UNGREETED_EXIT and self._controller.was_never_greeted and not any(self._attempts):
            self._end_mode = "remove"

    # -- the end -------------------------------------------------------------------------------------------------

    def _shut_down(self) -> None:
        self._reaper.sweep_now()
        self._controller.close()
        self._running.close_workers()
        self._zygotes.close()
        self._running.kill_workers()
        if self._queue.shares is not None:
            self._queue.shares.close()
        self._attempts.stop()
        self._background.stop()
        self._attempts.close()
        self._gpus.close()
        self._listener.close()
        where = self._paths.where
        if self._end_mode == "remove":
            if not self._was_interrupted:
                self._zygotes.leave_warm()
            self._zygotes.keep_code()
            try:
                remove_tree(where.spool)
            except OSError:
                traceback.print_exc()
            if where.runtime != where.spool:
                shutil.rmtree(where.runtime, ignore_errors=True)
            try:
                os.rmdir(os.path.dirname(where.spool))
            except OSError:
                pass  # another host entry of the same run has its spool next to ours


def log_crash(path: str) -> None:
    """Write the traceback of an agent that failed to a file, which the next agent reports."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(time.strftime("%Y-%m-%d %H:%M:%S\n") + traceback.format_exc())
