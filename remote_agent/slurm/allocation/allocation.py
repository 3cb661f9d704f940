"""An agent in an allocation: it takes jobs out of the run's pool, and writes what becomes of them into a folder of its own.

Rule: it is the agent of a host, but for where jobs come from and where results go. It takes a job when a slot is free and the application is
prepared, and not before. It ends when it has nothing to do. When Slurm says that the allocation ends, it takes nothing more, and its jobs get
the time that their spec gives them. If a later start of the same Slurm job has begun, this one is fenced: it ends what runs, and writes nothing
that counts.
"""

import json
import os
import signal
import sys
import time
from typing import Any, Dict, List, Optional, Set, Tuple

from remote_agent.agent.agent import Agent
from remote_agent.agent.spool.attempt import Attempt
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.agent.zygotes.spare import Spare
from remote_agent.job import JobError
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.messages import Hello, SendJob
from remote_agent.protocol.specs.resources import Resources
from remote_agent.slurm.allocation.memory_deaths import MemoryDeaths
from remote_agent.slurm.allocation.node_environments import NodeEnvironments
from remote_agent.slurm.batch.batch import Batch, BatchError
from remote_agent.slurm.batch.classes import Lasting
from remote_agent.slurm.pool.heirs import OWED, bury_all, bury_own, inherit
from remote_agent.slurm.pool.incarnations import AGAIN, FOLDER, SETTLE, is_fenced
from remote_agent.slurm.pool.next_attempts import make_next
from remote_agent.slurm.pool.order import DONE, IDLE, NO_TIME, NOTHING, Order
from remote_agent.slurm.pool.pool import Pool
from remote_agent.slurm.pool.prepared import read_prepared
from remote_agent.slurm.shared_disk.lease import LEASE_ENDED, LeaseWatch
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from remote_agent.system.host import Folders, boot_id

__all__ = ["Allocation", "serve_allocation"]

#: Kinds of an end after which jobs that it has taken and not started do not go on elsewhere.
_FOR_GOOD = ("cancelled", "host")
#: Seconds between two looks at the pool, at requests to end something, and at later starts of the same Slurm job.
_LOOK_EVERY = 0.5
_FENCE_EVERY = 30.0
#: Seconds for Slurm to say why it ends an allocation, of those that it leaves until it kills.
_ANSWER = 3.0
#: For so much of what is then left, a job may go on after SIGTERM. The rest is for its end hooks.
_PART_OF_LEFT = 0.6
_LEAST_PATIENCE = 1.0
#: Seconds after the death of a job by SIGTERM within which Slurm's signal reaches this process, if it was Slurm's.
_EXPLAIN = 1.0
_ALL = 1 << 30


class Allocation(Agent):
    """See the module. `batch` says why the allocation ends."""

    def __init__(
        self,
        run: str,
        host: str,
        shared: Folders,
        bundle: str,
        umask: int,
        incarnation: str,
        order: Order,
        batch: Batch,
        spare: Optional[Spare] = None,
    ) -> None:
        self._shared = shared
        files = self._files = SharedFiles(shared.spool, incarnation)
        for folder in (FOLDER, OWED):
            files.make_folder(folder)
        own = files.make_folder(FOLDER, incarnation)
        self._pool = Pool(files, incarnation)
        if order.of:
            bury_all(files, self._pool, order.of, host, order.requeue, batch)
        bury_own(files, self._pool, incarnation, host, order.requeue, batch.why_before() or ("node_failed", AGAIN))
        _wait_for_owed(files, order.owed)
        paths = self.make_paths(run, host, Folders(shared.cache, own, own), bundle, umask)
        inherit(files, self._pool, paths, _ALL if order.of else order.slots)
        #: Attempts that it has taken to start them.
        self._taken: List[str] = []
        super().__init__(run, host, Folders(shared.cache, own, own), None, bundle, umask, spare=spare)
        self._name = incarnation
        self._order = order
        #: Attempts that nobody has taken; None if that must be looked up.
        self._waiting: Optional[List[str]] = None
        self._look_at = 0.0
        self._fence_at = 0.0
        self._stopped: Dict[str, Any] = {}
        self._asked: Set[str] = set()
        self._begun_at = self._busy_at = time.monotonic()
        #: Why it takes nothing more; empty while it does.
        self._closing = self._closing_kind = ""
        self._takes_no_more = ""
        #: The run is over, so no job follows.
        self._is_over = False
        self._has_left = False
        self._signal: Optional[int] = None
        self._batch = batch
        self._end_by: Optional[float] = None
        self._why_ended = "cancelled", "the allocation was ended from outside"
        self.reaper.on_over = self._over
        self.reaper.explain_kill = self._explain_kill
        self._memory = MemoryDeaths()
        self._on_node = NodeEnvironments(shared, run, host, batch.node(), self.wake, self._tell)
        self._lease = LeaseWatch(files, own)
        self.attempts.is_unexplained = self._is_unexplained
        self.attempts.is_read_elsewhere = True
        #: Until when the end of a job that a signal has ended waits for the reason.
        self._explain_by: Optional[float] = None
        self.controller.on_note = self._tell
        # Those that Slurm gave, and not all that are visible here: they may be others'.
        gpus = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one not in ("", "NoDevFiles")]
        hello: Hello = {
            "t": "hello",
            "version": 0,
            "run": run,
            "controller": "",
            "host": host,
            "slots": order.slots,
            "gpus": gpus,
            "needs": None,
            "size": None,
            "lease": None,
            "live": False,
            "batch": None,
            "sync": None,
            "holes": False,
        }
        part = order.part
        if part is not None:
            # GPUs that an option of sbatch asks for are for its jobs, too.
            part = part._replace(gpus=part.gpus if part.no_gpus else part.gpus or len(gpus) // order.slots)
            hello["needs"] = part.to_json()
            hello["size"] = Resources(0, part.cpus * order.slots, part.memory * order.slots).to_json()
        self.queue.count_slots(hello)
        self.zygotes.threads = self.queue.threads
        self.attempts.log.append({"r": "began", "node": batch.node(), "at": time.time(), "request": order.request})
        if self.queue.unusable_gpus:
            self.controller.note(self.queue.unusable_gpus)
            self._close(self.queue.unusable_gpus, "host")
        self.attempts.write()
        # The first turn finds what there is to do, and not the first second.
        self.wake()

    def make_paths(self, run: str, host: str, where: Folders, bundle: str, umask: int) -> SpoolPaths:
        """Make the paths of this agent. The run's contents lie in the folder of the run."""
        return SpoolPaths(run, host, where, bundle, umask, boot_id(), os.path.join(self._shared.spool, "blobs"))

    def on_signal(self, number: int, frame: Any) -> None:
        """Note that Slurm ends the allocation. The next turn acts on it."""
        self._signal = number
        self.wake()

    def on_alone(self, seconds: float) -> None:
        """Do nothing: no controller comes here."""

    # -- in each turn --------------------------------------------------------------------------------------------

    def look_around(self, now: float) -> None:
        """Take jobs, look at requests to end some, and end when there is nothing to do."""
        if self._signal is not None and not self._closing:
            self._end(now)
        elif self._explain_by is not None and now >= self._explain_by:
            self._explain("", "")
        if now >= self._look_at:
            self._look(now)
        if now >= self._fence_at:
            self._check_fence(now)
        self._see_environments(now)
        if self._waiting is None and (self._may_take or self._on_node.is_busy):
            self._waiting = self._pool.waiting(self._order.klass)
        while self._waiting and self._may_take and self.queue.room:
            self._check_fence(now)
            attempt = self._waiting.pop(0)
            if not self._closing and self._pool.take(attempt):
                self._accept(attempt)
        if self.attempts.has_active or self.queue:
            self._busy_at = now
        elif not self.attempts.has_unsynced and not self.attempts.has_unexplained and self.attempts.write():
            self._end_if_idle(now)
        if self.attempts.error and not self._takes_no_more:
            # What has not begun goes on in another one. What runs goes on here: its result waits for room.
            self._takes_no_more = "its disk could not be written ({})".format(self.attempts.error)

    def _look(self, now: float) -> None:
        """See on the shared disk what others want of this allocation."""
        self._look_at = now + _LOOK_EVERY
        self._stop_some()
        if self.reports.is_reading:
            # The submitter follows the log from another machine.
            self.attempts.bring_to_disk()
        if not self._closing and self._lease.is_over(now):
            self._end_lease()
        if not (self.attempts.has_active or self.queue):
            self._is_over = self._pool.is_over(self._order.turn)
        self._prepare()
        self._waiting = None
        for attempt in self._pool.settled():
            self._accept(attempt)

    @property
    def _may_take(self) -> bool:
        is_prepared = any(zygote.state in ("ready", "failed") for zygote in self.zygotes)
        if self._on_node.has_failed and self._taken:
            return False  # another node may be able to
        may_begin = not (self._closing or self._takes_no_more) and self._signal is None and self._has_time
        return is_prepared and may_begin and (self._order.most is None or len(self._taken) < self._order.most)

    @property
    def _has_time(self) -> bool:
        """Whether as much time is left as a job says that it takes. The first job always has it."""
        return not self._taken or self._order.lasting.allows(time.monotonic() - self._begun_at)

    def _accept(self, attempt: str) -> None:
        self._taken.append(attempt)
        frame = self._pool.job_of(attempt)
        if frame is None or frame.header["t"] != "job":
            return  # it was put in before it could be taken; the submitter finds that it has not begun
        header: SendJob = frame.header
        if self._order.part is not None:
            # Its class says it, and more: what `slurm:` has for what the job does not say.
            header = dict(header, spec=dict(header["spec"], needs=None))  # type: ignore[assignment]
        self._memory.began(attempt)
        self.queue.on_job(header, frame.payload)

    def _prepare(self) -> None:
        if self._has_left or self._on_node.is_busy or any(True for _ in self.zygotes):
            return
        for prepared in read_prepared(self._files):
            if prepared.node is None:
                self.zygotes.prepare(prepared)
            else:
                self._on_node.want(prepared)

    def _see_environments(self, now: float) -> None:
        """Prepare applications whose environment is on this node's disk now, or cannot be had there."""
        for prepared, lacking, is_new in self._on_node.tick(now):
            if is_new:
                self.zygotes.drop_spare()
            self.zygotes.prepare(prepared, lacking)

    def _tell(self, text: str) -> None:
        self.attempts.log.append({"r": "note", "text": text})

    def _over(self, attempt: Attempt) -> None:
        self.attempts.log.append({"r": "gone", "a": attempt.id})
        if not self.attempts.awaits_reason(attempt):
            self._see_end(attempt)

    def _explain_kill(self, attempt: Attempt, error: JobError) -> None:
        if self._memory.was_one(attempt.id):
            error.kind = "out_of_memory"
            error.message = "the kernel killed it, because it needed more memory than its allocation has"

    def _is_unexplained(self, attempt: Attempt, envelope: Envelope) -> bool:
        """Whether a signal of Slurm's may have ended a job: it sends them to jobs' processes, too, and in any order."""
        error = envelope.error
        if error is None or attempt.cancel is not None or self._closing:
            return False
        if self._signal is None and (error.kind, error.signal) != ("killed", signal.SIGTERM):
            return False
        if self._explain_by is None:
            self._explain_by = time.monotonic() + _EXPLAIN
        return True

    def _explain(self, kind: str, why: str) -> None:
        self._explain_by = None
        for attempt in self.attempts.explain(kind, why):
            if attempt.is_over:
                self._see_end(attempt)

    def _see_end(self, attempt: Attempt) -> None:
        error = attempt.final.envelope.error if attempt.final is not None else None
        if error is not None and attempt.id not in self._stopped:
            self._go_on(attempt, error.kind)

    def _go_on(self, attempt: Attempt, kind: str) -> None:
        """Make the next attempt, if one follows."""
        folder = self.paths.own_output(attempt) or ""
        # It may be for this allocation.
        self._look_at, self._waiting = 0.0, None
        try:
            make_next(self._pool, attempt.id, self.paths.host, kind, self._order.requeue, folder)
        except OSError as error:
            # Whoever reads the log of this allocation makes it.
            self.controller.note("job {}: its next attempt could not be made here: {}".format(attempt.id, error))

    def _end(self, now: float) -> None:
        """End because Slurm says so: as soon as it has said why, which it must soon. If nothing runs, nobody wants to know."""
        if not (self.attempts.has_active or self.queue or self.attempts.has_unexplained):
            kind, why = self._why_ended
            self._close(why, kind)
        elif self._end_by is None:
            self._end_by = now + _ANSWER
            found: List[Tuple[str, str]] = []
            job, _, restart = self._name.partition(".")

            def told(error: Optional[BaseException]) -> None:
                self._why_ended = found[0] if found else self._why_ended
                self._end_by = 0.0

            self.background.submit(lambda: found.append(self._batch.why(job, int(restart))), told)
        elif now >= self._end_by:
            kind, why = self._why_ended
            self._close(why, kind)

    # -- ending --------------------------------------------------------------------------------------------------

    def _stop_some(self) -> None:
        for attempt_id, stop in self._pool.stops().items():
            attempt = self.attempts.get(attempt_id)
            if attempt is not None and attempt.final is None and self._stopped.get(attempt_id) != stop:
                self._stopped[attempt_id] = stop
                self.running.cancel(attempt, stop.kind, stop.kill, stop.why)
        asked = [one for one in self._pool.asked() if one not in self._asked and one in self.attempts]
        self._asked.update(asked)
        if asked:
            self.reports.on_stop({"t": "stop", "attempts": asked}, b"")

    def _check_fence(self, now: float) -> None:
        self._fence_at = now + _FENCE_EVERY
        if not self._closing and is_fenced(self._name, self._files.names(FOLDER)):
            self._close("another start of the same Slurm job has begun", "lost")

    def _end_lease(self) -> None:
        """Cancel what runs here, and what waits for an allocation such as this one."""
        for attempt in self._pool.waiting(self._order.klass) if self._order.most != 0 else ():
            if self._pool.take(attempt):
                self._accept(attempt)
        self._close(LEASE_ENDED, "cancelled")

    def _close(self, why: str, kind: str) -> None:
        self._closing, self._closing_kind = why, kind
        self._explain(kind, why)
        for attempt in self.attempts:
            if attempt.final is not None:
                continue
            if attempt.state == "queued" and kind not in _FOR_GOOD:
                # It goes on elsewhere.
                self.queue.leave(attempt)
                self._go_on(attempt, "")
            else:
                self.running.cancel(attempt, kind, why=why)
                if attempt.kill_at is not None and self._signal is not None:
                    # What does not listen is killed while there is time for its end hooks.
                    attempt.kill_at = min(attempt.kill_at, time.monotonic() + self._patience(kind))

    def _patience(self, kind: str) -> float:
        warned, killed = self._order.left
        return max(_LEAST_PATIENCE, _PART_OF_LEFT * (warned if kind == "time_limit" else killed))

    def _end_if_idle(self, now: float) -> None:
        why = self._closing or self._takes_no_more
        order = self._order
        if not why and order.most is not None and len(self._taken) >= order.most:
            why = DONE
        elif not why and not self._has_time:
            why = NO_TIME
        elif not why and self._on_node.has_failed and self._taken:
            why = "the environment of its jobs cannot be built on its node"
        elif not why and self._waiting == []:
            sees_all = len({*self._pool.all_attempts(), *self._pool.takers()}) >= order.expects
            # One that came too late for any job is not needed.
            patience = max(order.idle if order.most is None and self._taken else 0.0, 0.0 if sees_all else SETTLE)
            if self._is_over or now - self._busy_at >= patience:
                why = NOTHING
        if not why:
            return
        self.reaper.sweep_now()
        self._on_node.close()
        if not self._has_left:
            self._closing, self._has_left = why, True
            self.attempts.log.append({"r": "left", "why": why})
        if not self.attempts.write():
            return
        try:
            self.attempts.log.sync()
        except OSError:
            return  # it is tried again: without it, nobody knows how its jobs have ended
        self.end_mode = "keep"
        if self._closing_kind == "preempted" and self._pool.waiting(self._order.klass):
            try:
                self._batch.go_again(self._name.partition(".")[0])
            except BatchError as error:
                # The submitter asks for another one, if one is there.
                sys.stderr.write("this allocation is not started again: {}\n".format(error))


def _wait_for_owed(files: SharedFiles, count: int) -> None:
    """Wait until a late disk shows what was owed when this allocation was asked for."""
    deadline = time.monotonic() + SETTLE
    while len(files.names(OWED)) < count and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY)


def serve_allocation(
    run: str,
    host: str,
    shared: Folders,
    bundle: str,
    incarnation: str,
    batch: Batch,
    spare: Optional[Spare],
    options: Dict[str, str],
) -> int:
    """Be the agent of the allocation in which this process runs, until it has nothing to do. See `beginning`."""
    agent = Allocation(
        run,
        host,
        shared,
        bundle,
        int(options["umask"]),
        incarnation,
        Order(
            slots=int(options["slots"]),
            most=0 if "of" in options else int(options["most"]) or None,
            klass=options["class"],
            part=Resources.from_json(json.loads(options["part"])) if "part" in options else None,
            expects=int(options["expects"]),
            owed=int(options["owed"]),
            idle=float(options.get("idle", IDLE)),
            request=options["request"],
            requeue=json.loads(options["requeue"]),
            of=tuple(json.loads(options.get("of", "[]"))),
            lasting=Lasting(*json.loads(options.get("lasting", "[]"))),
            left=tuple(json.loads(options.get("left", "[60.0, 30.0]"))),
            turn=int(options.get("turn", "0")),
        ),
        batch,
        spare,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, agent.on_signal)
    signal.signal(signal.SIGCONT, lambda number, frame: None)
    agent.serve()
    return 0
