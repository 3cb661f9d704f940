"""The controller's end of a Slurm run, on a login node: it speaks to the controller as an agent does, and stays only as long as the link.

Rule: it holds nothing that is not on the shared disk. It puts jobs into the pool, asks Slurm for allocations (`asking`), follows the logs of
those that began, and says what became of jobs whose allocation died (`following`). It runs no code of the user's, and none of its processes
outlives the link. It reads the logs of the submitters before it, and writes its own (`submitter_log`).
"""

import errno
import functools
import os
import select
import selectors
import socket
import time
from array import array
from typing import Any, Dict, List, Optional

from remote_agent.agent.agent import remove_spool
from remote_agent.agent.environments.on_nodes import own_folder
from remote_agent.agent.link.controller import Controller
from remote_agent.agent.output_sync import OutputSync
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.agent.zygotes.client import ZygoteClient
from remote_agent.agent.zygotes.pool import Prepared, ZygoteListener, Zygotes
from remote_agent.agent.zygotes.spare import spare_of
from remote_agent.job import JobError
from remote_agent.protocol import messages
from remote_agent.protocol.messages import Cancel, Finish, Go, Hello, SendJob, TakeBack
from remote_agent.protocol.specs.job import JobSpec
from remote_agent.protocol.specs.resources import Resources, Room
from remote_agent.slurm.batch.batch import Batch, Listed, Phase
from remote_agent.slurm.batch.classes import DEFAULT, class_of, is_alone, takes_many
from remote_agent.slurm.pool.heirs import OWED
from remote_agent.slurm.pool.incarnations import Incarnations
from remote_agent.slurm.pool.next_attempts import agree
from remote_agent.slurm.pool.pool import Pool, Stop
from remote_agent.slurm.pool.prepared import PREPARED, write_prepared
from remote_agent.slurm.shared_disk.disk_watch import DiskWatch
from remote_agent.slurm.shared_disk.lease import Lease
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from remote_agent.slurm.shared_disk.turns import Turn
from remote_agent.slurm.submitter.asking import MOST, Asking
from remote_agent.slurm.submitter.demand import ShortJobs
from remote_agent.slurm.submitter.following import SUBMITTER, Following
from remote_agent.slurm.submitter.pace import LookPace
from remote_agent.slurm.submitter.submitter_log import SubmitterLog
from remote_agent.system.background import BackgroundThread
from remote_agent.system.host import Folders, boot_id
from remote_agent.system.private_files import make_private_folder, told_replaceable

__all__ = ["Submitter"]

#: Seconds that a turn of the loop waits at most.
_TIMEOUT = 0.25
#: The same while files of running jobs are sent.
_SYNC_TIMEOUT = 0.1
#: For so many seconds it goes on without a controller, until Slurm has been asked for what the jobs need.
_ASK_PATIENCE = 60.0
#: More than a node has of anything.
_ANY = 1 << 50
#: Seconds for which the end of a run waits for its allocations to end.
_FINISH = 60.0
#: What has nothing to do has so many seconds of these to end by itself.
_BY_ITSELF = 20.0
_FINISH_LOOK_EVERY = 1.0


class Submitter(ZygoteListener):
    """The select loop. `serve` returns when the link is gone, or the run over."""

    def __init__(self, run: str, host: str, where: Folders, bundle: str, umask: int, batch: Batch) -> None:
        self._paths = paths = SpoolPaths(run, host, where, bundle, umask, boot_id())
        self._batch = batch
        self._selector = selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        selector.register(self._wake_read, selectors.EVENT_READ, self._on_wake)
        for name in ("streams", "payload", "blobs", "logs", "allocations"):
            make_private_folder(os.path.join(where.spool, name))
        self._controller = controller = Controller(paths, selector, self._on_hello, self._on_greeted, self._on_gone)
        for note in told_replaceable((where.cache, where.spool)):
            controller.note(note)
        self._background = background = BackgroundThread(self._wake)
        #: Slurm's programs may take seconds, and must not wait for a disk.
        self._asks = BackgroundThread(self._wake)
        self._files = files = SharedFiles(where.spool, "{}{}".format(SUBMITTER, os.urandom(6).hex()))
        for name in (PREPARED, OWED):
            files.make_folder(name)
        self._turn_taken = turn = Turn(files)
        self._pool = pool = Pool(files, files.writer)
        self._lease = Lease(files)
        self._incarnations = incarnations = Incarnations(files)
        self._zygotes = zygotes = Zygotes(paths, selector, background, controller)
        zygotes.publish = self._publish
        zygotes.listener = self
        self._is_prepared = False
        #: What a job needs that says nothing itself; None if the run does not say it either.
        self._needs: Optional[Resources] = None
        self._log = log = SubmitterLog(turn, _is_wanted)
        self._following = Following(paths, files, log, pool, incarnations, zygotes, background, controller)
        self._asking = Asking(
            paths, files, log, pool, incarnations, self._following, batch, self._asks, controller.note, turn.number
        )
        self._following.on_need = self._asking.at_once
        self._following.on_next = self._asking.look
        self._pace = LookPace()
        self._sync = OutputSync(
            self._following.active,
            self._following.output_folder,
            controller,
            lambda: BackgroundThread(self._wake),
            self._pace,
        )
        controller.handlers["pong"] = self._sync.on_pong
        self._disk = DiskWatch(files.path(".{}.try".format(files.writer)), background, controller.note)
        self._asking.on_taken = self._on_news
        self._is_live = False
        #: A controller has said what holds for the run. Before, nothing can be decided.
        self._has_hello = False
        self._look_at = 0.0
        self._is_polling = False
        self._finish_by: Optional[float] = None
        #: When allocations that run are cancelled, if they have not ended by themselves.
        self._cancel_at: Optional[float] = None
        self._is_kept = False
        self._is_over = False

    # -- the loop ------------------------------------------------------------------------------------------------

    def serve(self) -> int:
        """Serve the controller on stdin and stdout. Returns the exit code."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._controller.take(ours)
        theirs.sendmsg([b"c"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [0, 1]))])
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1):
            os.dup2(null, fd)
        while not self._is_over and self._controller.has_links:
            ready = self._selector.select(self._timeout(time.monotonic()))
            # This process may have been stopped for long. So this comes before everything that it may write.
            if self._turn_taken.is_over:
                break
            for key, mask in ready:
                key.data(key.fileobj, mask)
            self._turn(time.monotonic())
        self._sync.stop()
        # What is being built for jobs goes on when the next submitter comes.
        self._zygotes.environments.close()
        if self._is_over and not self._is_kept:
            self._remove()
        else:
            if not self._is_over and not self._turn_taken.is_over:
                self._ask_the_rest()
                self._asking.leave()
            self._log.record("left")
        self._controller.close()
        return 0

    def _ask_the_rest(self) -> None:
        """Ask for the allocations of the jobs that are here. The controller may have left right after it had sent them."""
        give_up = time.monotonic() + _ASK_PATIENCE
        while self._is_prepared and not self._turn_taken.is_over:
            now = time.monotonic()
            if now >= give_up or not self._asking.is_due(now):
                break
            for key, mask in self._selector.select(_TIMEOUT):
                key.data(key.fileobj, mask)
            self._turn_taken.touch(now)
            self._asking.tick(now, is_prepared=True)
            self._log.file.flush()

    def _timeout(self, now: float) -> float:
        waits = [_TIMEOUT, self._pace.at - now] if self._has_hello and self._finish_by is None else [_TIMEOUT]
        if self._sync.is_busy:
            waits.append(_SYNC_TIMEOUT)
        asks = self._asking.due_in(now)
        return max(0.0, min(waits if asks is None else [*waits, asks]))

    def _on_news(self) -> None:
        self._pace.news(time.monotonic())

    def _turn(self, now: float) -> None:
        self._turn_taken.touch(now)
        self._lease.touch(now)
        self._controller.tick(now)
        self._zygotes.tick(now)
        if self._finish_by is not None:
            self._finish(now)
            self._controller.pump()
            return
        if now >= self._pace.at and self._has_hello:
            self._look(now)
        self._sync.tick(now)
        self._disk.tick(now)
        self._asking.tick(now, is_prepared=self._is_prepared and not self._disk.error)
        self._log.file.flush()
        self._controller.pump()

    def _look(self, now: float) -> None:
        if self._following.follow(now):
            self._pace.news(now)
        if self._is_live:
            self._following.watch_streams()
        logs = sum(1 for one in self._incarnations if one.has_begun and not one.is_over)
        self._pace.looked(now, time.monotonic(), logs)

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"x")
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EBADF):
                raise

    def _on_wake(self, fd: int, mask: int) -> None:
        os.read(fd, 4096)
        self._background.deliver()
        self._asks.deliver()
        if self._sync.thread is not None:
            self._sync.thread.deliver()

    # -- the controller ------------------------------------------------------------------------------------------

    def _on_hello(self, hello: Hello) -> Dict[str, Any]:
        self._lease.grant(hello["lease"], time.monotonic())
        options = self._asking.requests.options = dict(hello["batch"] or {})
        self._zygotes.environments.nodes = str(options.get("environments") or "")
        self._needs = None if hello["needs"] is None else Resources.from_json(hello["needs"])
        self._following.short_jobs = None if takes_many(options) or is_alone(DEFAULT, options) else ShortJobs()
        self._following.requeue = self._asking.requests.requeue = agree(self._files, options.get("requeue"))
        self._controller.handlers.update(
            job=self._on_job,
            cancel=self._on_cancel,
            stop=self._on_stop,
            go=self._on_go,
            take_back=self._on_take_back,
            ack=self._following.on_ack,
            blob=self._zygotes.on_blob,
            blobs=self._zygotes.on_blobs,
            manifest=self._zygotes.on_manifest,
            prepare=self._zygotes.on_prepare,
            withheld=self._zygotes.on_withheld,
            ask_pythons=self._zygotes.environments.on_ask,
            environment=self._zygotes.environments.on_environment,
            finish=self._on_finish,
        )
        self._has_hello = True
        self._following.follow(time.monotonic(), is_quiet=True)
        self._is_live = hello["live"]
        return {
            "boot_id": "slurm/{}".format(self._turn_taken.run_id),
            "slots": MOST,
            "too_small": "",
            # Slurm knows what its nodes have.
            "room": Room(Resources(_ANY, _ANY, _ANY, nodes=_ANY), Resources(0, 0, 0), 0).to_json(),
            "gpus": [],
            "states": self._following.states(),
        }

    def _on_greeted(self) -> None:
        self._following.resend()
        self._asking.greet()

    def _on_gone(self) -> None:
        self._zygotes.drop_partial()

    def _on_go(self, header: Go, payload: bytes) -> None:
        """Do nothing: what waits in the pool is not held back."""

    def _on_job(self, header: SendJob, payload: bytes) -> None:
        spec = JobSpec.from_json(header["spec"])
        if spec.attempt_id in self._log.acked:
            return
        if spec.attempt_id in self._log.back:
            again = self._following.is_followed(spec.attempt_id)
            self._controller.say(
                {"t": "dropped", "attempt": spec.attempt_id, "why": "", "asked": False, "again": again}
            )
            return
        self._pool.put(class_of(spec.needs or self._needs), spec.attempt_id, header, payload)
        self._following.on_given(spec.attempt_id)
        self._asking.soon(is_last=header["last"])

    def _on_take_back(self, header: TakeBack, payload: bytes) -> None:
        for attempt in header["attempts"]:
            if self._pool.take(attempt):
                self._following.give_back(attempt, "", asked=True)

    def _on_cancel(self, header: Cancel, payload: bytes) -> None:
        every = self._pool.all_attempts() if header["attempts"] is None else header["attempts"]
        stop = Stop(header["kind"], header["kill"], header["why"])
        for attempt in every:
            self._wake_taker(self._following.stop(attempt, stop))

    def _on_stop(self, header: messages.Stop, payload: bytes) -> None:
        for attempt in header["attempts"]:
            # Its allocation looks twice a second. It reports when it wants to, so Slurm is not asked to hurry.
            self._following.ask(attempt)

    def _wake_taker(self, taker: str) -> None:
        if taker:
            # Without it, the allocation sees the request a moment later.
            self._asks.submit(functools.partial(self._batch.wake, taker.partition(".")[0]), lambda error: None)

    # -- content -------------------------------------------------------------------------------------------------

    def _publish(self, prepared: Prepared) -> None:
        if prepared.node is not None:
            where = own_folder(prepared.node["named"])
            self._controller.note("slurm: each node builds the environment in {}, unless it is there".format(where))
        write_prepared(self._files, prepared)
        self._is_prepared = True
        self._asking.requests.spare = spare_of(prepared.spec)
        # All that allocations need is here, so a controller that leaves need not wait any longer.
        self._controller.say(
            {
                "t": "zygote",
                "zygote": prepared.key,
                "state": "ready",
                "error": None,
                "python": "",
                "isolation": "",
                "why": "",
                "notes": [],
                "imported": None,
            }
        )

    def unusable(self, zygote: ZygoteClient, error: JobError) -> None:
        """Fail the jobs that wait for what cannot be made here, such as an environment. No allocation is asked for them."""
        for attempt in self._pool.all_attempts():
            frame = self._pool.job_of(attempt)
            if frame is not None and frame.header["t"] == "job" and frame.header["spec"]["zygote"] == zygote.key:
                self._following.fail_waiting(attempt, error)

    # -- the end -------------------------------------------------------------------------------------------------

    def _on_finish(self, header: Finish, payload: bytes) -> None:
        self._is_kept = header["keep"]
        now = time.monotonic()
        self._finish_by = now + _FINISH
        self._look_at = now + _FINISH_LOOK_EVERY
        # An allocation that Slurm lists as cancelled looks like a failure, though its job has completed.
        is_idle = not self._following.states() and self._tell_over()
        self._cancel_at = now + _BY_ITSELF if is_idle else None
        self._cancel(waiting_only=is_idle)

    def _tell_over(self) -> bool:
        """Tell allocations that nothing follows. Returns whether that is certain."""
        try:
            self._pool.end(self._turn_taken.number)
        except OSError:
            return False
        return True

    def _cancel(self, *, waiting_only: bool) -> None:
        names = self._asking.names
        self._asks.submit(lambda: self._batch.cancel(names, waiting_only=waiting_only), self._on_finish_asked)

    def _on_finish_asked(self, error: Optional[BaseException]) -> None:
        if error is not None:
            self._leave_folder("allocations of the run may be left ({})".format(error))

    def _finish(self, now: float) -> None:
        """End when no allocation writes to the run's folder any more."""
        assert self._finish_by is not None
        if self._cancel_at is not None and now >= self._cancel_at:
            self._cancel_at = None
            self._cancel(waiting_only=False)
        if now >= self._finish_by:
            self._leave_folder("allocations of the run have not ended yet")
        elif not self._is_polling and now >= self._look_at:
            self._is_polling = True
            found: List[Listed] = []
            names = self._asking.names
            self._asks.submit(
                lambda: found.extend(self._batch.listed(names)), functools.partial(self._on_finish_polled, found)
            )

    def _on_finish_polled(self, found: List[Listed], error: Optional[BaseException]) -> None:
        self._is_polling = False
        self._look_at = time.monotonic() + _FINISH_LOOK_EVERY
        if error is not None:
            self._leave_folder("whether allocations of the run are left is not known ({})".format(error))
        elif all(one.phase is Phase.ENDED for one in found):
            self._is_over = True

    def _leave_folder(self, why: str) -> None:
        """End, and leave what allocations may still write to."""
        self._controller.note(
            "slurm: {}; 'squeue --me' lists them, and 'launcher clean' removes {} later".format(why, self._paths.spool)
        )
        self._is_kept = self._is_over = True

    def _remove(self) -> None:
        self._background.stop()
        self._log.file.close()
        remove_spool(self._paths.spool, self._zygotes)
        try:
            os.rmdir(os.path.dirname(self._paths.spool))
        except OSError:
            pass  # another host entry of the same run has its spool next to ours


def _is_wanted() -> bool:
    """Whether the channel on stdin is still open at the other side."""
    poll = select.poll()
    poll.register(0, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
    return not poll.poll(0)
