"""What to do for one job, as the journal stores it, as a host gets it, and as the process of an attempt gets it.

Rule: names in it become file names, and numbers become limits. So every side checks them when it reads them.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.fields import FieldError, read, to_json
from remote_agent.protocol.result_parts import ResultParts
from remote_agent.protocol.specs.resources import Resources
from remote_agent.protocol.trace import is_trace

__all__ = ["EpilogueSpec", "ForkSpec", "JobSpec"]

#: Values of fields that an earlier version did not have.
_EARLIER = {
    "timeout": None,
    "grace": 10.0,
    "hook_timeout": 300.0,
    "shutdown_timeout": 300.0,
    "outputs": True,
    "max_output_bytes": None,
    "children_timeout": 2.0,
    "needs": None,
    "earlier": list,
    "trace": "",
}


class JobSpec(NamedTuple):
    """One attempt at a job.

    Attributes:
        attempt: its number; 0 for a job that waits here and has had no attempt yet.
        zygote: the key of the zygote that runs it.
        output_dir: absolute if the host shares the controller's files, else relative to the run's outputs on the host.
        timeout, grace, hook_timeout, shutdown_timeout: seconds.
        outputs: the files of the output directory that are sent back: all, none, or those that match a pattern.
        max_output_bytes: the cap of stdout and of stderr.
        children_timeout: seconds that leftover processes in the job's session have to end.
        needs: what it takes of its host; None for what the run says, or the host's usual part.
        earlier: the attempts before it that began, each as {"attempt", "host", "kind" of its error}, and with "folder" if its output folder is
            on this host.
        trace: the trace that the spans of its attempts belong to (`remote_agent.protocol.trace`); empty for none.
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
    needs: Optional[Resources]
    earlier: List[Any]
    trace: str

    @property
    def attempt_id(self) -> str:
        """The attempt's name everywhere: `3.1` is the first attempt at job 3."""
        return "{}.{}".format(self.num, self.attempt)

    def to_json(self) -> Dict[str, Any]:
        """Return the spec as a JSON object, which `from_json` reads."""
        needs = None if self.needs is None else self.needs.to_json()
        return dict(to_json(self), needs=needs, attempt_id=self.attempt_id)

    @classmethod
    def from_json(cls, data: Any) -> "JobSpec":
        """Read a spec that the other side sent.

        Raises:
            FieldError: it is not valid.
        """
        spec = read(cls, "job", data, _EARLIER)
        if spec.num < 0 or spec.attempt < 0 or data.get("attempt_id") != spec.attempt_id:
            raise FieldError("job", "attempt_id of number {}, attempt {}".format(*spec[:2]), data.get("attempt_id"))
        for name, text in (("output_dir", spec.output_dir), ("zygote", spec.zygote)):
            if "\0" in text:
                raise FieldError("job", name, text)
        for one in spec.earlier:
            if not _is_earlier(one):
                raise FieldError("job", "earlier", one)
        if spec.trace and not is_trace(spec.trace):
            raise FieldError("job", "trace", spec.trace)
        for name, number in zip(_LIMITS, (*spec[5:9], spec.max_output_bytes, spec.children_timeout)):
            if number is not None and number < 0:
                raise FieldError("job", name, number)
        return spec

    @classmethod
    def from_journal(cls, data: Dict[str, Any]) -> "JobSpec":
        """Read a queued job's spec from the journal, also from an earlier version that left out the attempt.

        Raises:
            FieldError: it is not valid.
        """
        return cls.from_json({"attempt": 0, "attempt_id": "{}.0".format(data.get("num")), **data})


def _is_earlier(one: Any) -> bool:
    """Whether it names an earlier attempt."""
    return (
        isinstance(one, dict)
        and type(one.get("attempt")) is int
        and all(
            isinstance(one.get(name, ""), str) and "\0" not in one.get(name, "") for name in ("host", "kind", "folder")
        )
    )


_LIMITS = ("timeout", "grace", "hook_timeout", "shutdown_timeout", "max_output_bytes", "children_timeout")


class ForkSpec(NamedTuple):
    """What the process of an attempt gets from its agent.

    Attributes:
        job: the attempt, with its output directory as it is on this host, absolute.
        slot_env: variables from the slot; None removes one.
        spool: the run's folder here.
        payload_file: the file of the job's payload; empty if it came with the message.
        cpus: the CPUs on which it runs; empty for all.
        threads: the number that the zygote was started with for numerical libraries; 0 for none. A variable that says another one is the
            user's word, and stays.
    """

    job: JobSpec
    slot_env: Dict[str, Optional[str]]
    spool: str
    payload_file: str
    cpus: List[int]
    threads: int

    def to_json(self) -> Dict[str, Any]:
        """Return the spec as a JSON object, which `from_json` reads."""
        return dict(to_json(self), job=self.job.to_json())

    @classmethod
    def from_json(cls, data: Any) -> "ForkSpec":
        """Read the spec that the agent sent.

        Raises:
            FieldError: it is not valid.
        """
        return read(cls, "fork", data, {"threads": 0})


class EpilogueSpec(NamedTuple):
    """What the epilogue of an attempt gets from its agent.

    Attributes:
        entered: [hook, index of the callback] of each announced hook.
        envelope: the job's outcome, or what killed it before it had one.
        has_outcome: whether it is the job's outcome.
        parts: the places of the parts in the result's bytes, if there is an outcome.
        outcome_file: the file of these bytes; empty if `parts` says it, or there are none.
        state_file: the file of the callbacks' state; empty if it came with the message.
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
        """The outcome of the job before it died."""
        return self.envelope if self.has_outcome else None

    def indexes(self, hook: str) -> List[int]:
        """Return the callbacks whose hook of this name was called."""
        entered: List[Tuple[str, int]] = [(name, index) for name, index in self.entered]
        return [index for name, index in entered if name == hook]

    def to_json(self) -> Dict[str, Any]:
        """Return the spec as a JSON object, which `from_json` reads."""
        return dict(
            to_json(self), fork=self.fork.to_json(), envelope=self.envelope.to_json(), parts=self.parts.to_json()
        )

    @classmethod
    def from_json(cls, data: Any) -> "EpilogueSpec":
        """Read the spec that the agent sent.

        Raises:
            FieldError: it is not valid.
        """
        return read(cls, "epilogue", data, {})
