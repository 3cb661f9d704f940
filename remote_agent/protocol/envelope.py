"""The envelope: how a job ended. It is the plain part of a result, and the part that decides.

Rule: the job makes it or, if it cannot, the process that notices that. The agent, the controller and the journal accept
it unchanged, or refuse it and name the field.
"""

from typing import Any, Dict, List, NamedTuple, Optional

from remote_agent.job import JobError, ResourcesUsed
from remote_agent.protocol.fields import FieldError, read, to_json

__all__ = ["Envelope"]


class _HookRecord(NamedTuple):
    """A hook that fired. `error` has texts: its type, message and traceback. `began_at` is by the host's clock."""

    hook: str
    callback: str
    ok: bool
    error: Optional[Dict[str, str]]
    on_error: str
    began_at: Optional[float]
    seconds: Optional[float]


#: Fields that an earlier version did not write, or that nobody knows.
_HOOK_ABSENT = {"error": None, "on_error": "warn", "began_at": None, "seconds": None}
#: Fields that are missing if no process of the job made the envelope.
_ABSENT = {
    "started_at": None,
    "ended_at": None,
    "duration": None,
    "task_name": None,
    "hooks": list,
    "code": dict,
    "abort": None,
    "stopped": False,
    "resources_used": None,
}


class Envelope(NamedTuple):
    """How a job ended.

    Attributes:
        status: COMPLETED or FAILED.
        error: why it is FAILED. Other jobs have none.
        started_at, ended_at: seconds since the epoch, by the host's clock.
        duration: seconds.
        hooks: the hooks that fired, in order, as `{"hook", "callback", "ok", "error", "on_error", "began_at", "seconds"}`.
        code: the snapshot that ran.
        abort: the callback that asked to stop the run.
        stopped: the job was asked to stop, and has learned it from a report.
        resources_used: what the job has used, as far as its host has told.
    """

    status: str
    error: Optional[JobError]
    started_at: Optional[float]
    ended_at: Optional[float]
    duration: Optional[float]
    task_name: Optional[str]
    hooks: List[Dict[str, Any]]
    code: Dict[str, Any]
    abort: Optional[str]
    stopped: bool
    resources_used: Optional[ResourcesUsed]

    @classmethod
    def of_failure(
        cls,
        error: JobError,
        started_at: Optional[float] = None,
        ended_at: Optional[float] = None,
        hooks: Optional[List[Dict[str, Any]]] = None,
    ) -> "Envelope":
        """Make the envelope of a failed job whose process did not make one."""
        duration = None if started_at is None or ended_at is None else max(0.0, ended_at - started_at)
        return cls(
            "FAILED", error, started_at, ended_at, duration, None, hooks or [], {}, None, stopped=False, resources_used=None
        )  # fmt: skip

    def to_json(self) -> Dict[str, Any]:
        """Return the envelope as a JSON object, which `from_json` reads."""
        used = self.resources_used
        return dict(
            to_json(self),
            error=None if self.error is None else self.error.to_json(),
            resources_used=None if used is None else used.to_json(),
        )

    @classmethod
    def from_json(cls, data: Any) -> "Envelope":
        """Read an envelope that another process made.

        Raises:
            ValueError: it is not an envelope. The message names the wrong field, if any.
        """
        envelope = read(cls, "envelope", data, _ABSENT)
        if envelope.status not in ("COMPLETED", "FAILED"):
            raise FieldError("envelope", "status", envelope.status)
        if (envelope.error is None) != (envelope.status == "COMPLETED"):
            raise FieldError("envelope", "error of a {} job".format(envelope.status), envelope.error)
        if envelope.duration is not None and envelope.duration < 0:
            raise FieldError("envelope", "duration", envelope.duration)
        for hook in envelope.hooks:
            read(_HookRecord, "envelope: hook", hook, _HOOK_ABSENT)
        return envelope
