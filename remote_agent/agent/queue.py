"""The queue: attempts that wait for a slot. They are accepted, claimed, started in order, or given back.

Rule: an attempt starts only when its claim is on the disk, so that no power cut makes it start twice. A few attempts are claimed
before there is a slot for them, so that no job waits for the disk. A claim that finds no slot for a long time is released: after a
power cut claimed attempts are lost, and where jobs are long, waiting for the disk costs little. Attempts that an earlier agent
accepted wait until the controller says `go`.
"""

import itertools
import time
from collections import deque
from typing import Callable, Deque, Dict, List, Optional

from remote_agent.agent.link.controller import Controller
from remote_agent.agent.spool.attempt import Attempt, failed_envelope
from remote_agent.agent.spool.attempts import Attempts
from remote_agent.agent.zygotes.client import ZygoteClient
from remote_agent.agent.zygotes.pool import Zygotes
from remote_agent.job import JobError
from remote_agent.protocol import wire
from remote_agent.protocol.fields import FieldError, is_sha256
from remote_agent.protocol.job_spec import JobSpec
from remote_agent.protocol.messages import Go, Hello, SendJob, Started, TakeBack
from remote_agent.protocol.resources import Resources
from remote_agent.protocol.result_parts import NO_PARTS
from remote_agent.system.host import choose_gpus, count_slots, usable_cpus
from remote_agent.system.resources import Slot, divide, memory_here, usable_cpu_ids

__all__ = ["JobQueue", "started"]

#: How many seconds of work are claimed ahead (as long as a few disk syncs take), and the largest number of attempts.
_AHEAD = 0.05
_MAX_AHEAD = 64
#: Jobs that take this many seconds are not claimed ahead. A claim that found no slot for this long is released.
_LONG = 10.0

#: Hands an attempt, whose slot is set, to its zygote.
Start = Callable[[Attempt, ZygoteClient], None]


class JobQueue:
    """The queue and the slots of a host. `start` is set by the agent."""

    def __init__(self, attempts: Attempts, zygotes: Zygotes, controller: Controller) -> None:
        self._attempts = attempts
        self._zygotes = zygotes
        self._controller = controller
        self._queue: Deque[Attempt] = deque()
        self._slots: List[Slot] = []
        self._free: List[int] = []
        self._is_held = False
        self._job_seconds = 1.0
        self._started_at = time.monotonic()
        self.gpus: List[str] = []
        #: Why no job of this run's size can run here; empty if one can.
        self.too_small = ""
        #: The CPUs of a job; 0 if the run does not say it.
        self.threads = 0
        self.start: Start = _no_start

    def __bool__(self) -> bool:
        return bool(self._queue)

    # -- slots ---------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many slots are free and have no attempt that waits for them."""
        return max(0, len(self._free) - len(self._queue))

    @property
    def slots(self) -> int:
        """How many jobs run here at the same time."""
        return len(self._slots)

    def count_slots(self, hello: Hello) -> None:
        """Set the slots that the first controller asks for. Attempts that run already keep theirs.

        Raises:
            wire.ProtocolError: code `field`: the number of slots makes no sense.
            FieldError: the jobs' resources make no sense.
        """
        if self._slots:
            return
        slots, gpus = hello["slots"], hello["gpus"]
        if not (slots is None or slots == "auto" or (isinstance(slots, int) and 1 <= slots <= 100_000)):
            raise wire.ProtocolError("field", "hello: slots are {!r}".format(slots))
        if hello["needs"] is None:
            environments, self.gpus = count_slots(slots, gpus)
            self._slots = [Slot(one, []) for one in environments]
        else:
            needs, given = Resources.from_json(hello["needs"]), Resources.from_json(hello["size"] or {})
            self.gpus, self.threads = choose_gpus(gpus), needs.cpus
            self._slots, self.too_small = divide(
                needs,
                given,
                self.gpus,
                usable_cpu_ids(),
                usable_cpus(),
                memory_here(),
                slots if isinstance(slots, int) else None,
            )
        taken = {attempt.slot for attempt in self._attempts.active()}
        self._free = [slot for slot in range(len(self._slots)) if slot not in taken]

    def environment(self, attempt: Attempt) -> Dict[str, str]:
        """The environment variables of the attempt's slot."""
        return dict(self._slot(attempt).environment)

    def cpus(self, attempt: Attempt) -> List[int]:
        """The CPUs of the attempt's slot; empty for all."""
        return self._slot(attempt).cpus

    def _slot(self, attempt: Attempt) -> Slot:
        slot = attempt.slot
        return self._slots[slot] if slot is not None and slot < len(self._slots) else Slot({}, [])

    def release_slot(self, attempt: Attempt) -> None:
        """Free the slot of an attempt whose process has ended."""
        if attempt.slot is None:
            return
        if attempt.slot < len(self._slots):
            self._free.append(attempt.slot)
        attempt.slot = None
        if attempt.begun_at is not None:
            self._job_seconds += 0.2 * (time.monotonic() - attempt.begun_at - self._job_seconds)

    # -- the queue -----------------------------------------------------------------------------------------------

    def restore(self, queued: List[Attempt]) -> None:
        """Queue the attempts that an earlier agent accepted and did not start. They wait until the controller says `go`."""
        self._queue.extend(queued)
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
        self._queue.append(attempt)

    def requeue(self, attempt: Attempt) -> None:
        """Put an attempt that was certainly not started back to the front of the queue."""
        self._attempts.record(attempt, "unstarted", {})
        self._attempts.ended(attempt)
        self.release_slot(attempt)
        attempt.state = "queued"
        attempt.deadline = attempt.handed_at = attempt.status = None
        attempt.pid, attempt.pid_started, attempt.is_reused, attempt.worker = None, "", False, None
        attempt.has_exited = attempt.is_polled = False
        self._queue.appendleft(attempt)

    def cancel(self, attempt: Attempt, kind: str, why: str) -> None:
        """Cancel an attempt that waits."""
        self._queue.remove(attempt)
        self._attempts.record(attempt, "cancel", {"kind": kind})
        self._fail(attempt, JobError(kind, message=why or "{} before it started".format(kind)))

    def on_take_back(self, header: TakeBack, payload: bytes) -> None:
        """Give back those of these attempts that have not started: another host is idle. For the others, say that they have started.

        The controller cancels attempts that it has back before it says `go`. So it does no harm if the host goes down before the
        log says that an attempt is gone.
        """
        asked = set(header["attempts"])
        given: List[Attempt] = []
        kept: List[Attempt] = []
        for attempt in self._queue:
            # The controller knows of a recorded start, also where it did not come to a process.
            (given if attempt.id in asked and attempt.started_at is None else kept).append(attempt)
        self._queue = deque(kept)
        for attempt in given:
            self._give_back(attempt, "", asked=True)
        for attempt_id in header["attempts"]:
            attempt_here = self._attempts.get(attempt_id)
            if attempt_here is not None and attempt_here.started_at is not None:
                self._controller.say(started(attempt_here))

    def _give_back(self, attempt: Attempt, why: str, *, asked: bool) -> None:
        self._attempts.remove(attempt, is_given_back=True)
        self._controller.say({"t": "dropped", "attempt": attempt.id, "why": why, "asked": asked})

    def spool_failed(self, error: str) -> None:
        """Give all attempts that have not started back to the controller: another host may have a disk that works."""
        queued, self._queue = self._queue, deque()
        for attempt in queued:
            if attempt.started_at is not None:
                # The controller knows that it has started, and does not take it back.
                self._fail(attempt, JobError("host", message="spool: " + error))
                continue
            self._give_back(attempt, "spool: " + error, asked=False)

    def unusable(self, zygote: ZygoteClient, error: JobError) -> None:
        """Fail all attempts that wait for this zygote."""
        queued, self._queue = self._queue, deque()
        for attempt in queued:
            if attempt.spec.zygote == zygote.key:
                self._fail(attempt, error)
            else:
                self._queue.append(attempt)

    def _fail(self, attempt: Attempt, error: JobError) -> None:
        self._attempts.record_final(attempt, failed_envelope(attempt, error, None), NO_PARTS, b"")

    # -- starting ------------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Claim ahead, and start what can be started."""
        if self._attempts.error or self._is_held or not self._queue:
            return
        if not self._free and self._queue[0].is_claimed and time.monotonic() - self._started_at > _LONG:
            self._release_claims()
        for attempt in itertools.islice(self._queue, len(self._free) + self._claims_ahead()):
            if not attempt.is_claiming and not attempt.is_claimed and self._zygote_of(attempt) is not None:
                self._attempts.record_claim(attempt)
        while self._free and self._queue and self._queue[0].is_claimed:
            zygote = self._zygote_of(self._queue[0])
            if zygote is None:
                break
            self._start(self._queue.popleft(), zygote)

    def _claims_ahead(self) -> int:
        """How many attempts may be claimed before there is a slot for them."""
        if self._job_seconds >= _LONG:
            return 0
        return min(_MAX_AHEAD, len(self._slots) * (1 + int(_AHEAD / max(self._job_seconds, 0.001))))

    def _release_claims(self) -> None:
        """Release the claims for the next slots, because nothing has started for a long time.

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
        attempt.slot = self._free.pop(0)
        self._started_at = time.monotonic()
        attempt.state = "claimed"
        attempt.begun_at = self._started_at
        attempt.started_at = time.time()
        self._attempts.record(attempt, "started", {"slot": attempt.slot, "at": attempt.started_at})
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
