"""One attempt as the agent sees it, and how an end without a result becomes an error.

Rule: an attempt goes queued -> claimed -> running -> ending -> final, and `final` is set once. In `ending` the result is there and the
process shuts down; its output is collected after that. An attempt goes back to `queued` only if it was certainly not
started. `is_claimed` says that the claim is on the disk: from then on the attempt starts here or nowhere.
"""

import os
import signal
from collections import deque
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Tuple, TypeVar

from remote_agent.agent.spool.log import Reference
from remote_agent.job import JobError, ResourcesUsed
from remote_agent.protocol import wire
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.result_parts import ResultParts
from remote_agent.protocol.specs.held import HeldFile
from remote_agent.protocol.specs.job import JobSpec
from remote_agent.system.gpus import GpuUse
from remote_agent.system.process_use import ProcessUse

__all__ = ["Attempt", "KeptReports", "Recorded", "Seen", "error_of_status", "failed_envelope", "greatest"]


#: How many reports of an attempt are kept.
MAX_REPORTS = 1000


class Recorded(NamedTuple):
    """How a job ended, as the log has it. `reference`: the record that carries the bytes of the result."""

    envelope: Envelope
    parts: ResultParts
    reference: Optional[Reference]


class KeptReports:
    """The last reports of an attempt.

    Attributes:
        kept: (number, record) of each, in order.
        sent: the number of the last one that was sent over the present link.
        places: ring -> the number of its last record that was kept.
        latest: the time of the latest one, by the host's clock.
    """

    def __init__(self) -> None:
        self.kept: Deque[Tuple[int, Reference]] = deque()
        self.sent = 0
        self.places: Dict[str, int] = {}
        self.latest = 0.0

    @property
    def last_number(self) -> int:
        """The number of the last one; 0 if there is none."""
        return self.kept[-1][0] if self.kept else 0

    def add(self, header: Dict[str, Any], reference: Reference) -> List[Reference]:
        """Add one by its record. Returns the records that are not needed any more."""
        self.kept.append((header["number"], reference))
        self.places[header["ring"]] = header["place"]
        self.latest = max(self.latest, header["at"])
        return [self.kept.popleft()[1]] if len(self.kept) > MAX_REPORTS else []

    def move(self, moved: Dict[int, Reference]) -> None:
        """Update all references after the log was rewritten."""
        self.kept = deque((number, moved[reference.offset]) for number, reference in self.kept)


_Number = TypeVar("_Number", int, float)


def greatest(*numbers: Optional[_Number]) -> Optional[_Number]:
    """Return the greatest of those that are known."""
    known = [one for one in numbers if one is not None]
    return max(known) if known else None


class Seen:
    """What of an attempt's use of its host its own process did not say.

    Attributes:
        at_death: what its process had used when it died without an outcome, as its zygote says.
        cpu_seconds, peak_memory, peak_gpu_memory: the greatest that a look has shown.
    """

    def __init__(self) -> None:
        self.at_death: Optional[ResourcesUsed] = None
        self.cpu_seconds: Optional[float] = None
        self.peak_memory: Optional[int] = None
        self.peak_gpu_memory: Optional[int] = None
        self._shares = 0.0
        self._looks = 0

    @property
    def gpu_share(self) -> Optional[float]:
        """The mean of all looks; None if none has shown any."""
        return self._shares / self._looks if self._looks else None

    def add(self, used: Optional[ProcessUse], gpus: List[GpuUse], spent: float) -> None:
        """Add a look. `spent`: seconds of CPU time that its process had spent before."""
        if used is not None:
            self.cpu_seconds = greatest(self.cpu_seconds, used.cpu_seconds - spent)
            self.peak_memory = greatest(self.peak_memory, used.memory)
        shares = [one.share for one in gpus if one.share is not None]
        if shares:
            self._shares += sum(shares) / len(shares)
            self._looks += 1
        memory = [one.used for one in gpus if one.used is not None]
        if memory and len(memory) == len(gpus):
            self.peak_gpu_memory = greatest(self.peak_gpu_memory, sum(memory))


class Attempt:
    """The agent's knowledge of one attempt. References point into the spool's log."""

    def __init__(self, spec: JobSpec) -> None:  # noqa: PLR0915 - one field after the other
        self.id = spec.attempt_id
        self.spec = spec
        self.state = "queued"
        self.references: List[Reference] = []
        self.payload: Optional[Reference] = None
        self.payload_blob: Optional[str] = None
        self.is_claiming = False
        self.is_claimed = False
        #: Its number among those that run, its GPUs (None: it is told of none), and the CPUs to which it is kept (none: it runs on all).
        self.slot: Optional[int] = None
        self.gpus: Optional[List[str]] = None
        self.cpus: List[int] = []
        self.pid: Optional[int] = None
        self.pid_started = ""
        self.boot = ""
        self.started_at: Optional[float] = None
        self.entered: List[Tuple[str, int]] = []
        self.hooks: List[Dict[str, Any]] = []
        self.state_at: Optional[Reference] = None
        self.state_file: Optional[str] = None
        self.outcome: Optional[Recorded] = None
        self.final: Optional[Recorded] = None
        #: The record of its end is on the disk. If its result is long, the file may not be there yet.
        self.is_logged = False
        self.awaits_file = False
        #: Both are on the disk, so the result may be sent.
        self.is_synced = False
        #: The host went down after that, and the file of its long result or outcome is being checked.
        self.is_doubted = False
        #: Set if the bytes of its long result are sent early: before the result itself may be sent.
        self.early_send: Any = None
        self.in_epilogue = False
        self.epilogues = 0
        self.entered_before = 0
        #: The envelope that says what killed the job's process. It is made when the process is found dead.
        self.crash: Optional[Envelope] = None
        self.cancel: Optional[str] = None
        self.status: Optional[int] = None
        self.seen = Seen()
        self.has_exited = False
        #: Monotonic times.
        self.begun_at: Optional[float] = None
        #: How often it was given to a zygote that died before it forked.
        self.hand_overs = 0
        #: When it was given to its zygote, which has not yet reported the fork.
        self.handed_at: Optional[float] = None
        self.deadline: Optional[float] = None
        self.kill_at: Optional[float] = None
        #: When its process began to shut down, after its result; and when it was asked what it waits for.
        self.ending_at: Optional[float] = None
        self.asked_at: Optional[float] = None
        #: It was cancelled after its result had arrived, so its shutdown gets less time.
        self.is_shutdown_shortened = False
        #: What its shutdown waits for, as it answered.
        self.running: List[str] = []
        #: What was still running when it was killed, for the user; see the `cut` record.
        self.cut: Optional[Dict[str, Any]] = None
        #: From when and until when its leftover processes may end by themselves. The first time is by the clock of file times.
        self.left_since = 0.0
        self.left_until: Optional[float] = None
        #: Its result was sent over the present link. Its outputs follow when its process is gone.
        self.is_final_sent = False
        #: Whether files of it came while it ran, over any link. Then the controller is asked what it holds of them; None until it has said so
        #: over the present link.
        self.came_early = False
        self.held: Optional[Dict[str, HeldFile]] = None
        self.held_so_far: Dict[str, HeldFile] = {}
        self.sock: Any = None
        self.decoder = wire.Decoder()
        #: The worker that does it; None if its process has no other job.
        self.worker: Any = None
        #: Its process had another job before.
        self.is_reused = False
        #: Its worker has said that the job is over.
        self.is_idle = False
        #: Nobody will report its end, so it is polled.
        self.is_polled = False
        #: Its epilogue is due and waits for a zygote.
        self.awaits_zygote = False
        #: How many bytes of its orphan file were read.
        self.orphan_read = 0
        self.orphan_decoder: Optional[wire.Decoder] = wire.Decoder()
        self.stream_sent = {"stdout": 0, "stderr": 0}
        self.stream_dropped = {"stdout": 0, "stderr": 0}
        #: A source of the present link reads its streams.
        self.is_streaming = False
        self.reports = KeptReports()

    def add_report(self, header: Dict[str, Any], reference: Reference) -> List[Reference]:
        """Add a report by its record. Returns the records that are not needed any more."""
        return self.reports.add(header, reference)

    @property
    def is_active(self) -> bool:
        """Whether it has a share of the host, or a process of it may be alive."""
        return self.state in ("claimed", "running", "ending")

    @property
    def is_over(self) -> bool:
        """Whether its result is there and its process is gone, so that its output is complete."""
        return self.state == "final"

    def leave_process(self) -> None:
        """It has no process any more: its process goes on with another job, or never began this one."""
        self.pid, self.pid_started, self.is_reused = None, "", False
        self.sock = self.worker = None
        self.has_exited = True

    def move(self, moved: Dict[int, Reference]) -> None:
        """Update all references after the log was rewritten. `moved`: old offset -> new reference."""

        def new(reference: Optional[Reference]) -> Optional[Reference]:
            return None if reference is None else moved[reference.offset]

        self.references = [moved[reference.offset] for reference in self.references]
        self.payload = new(self.payload)
        self.state_at = new(self.state_at)
        self.reports.move(moved)
        if self.outcome is not None:
            self.outcome = self.outcome._replace(reference=new(self.outcome.reference))
        if self.final is not None:
            self.final = self.final._replace(reference=new(self.final.reference))

    def short_state(self) -> str:
        """Return the state that the controller gets at a reconnect."""
        if self.final is not None:
            return "final"
        return "queued" if self.state == "queued" else "running"


def error_of_status(status: Optional[int], why_unknown: str = "") -> JobError:
    """Say why a process ended without a result. `status` is that of waitpid."""
    if status is None:
        return JobError("killed", message=why_unknown or "the job's process is gone")
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = "signal {}".format(number)
        hint = ""
        if number == signal.SIGKILL:
            hint = " (out of memory? see the kernel's log on the host)"
        return JobError("killed", name, "killed by {}{}".format(name, hint), signal=number)
    code = os.WEXITSTATUS(status)
    message = "the process left with exit code {} before the job had a result".format(code)
    return JobError("exited", "exit", message, exit_code=code)


def failed_envelope(attempt: Attempt, error: JobError, ended_at: Optional[float]) -> Envelope:
    """Make the envelope of an attempt whose process did not make one."""
    return Envelope.of_failure(error, attempt.started_at, ended_at, attempt.hooks)
