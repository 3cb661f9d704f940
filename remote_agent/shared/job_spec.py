"""What is to be done for one job: as the journal keeps it, as a host gets it, and as the process of an attempt does.

Rule: a name in it becomes a file's name, a number a limit: both are checked where they are read, on every side.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

from remote_agent.shared.envelope import Envelope
from remote_agent.shared.fields import FieldError, read, to_json
from remote_agent.shared.result_parts import ResultParts

__all__ = ["EpilogueSpec", "ForkSpec", "JobSpec"]

#: What a version that had none of it stands for.
_EARLIER = {
    "timeout": None,
    "grace": 10.0,
    "hook_timeout": 300.0,
    "shutdown_timeout": 300.0,
    "outputs": True,
    "max_output_bytes": None,
    "children_timeout": 2.0,
}


class JobSpec(NamedTuple):
    """One attempt at a job.

    Attributes:
        attempt: which one; 0 of a job that waits here, and of which there has been none.
        zygote: the key of the zygote that runs it.
        output_dir: absolute where the host shares the controller's files, else relative to the run's outputs on the host.
        timeout, grace, hook_timeout, shutdown_timeout: seconds.
        outputs: what of the output directory comes back: all, nothing, or what matches one of these patterns.
        max_output_bytes: of stdout, and of stderr.
        children_timeout: seconds that processes have which the job left behind in its session.
    """

    num: int
    attempt: int
    job_id: str
    zygote: str
    output_dir: str
    timeout: Optional[float]
    grace: float
    hook_timeout: float
    shutdown_timeout: float
    outputs: Union[bool, List[str]]
    max_output_bytes: Optional[int]
    children_timeout: float

    @property
    def attempt_id(self) -> str:
        """What the attempt is called everywhere: `3.1` is the first one at job 3."""
        return "{}.{}".format(self.num, self.attempt)

    def to_json(self) -> Dict[str, Any]:
        """The spec as a JSON object; `from_json` reads it back."""
        return dict(to_json(self), attempt_id=self.attempt_id)

    @classmethod
    def from_json(cls, data: Any) -> "JobSpec":
        """A spec that the other side sent.

        Raises:
            FieldError: it is none.
        """
        spec = read(cls, "job", data, _EARLIER)
        if spec.num < 0 or spec.attempt < 0 or data.get("attempt_id") != spec.attempt_id:
            raise FieldError("job", "attempt_id of number {}, attempt {}".format(*spec[:2]), data.get("attempt_id"))
        for name, text in (("output_dir", spec.output_dir), ("zygote", spec.zygote)):
            if "\0" in text:
                raise FieldError("job", name, text)
        for name, number in zip(_LIMITS, (*spec[5:9], spec.max_output_bytes, spec.children_timeout)):
            if number is not None and number < 0:
                raise FieldError("job", name, number)
        return spec

    @classmethod
    def from_journal(cls, data: Dict[str, Any]) -> "JobSpec":
        """A spec of a job that is queued, also as a version wrote it which left out the attempt.

        Raises:
            FieldError: it is none.
        """
        return cls.from_json({"attempt": 0, "attempt_id": "{}.0".format(data.get("num")), **data})


_LIMITS = ("timeout", "grace", "hook_timeout", "shutdown_timeout", "max_output_bytes", "children_timeout")


class ForkSpec(NamedTuple):
    """What the process of an attempt gets from its agent.

    Attributes:
        job: the attempt, with its output directory as it is on this host, absolute.
        slot_env: variables that the slot gives it; None takes one away.
        spool: the run's folder here.
        payload_file: where the job's payload lies; empty where it came along.
    """

    job: JobSpec
    slot_env: Dict[str, Optional[str]]
    spool: str
    payload_file: str

    def to_json(self) -> Dict[str, Any]:
        """The spec as a JSON object; `from_json` reads it back."""
        return dict(to_json(self), job=self.job.to_json())

    @classmethod
    def from_json(cls, data: Any) -> "ForkSpec":
        """As the agent sent it.

        Raises:
            FieldError: it is none.
        """
        return read(cls, "fork", data, {})


class EpilogueSpec(NamedTuple):
    """What the epilogue of an attempt gets from its agent.

    Attributes:
        entered: [hook, index of the callback] of each hook that was announced.
        envelope: what came of the job: its outcome, or what killed it before it had one.
        has_outcome: the former.
        parts: where in the result's bytes its parts lie, where there is an outcome.
        outcome_file: where these bytes lie; empty where `parts` tells, or there are none.
        state_file: where the callbacks' state lies; empty where it came along.
    """

    fork: ForkSpec
    entered: List[Any]
    envelope: Envelope
    has_outcome: bool
    parts: ResultParts
    outcome_file: str
    state_file: str

    @property
    def outcome(self) -> Optional[Envelope]:
        """What the job had reached before it died."""
        return self.envelope if self.has_outcome else None

    def indexes(self, hook: str) -> List[int]:
        """The callbacks of which this hook was entered."""
        entered: List[Tuple[str, int]] = [(name, index) for name, index in self.entered]
        return [index for name, index in entered if name == hook]

    def to_json(self) -> Dict[str, Any]:
        """The spec as a JSON object; `from_json` reads it back."""
        return dict(
            to_json(self), fork=self.fork.to_json(), envelope=self.envelope.to_json(), parts=self.parts.to_json()
        )

    @classmethod
    def from_json(cls, data: Any) -> "EpilogueSpec":
        """As the agent sent it.

        Raises:
            FieldError: it is none.
        """
        return read(cls, "epilogue", data, {})
