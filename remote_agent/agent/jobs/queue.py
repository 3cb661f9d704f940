"""The queue: attempts that wait until the host has room for them. They are accepted, claimed, started, or given back.

Rule: an attempt starts only when its claim is on the disk, so that no power cut makes it start twice. A few attempts are claimed
before there is room for them, so that no job waits for the disk. A claim that finds no room for a long time is released: after a
power cut claimed attempts are lost, and where jobs are long, waiting for the disk costs little. Attempts that an earlier agent
accepted wait until the controller says `go`. Which of them has room, and in which order they start, says `remote_agent.shared.room`.
"""

import itertools
import time
from typing import Callable, List, Optional

from remote_agent.agent.link.controller import Controller
from remote_agent.agent.resources.cpus import Cpus
from remote_agent.agent.resources.gpus import GpuPool
from remote_agent.agent.resources.shares import Shares
from remote_agent.agent.spool.attempt import Attempt, failed_envelope
from remote_agent.agent.spool.attempts import Attempts
from remote_agent.agent.zygotes.client import ZygoteClient
from remote_agent.agent.zygotes.pool import Zygotes
from remote_agent.job import JobError
from remote_agent.protocol import wire
from remote_agent.protocol.fields import FieldError, is_sha256
from remote_agent.protocol.messages import Go, Hello, SendJob, Started, TakeBack
from remote_agent.protocol.result_parts import NO_PARTS
from remote_agent.protocol.specs.job import JobSpec
from remote_agent.protocol.specs.resources import Resources, Room
from remote_agent.shared.room import SizedQueue
from remote_agent.system.host import usable_cpus
from remote_agent.system.resources import memory_here, room_here, usable_cpu_ids

__all__ = ["JobQueue", "started"]

#: How many seconds of work are claimed ahead (as long as a few disk syncs take), and the largest number of attempts.
_AHEAD = 0.05
_MAX_AHEAD = 64
#: Jobs that take this many seconds are not claimed ahead. A claim that found no slot for this long is released.
_LONG = 10.0

#: Hands an attempt, whose slot is set, to its zygote.
Start = Callable[[Attempt, ZygoteClient], None]


class JobQueue:
    """The queue of a host, and what its jobs have of it. `start` is set by the agent."""

    def __init__(self, attempts: Attempts, zygotes: Zygotes, controller: Controller, gpus: GpuPool) -> None:
        self._attempts = attempts
        self._zygotes = zygotes
        self._controller = controller
        self._gpus = gpus
        self._queue: "SizedQueue[Attempt, Optional[Resources]]" = SizedQueue()
        self._is_held = False
        self._job_seconds = 1.0
        self._started_at = time.monotonic()
        #: None until the first controller has said hello.
        self.shares: Optional[Shares] = None
        #: Why the host does not have the GPUs that the user wants; empty if it has.
        self.unusable_gpus = ""
        #: The CPUs of a job that says nothing of itself; 0 if the run does not say it either.
        self.threads = 0
        self.start: Start = _no_start

    def __bool__(self) -> bool:
        return bool(self._queue)

    # -- the host ------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many more attempts could start now, besides those that wait, if they say nothing of what they need."""
        return max(0, self.shares.free - len(self._queue)) if self.shares is not None else 0

    @property
    def slots(self) -> int:
        """How many jobs run here at the same time that do not say what they need."""
        return self.shares.slots if self.shares is not None else 0

    def count_slots(self, hello: Hello) -> Room:
        """Set what the jobs may have, as the first controller asks for, and return it. Attempts that run already keep what they have. Nothing
        starts on a host that does not have the GPUs that the user wants.

        Raises:
            wire.ProtocolError: code `field`: the number of slots makes no sense.
            FieldError: the jobs' resources make no sense.
        """
        if self.shares is not None:
            return self.shares.room
        slots = hello["slots"]
        if not (slots is None or slots == "auto" or (isinstance(slots, int) and 1 <= slots <= 100_000)):
            raise wire.ProtocolError("field", "hello: slots are {!r}".format(slots))
        needs = None if hello["needs"] is None else Resources.from_json(hello["needs"])
        given = Resources.from_json(hello["size"] or {})
        self.threads = needs.cpus if needs is not None else 0
        self.unusable_gpus = self._gpus.choose(hello["gpus"])
        has = Resources(self._gpus.count, given.cpus or usable_cpus(), given.memory or memory_here())
        room = room_here(needs, has, slots)
        if self.unusable_gpus:
            return room
        cpus = usable_cpu_ids()
        self.shares = Shares(
            room,
            self._gpus,
            # If the user says that there are more CPUs than there are, no job has CPUs of its own.
            Cpus(cpus if has.cpus <= len(cpus) else []),
            is_sized=needs is not None,
        )
        self.shares.restore(self._attempts.active())
        return self.shares.room

    def threads_of(self, attempt: Attempt) -> int:
        """How many threads numerical libraries of a job should start; 0 for what they choose."""
        return self.shares.threads(attempt) if self.shares is not None else self.threads

    def retake_gpus(self, attempt: Attempt) -> None:
        """Lease the GPUs of an attempt again, whose process has ended, for its epilogue. It loses those that another run has taken since."""
        attempt.gpus = self._gpus.retake(attempt.gpus or [])

    def release_slot(self, attempt: Attempt) -> None:
        """Take back what an attempt has of the host: its process has ended, or it will not start."""
        has_run = attempt.slot is not None
        if self.shares is not None:
            self.shares.release(attempt)
        else:
            self._gpus.release(attempt.gpus or [])
        attempt.slot, attempt.gpus = None, None
        if has_run and attempt.begun_at is not None:
            self._job_seconds += 0.2 * (time.monotonic() - attempt.begun_at - self._job_seconds)

    # -- the queue -----------------------------------------------------------------------------------------------

    def restore(self, queued: List[Attempt]) -> None:
        """Queue the attempts that an earlier agent accepted and did not start. They wait until the controller says `go`."""
        for attempt in queued:
            self._queue.append(attempt, attempt.spec.needs)
        self._is_held = bool(queued)

    def on_go(self, header: Go, payload: bytes) -> None:
        """Let restored attempts start. The controller has cancelled those that it has given up in the meantime."""
        self._is_held = False

    def on_job(self, header: SendJob, payload: bytes) -> None:
        """Accept a job from the controller. A job that is known already, or was acknowledged, changes nothing."""
        spec, blob = JobSpec.from_json(header["spec"]), header["payload_blob"]
        if blob is not None and not is_sha256(blob):
            raise FieldError("job", "payload_blob", blob)
        attempt = Attempt(spec)
        if self._attempts.alive(attempt.id) or self._attempts.was_acknowledged(attempt.id):
            return
        attempt.payload_blob = blob
        accepted = {"spec": spec.to_json(), "blob": blob}
        attempt.payload = self._attempts.record(attempt, "accepted", accepted, payload)
        self._attempts.add(attempt)
        zygote = self._zygotes.get(spec.zygote)
        if zygote is not None and zygote.error is not None:
            self._fail(attempt, zygote.error)
            return
        if blob is not None and self._zygotes.unstored(blob):
            self._give_back(attempt, "spool: " + self._zygotes.unstored(blob), asked=False)
            return
        self._queue.append(attempt, spec.needs)

    def requeue(self, attempt: Attempt) -> None:
        """Put an attempt that was certainly not started back to the front of the queue."""
        self._attempts.record(attempt, "unstarted", {})
        self._attempts.ended(attempt)
        self.release_slot(attempt)
        attempt.state = "queued"
        attempt.deadline = attempt.handed_at = attempt.status = None
        attempt.pid, attempt.pid_started, attempt.is_reused, attempt.worker = None, "", False, None
        attempt.has_exited = attempt.is_polled = False
        self._queue.prepend(attempt, attempt.spec.needs)

    def cancel(self, attempt: Attempt, kind: str, why: str) -> None:
        """Cancel an attempt that waits."""
        self._queue.remove(attempt)
        self._attempts.record(attempt, "cancel", {"kind": kind})
        self._fail(attempt, JobError(kind, message=why or "{} before it started".format(kind)))

    def leave(self, attempt: Attempt) -> None:
        """Leave an attempt that waits to others. It never starts here, and the log shows that it has not."""
        self._queue.remove(attempt)
        if attempt.is_claimed or attempt.is_claiming:
            self._attempts.record(attempt, "unclaimed", {})
        self.release_slot(attempt)

    def on_take_back(self, header: TakeBack, payload: bytes) -> None:
        """Give back those of these attempts that have not started: another host is idle. For the others, say that they have started.

        The controller cancels attempts that it has back before it says `go`. So it does no harm if the host goes down before the
        log says that an attempt is gone.
        """
        asked = set(header["attempts"])
        # The controller knows of a recorded start, also where it did not come to a process.
        for attempt in [one for one in self._queue if one.id in asked and one.started_at is None]:
            self._queue.remove(attempt)
            self._give_back(attempt, "", asked=True)
        for attempt_id in header["attempts"]:
            attempt_here = self._attempts.get(attempt_id)
            if attempt_here is not None and attempt_here.started_at is not None:
                self._controller.say(started(attempt_here))

    def _give_back(self, attempt: Attempt, why: str, *, asked: bool) -> None:
        self.release_slot(attempt)
        self._attempts.remove(attempt, is_given_back=True)
        self._controller.say({"t": "dropped", "attempt": attempt.id, "why": why, "asked": asked, "again": False})

    def spool_failed(self, error: str) -> None:
        """Give all attempts that have not started back to the controller: another host may have a disk that works."""
        queued, self._queue = self._queue, SizedQueue()
        for attempt in queued:
            if attempt.started_at is not None:
                # The controller knows that it has started, and does not take it back.
                self._fail(attempt, JobError("host", message="spool: " + error))
                continue
            self._give_back(attempt, "spool: " + error, asked=False)

    def unusable(self, zygote: ZygoteClient, error: JobError) -> None:
        """Fail all attempts that wait for this zygote."""
        for attempt in [one for one in self._queue if one.spec.zygote == zygote.key]:
            self._queue.remove(attempt)
            self._fail(attempt, error)

    def _fail(self, attempt: Attempt, error: JobError) -> None:
        self.release_slot(attempt)
        self._attempts.record_final(attempt, failed_envelope(attempt, error, None), NO_PARTS, b"")

    # -- starting ------------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Claim ahead, and start what has room."""
        shares = self.shares
        if self._attempts.error or self._is_held or not self._queue or shares is None:
            return
        for attempt in shares.too_large(self._queue):
            self._queue.remove(attempt)
            self._fail(attempt, JobError("host", message=shares.room.lacks(attempt.spec.needs)))
        # An attempt may wait for a GPU that another run has for days, and should not be lost with the power meanwhile. So it has its GPUs
        # before it is claimed.
        chosen = shares.reserve(itertools.takewhile(self._zygote_of, shares.next(self._queue)))
        if not chosen and time.monotonic() - self._started_at > _LONG:
            self._release_claims()
        following = itertools.islice(self._queue, len(chosen) + self._claims_ahead(shares))
        for attempt in itertools.chain(chosen, following):
            if not attempt.is_claiming and not attempt.is_claimed and self._zygote_of(attempt) is not None:
                self._attempts.record_claim(attempt)
        for attempt in chosen:
            zygote = self._zygote_of(attempt)
            if zygote is None or not attempt.is_claimed or not shares.take(self._queue):
                break
            self._queue.remove(attempt)
            self._start(attempt, zygote)
            if attempt.state == "queued":
                break

    def _claims_ahead(self, shares: Shares) -> int:
        """How many attempts may be claimed before there is room for them."""
        if self._job_seconds >= _LONG:
            return 0
        return min(_MAX_AHEAD, max(shares.slots, 1) * (1 + int(_AHEAD / max(self._job_seconds, 0.001))))

    def _release_claims(self) -> None:
        """Release the claims for what comes next, because nothing has started for a long time.

        This needs no sync of its own: the claims hold until it is on the disk, and a new claim comes after it.
        """
        self._job_seconds = max(self._job_seconds, _LONG)
        for attempt in self._queue:
            if attempt.is_claimed:
                attempt.is_claimed = False
                self._attempts.record(attempt, "unclaimed", {})

    def _zygote_of(self, attempt: Attempt) -> Optional[ZygoteClient]:
        zygote = self._zygotes.get(attempt.spec.zygote)
        return zygote if zygote is not None and zygote.state == "ready" else None

    def _start(self, attempt: Attempt, zygote: ZygoteClient) -> None:
        self._started_at = time.monotonic()
        attempt.state = "claimed"
        attempt.begun_at = self._started_at
        attempt.started_at = time.time()
        share = {"slot": attempt.slot, "gpus": attempt.gpus, "cpus": attempt.cpus}
        self._attempts.record(attempt, "started", dict(share, at=attempt.started_at))
        if not self._attempts.write():
            # Its start is not recorded, so the attempt goes back to the controller with the rest of the queue.
            attempt.started_at = None
            self.requeue(attempt)
            self.spool_failed(self._attempts.error)
            return
        self._attempts.begun(attempt)
        timeout = attempt.spec.timeout
        attempt.deadline = attempt.begun_at + timeout if timeout else None
        self.start(attempt, zygote)


def started(attempt: Attempt) -> Started:
    """The message that an attempt has begun."""
    return {"t": "started", "attempt": attempt.id, "slot": attempt.slot or 0, "at": attempt.started_at or 0.0}


def _no_start(attempt: Attempt, zygote: ZygoteClient) -> None:
    raise RuntimeError("the queue is not connected to what starts jobs")
