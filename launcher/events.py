"""The events of a run, as frozen values. Display, journal and hooks all use them.

Rule: an event says what has happened, and not what to do about it. Every event is plain data, so that it can be journalled
as JSON and shown anywhere. `from_json` reads what `to_json` returns. `at` is seconds since the epoch, by the controller's
clock.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar, cast

from launcher.util.frozen import frozen
from remote_agent.protocol.report import Report

__all__ = [
    "AttemptEnded",
    "AttemptStarted",
    "CodeSent",
    "EnvironmentChanged",
    "EnvironmentReady",
    "Event",
    "EventBase",
    "HookFired",
    "HostClosed",
    "HostLost",
    "HostOpened",
    "HostReady",
    "HostUnknown",
    "HostUnusable",
    "JobAssigned",
    "JobCancelling",
    "JobQueued",
    "JobReported",
    "JobRequeued",
    "JobRetried",
    "JobReturned",
    "JobStopping",
    "JobTakenOver",
    "Note",
    "OutputArrived",
    "OutputsUnmatched",
    "RunDetached",
    "RunDetaching",
    "RunEnded",
    "RunInterrupt",
    "RunResumed",
    "RunStarted",
    "Warned",
    "WayChosen",
    "from_json",
]

_KINDS: dict[str, type[EventBase]] = {}
#: Of a field: its type, whether it is a tuple, and whether a value fits.
_Check = tuple[str, bool, Callable[[Any], bool]]
_NO_FIELD: _Check = ("", False, lambda value: False)
_CHECKS: dict[str, dict[str, _Check]] = {}


@frozen
class EventBase:
    """The fields and methods of all events."""

    kind: ClassVar[str] = "event"
    at: float

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _KINDS[cls.kind] = cls

    def to_json(self) -> dict[str, Any]:
        """Return the event as a JSON object."""
        # The fields are plain data already. `asdict` would copy them, and take ten times as long.
        return {"kind": self.kind, **self.__dict__}


def from_json(data: dict[str, Any]) -> Event:
    """Read an event that `to_json` wrote. Lists become tuples.

    Raises:
        ValueError: the kind is unknown, a field is missing or unknown, or is of another type.
    """
    kind = data.get("kind", "")
    cls = _KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ValueError(f"unknown event kind {str(kind)[:100]!r}")
    checks = _checks_of(cls)
    fields = {}
    for name, given in data.items():
        if name == "kind":
            continue
        expected, is_tuple, fits = checks.get(name) or _NO_FIELD
        if is_tuple and type(given) is list:
            given = tuple(given)
        if not fits(given):
            raise ValueError(f"{kind}: {name[:100]!r} is not a field of it, or not of type {expected}")
        fields[name] = given
    try:
        if list(fields) == list(checks):
            # The usual case: as `to_json` wrote them, so in the order of the class, which is made three times as fast.
            return cast("Event", cls(*fields.values()))
        return cast("Event", cls(**fields))
    except TypeError as error:
        raise ValueError(str(error)) from None


def _checks_of(cls: type[EventBase]) -> dict[str, _Check]:
    checks = _CHECKS.get(cls.kind)
    if checks is None:
        types = {one.name: str(one.type) for one in dataclasses.fields(cls)}
        checks = _CHECKS[cls.kind] = {
            name: (expected, expected.startswith("tuple["), _FITS[expected]) for name, expected in types.items()
        }
    return checks


def _is_whole(value: Any) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (type(value) is float and math.isfinite(value))


#: Type of an event's field -> types that a journal may have for it.
_FITS: dict[str, Callable[[Any], bool]] = {
    "int": _is_whole,
    "float": _is_number,
    "str": lambda value: type(value) is str,
    "bool": lambda value: type(value) is bool,
    "tuple[str, ...]": lambda value: type(value) is tuple and all(type(one) is str for one in value),
    "tuple[int, ...]": lambda value: type(value) is tuple and all(map(_is_whole, value)),
    "dict[str, Any] | None": lambda value: value is None or type(value) is dict,
    "dict[str, Any]": lambda value: type(value) is dict,
    "dict[str, int]": lambda value: type(value) is dict and all(map(_is_whole, value.values())),
    "float | None": lambda value: value is None or _is_number(value),
    "int | None": lambda value: value is None or _is_whole(value),
    "str | None": lambda value: value is None or type(value) is str,
}


@frozen
class RunStarted(EventBase):
    """A run began; `folder` is its local directory, `mode` is RUN or MULTIRUN."""

    kind: ClassVar[str] = "run_started"
    run: str
    mode: str
    folder: str
    hosts: tuple[str, ...]


@frozen
class JobQueued(EventBase):
    """A job exists and waits for a slot. `needs`: its Resources, if it has some of its own."""

    kind: ClassVar[str] = "job_queued"
    num: int
    overrides: tuple[str, ...] = ()
    needs: dict[str, Any] | None = None


@frozen
class JobAssigned(EventBase):
    """An attempt was given to a host; it may wait there for a slot."""

    kind: ClassVar[str] = "job_assigned"
    num: int
    attempt: int
    host: str


@frozen
class AttemptStarted(EventBase):
    """The job's process began on the host. `started_at` is by the host's clock."""

    kind: ClassVar[str] = "attempt_started"
    num: int
    attempt: int
    host: str
    slot: int
    started_at: float


@frozen
class OutputArrived(EventBase):
    """Bytes of a job's output, only for display. Each byte comes once; they may be cut anywhere. `stream` is stdout or stderr.

    `text` is UTF-8 with `surrogateescape`, so that nothing is lost; `data` has the bytes. If `file` is not empty, it has
    them from `offset` on.
    """

    kind: ClassVar[str] = "output"
    num: int
    host: str
    stream: str
    text: str
    attempt: int = 1
    offset: int = 0
    file: str = ""

    @property
    def data(self) -> bytes:
        """The output, byte for byte."""
        return self.text.encode("utf-8", "surrogateescape")


@frozen
class AttemptEnded(EventBase):
    """An attempt has its outcome; a retry may follow. `status` is COMPLETED or FAILED. `stopped`: it was asked to stop, and has learned it.

    `resources_used`: a ResourcesUsed, whose `bytes_out` counts the value alone; None if its host has told nothing. `again`: its host has made the next attempt itself.
    """

    kind: ClassVar[str] = "attempt_ended"
    num: int
    attempt: int
    host: str
    status: str
    duration: float | None
    error: dict[str, Any] | None
    stopped: bool = False
    resources_used: dict[str, Any] | None = None
    again: bool = False


@frozen
class JobReturned(EventBase):
    """The job's JobReturn is complete on the controller, with its files. `resources_used`: a ResourcesUsed, if its host has told one."""

    kind: ClassVar[str] = "job_returned"
    num: int
    attempt: int
    host: str
    status: str
    duration: float | None
    error: dict[str, Any] | None
    overrides: tuple[str, ...] = ()
    stopped: bool = False
    resources_used: dict[str, Any] | None = None


@frozen
class JobTakenOver(EventBase):
    """The job does not run, because a run that this one continues has completed one with the same config. Its `JobReturned` follows at once.

    `of_run`, `of_num`: the run that ran it, and its number there.
    """

    kind: ClassVar[str] = "job_taken_over"
    num: int
    of_run: str
    of_num: int
    attempt: int
    host: str


@frozen
class OutputsUnmatched(EventBase):
    """A job completed and left no file that these output patterns match. A pattern may have a typo."""

    kind: ClassVar[str] = "outputs_unmatched"
    num: int
    host: str
    patterns: tuple[str, ...] = ()


@frozen
class HookFired(EventBase):
    """A hook fired. For hooks on a host, the event comes when the attempt ends. `side` is controller or host.

    `began_at` is by the clock of that side. It and `seconds` are None if nobody knows.
    """

    kind: ClassVar[str] = "hook"
    hook: str
    callback: str
    side: str
    ok: bool
    num: int | None = None
    host: str = ""
    attempt: int | None = None
    began_at: float | None = None
    seconds: float | None = None


@frozen
class Warned(EventBase):
    """Something that the user must see: a hook that raised, a refused file. `source` says where it comes from."""

    kind: ClassVar[str] = "warning"
    source: str
    message: str
    traceback: str = ""
    num: int | None = None
    host: str = ""


@frozen
class Note(EventBase):
    """Something worth saying once: isolation became spawn, a callback is built from its spec.

    `topic`: `logout` if the note says what the end of a login session does to a host's agent; otherwise empty.
    """

    kind: ClassVar[str] = "note"
    message: str
    host: str = ""
    topic: str = ""


@frozen
class HostReady(EventBase):
    """A host takes jobs. `boot_id` names this life of its machine. `room`: what of it the jobs may take, as its agent says."""

    kind: ClassVar[str] = "host_ready"
    host: str
    slots: int
    python: str
    gpus: tuple[str, ...] = ()
    reconnected: bool = False
    boot_id: str = ""
    room: dict[str, Any] | None = None

    @property
    def is_cluster(self) -> bool:
        """Whether a batch system runs its jobs; `slots` is then only the most that it may have."""
        return self.boot_id.startswith("slurm/")


@frozen
class WayChosen(EventBase):
    """How a host is reached: `way` is fabric or openssh (the `ssh` program), and `why` says why so."""

    kind: ClassVar[str] = "way"
    host: str
    way: str
    why: str


@frozen
class CodeSent(EventBase):
    """The code snapshot is on the host. `sent_bytes`: how many bytes had to be sent."""

    kind: ClassVar[str] = "code_sent"
    host: str
    files: int
    sent_files: int
    sent_bytes: int
    hash: str


@frozen
class EnvironmentChanged(EventBase):
    """An environment is on its way; only for display. `state`: resolving, sending, waiting (another run builds it) or building.

    `done` of `total` bytes are on the host, which has fetched `fetched` itself.
    """

    kind: ClassVar[str] = "environment"
    host: str
    state: str
    done: int
    total: int
    fetched: int = 0


@frozen
class EnvironmentReady(EventBase):
    """A host has the environment of the run; `key` names it there. `is_new`: it was built for this run.

    Of the `total` bytes of its files, the host has fetched `fetched` itself for this run.
    """

    kind: ClassVar[str] = "environment_ready"
    host: str
    key: str
    is_new: bool
    total: int
    fetched: int = 0


@frozen
class HostUnknown(EventBase):
    """The link to a host is gone. Its jobs are unknown, not failed."""

    kind: ClassVar[str] = "host_unknown"
    host: str
    why: str
    jobs: tuple[int, ...] = ()


@frozen
class HostLost(EventBase):
    """A host was given up. `jobs` are those that it still had."""

    kind: ClassVar[str] = "host_lost"
    host: str
    why: str
    jobs: tuple[int, ...] = ()


@frozen
class HostUnusable(EventBase):
    """A host that never accepted jobs: its key, authentication, no Python, a failed setup line."""

    kind: ClassVar[str] = "host_unusable"
    host: str
    phase: str
    why: str
    next_step: str = ""


@frozen
class RunInterrupt(EventBase):
    """Ctrl-C, SIGTERM, fail-fast or an aborting callback: running jobs are cancelled (`kill`: at once)."""

    kind: ClassVar[str] = "run_interrupt"
    why: str
    kill: bool = False


@frozen
class RunEnded(EventBase):
    """The run has ended, and everything that could be collected was. Counts by outcome."""

    kind: ClassVar[str] = "run_ended"
    run: str
    completed: int
    failed: int
    counts: dict[str, int] = field(default_factory=dict)


@frozen
class JobRequeued(EventBase):
    """The job waits for another attempt. `attempt` is the one that ended or was given up, and `why` the reason.

    `is_taken_back`: nothing failed; the host was asked for an attempt that had not started.
    """

    kind: ClassVar[str] = "job_requeued"
    num: int
    attempt: int
    host: str
    why: str
    is_taken_back: bool = False


@frozen
class HostClosed(EventBase):
    """A host takes no more jobs, though its link may be up: its spool is full, or its application is unusable.

    `may_open`: this may end by itself, like a full disk.
    """

    kind: ClassVar[str] = "host_closed"
    host: str
    why: str
    may_open: bool = False


@frozen
class HostOpened(EventBase):
    """A host that was closed takes jobs again."""

    kind: ClassVar[str] = "host_opened"
    host: str


@frozen
class JobCancelling(EventBase):
    """The user asked for a job to end. It returns when it has ended."""

    kind: ClassVar[str] = "job_cancelling"
    num: int


@frozen
class JobStopping(EventBase):
    """A hook or the user asked for a job to stop at its next report. A job that has not started never does."""

    kind: ClassVar[str] = "job_stopping"
    num: int


@frozen
class JobReported(EventBase):
    """A job has reported how it stands. `number` counts those that its host has kept. `values` and `reported_at` as in `Report.to_json`."""

    kind: ClassVar[str] = "job_reported"
    num: int
    attempt: int
    host: str
    number: int
    reported_at: float
    step: float | None
    values: dict[str, Any]

    @property
    def report(self) -> Report:
        """The report, as the job gave it.

        Raises:
            ValueError: it is not one.
        """
        return Report.from_json({"at": self.reported_at, "step": self.step, "values": self.values})


@frozen
class JobRetried(EventBase):
    """A job that had returned runs once more, because the user asked for it. `attempt` and `status` are the earlier ones."""

    kind: ClassVar[str] = "job_retried"
    num: int
    attempt: int
    status: str
    error_kind: str = ""
    overrides: tuple[str, ...] = ()
    needs: dict[str, Any] | None = None


@frozen
class RunResumed(EventBase):
    """A controller has resumed the run: another process, or the same one after `RunDetached`. All links are new."""

    kind: ClassVar[str] = "run_resumed"
    run: str
    hosts: tuple[str, ...] = ()


@frozen
class RunDetached(EventBase):
    """The controller has left, and hosts keep all jobs. `hosts` are those that had all their jobs by then."""

    kind: ClassVar[str] = "run_detached"
    run: str
    why: str
    hosts: tuple[str, ...] = ()


@frozen
class RunDetaching(EventBase):
    """The controller is about to leave, so hosts get every waiting job. `hurry`: do not wait for hosts that are not reached yet."""

    kind: ClassVar[str] = "run_detaching"
    run: str
    why: str
    hurry: bool = False


#: All events. A `match` that misses one is a type error.
Event = (
    AttemptEnded
    | AttemptStarted
    | CodeSent
    | EnvironmentChanged
    | EnvironmentReady
    | HookFired
    | HostClosed
    | HostLost
    | HostOpened
    | HostReady
    | HostUnknown
    | HostUnusable
    | JobAssigned
    | JobCancelling
    | JobQueued
    | JobReported
    | JobRequeued
    | JobRetried
    | JobReturned
    | JobStopping
    | JobTakenOver
    | Note
    | OutputArrived
    | OutputsUnmatched
    | RunDetached
    | RunDetaching
    | RunEnded
    | RunInterrupt
    | RunResumed
    | RunStarted
    | Warned
    | WayChosen
)
