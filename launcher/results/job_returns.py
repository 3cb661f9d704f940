"""JobReturns on the controller. They are made from the journal.

Rule: nothing that a host sent is decoded for one until somebody reads a value of it (`launcher.results.decoding`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from launcher.errors import LauncherError
from launcher.results.decoding import Decoder
from launcher.runs.journal import JournalReader, Returned, StoredResult
from launcher.util.text.html import table_html
from launcher.util.text.terminal_text import clean
from remote_agent.by_reference import own_job_return
from remote_agent.job import JobError, JobReturn, JobStatus, LateValue, RemoteJobError, ResourcesUsed
from remote_agent.protocol.fields import is_sha256

__all__ = [
    "JobReturns",
    "environment_of",
    "make_job_return",
]


class _ControllerJobReturn(JobReturn):
    """A JobReturn whose configs are decoded when they are read."""

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if name in ("cfg", "hydra_cfg") and isinstance(value, LateValue):
            value = value.load()
            object.__setattr__(self, name, value)
        return value

    def __repr__(self) -> str:
        # One line, without unpickling. The repr of a dataclass would decode a host's pickle for a log or a debugger.
        took = f" after {self.duration:.2f} s" if self.duration is not None else ""
        why = f": {' '.join(clean(self.error).split())}" if self.error is not None else ""
        return f"<JobReturn {self.num} on {self.host}: {self.status.name}{took}{why}>"

    def _repr_html_(self) -> str:
        """What a notebook shows. No value is decoded for it."""
        error = "" if self.error is None else str(self.error)
        used = self.resources_used.to_json() if self.resources_used is not None else {}
        fields = [
            ("status", self.status.name), ("host", self.host), ("attempt", self.attempt), ("error", error),
            ("overrides", " ".join(self.overrides or ())), ("output_dir", self.output_dir or ""),
            ("seconds", "" if self.duration is None else f"{self.duration:.2f}"), *used.items(),
        ]  # fmt: skip
        return table_html(f"job {self.num}", ("", ""), [one for one in fields if one[1] != ""])

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return (own_job_return, (fields,))


def make_job_return(
    returned: Returned,
    job_id: str,
    code: dict[str, Any],
    decoder: Decoder,
    own_config: Callable[[int], tuple[Any, Any]],
) -> JobReturn:
    """Make the JobReturn of a job that has returned.

    Args:
        own_config: num -> (cfg, hydra_cfg) as the controller sent them, for configs that came back unchanged.
    """
    event, stored = returned.event, returned.stored
    envelope = stored.envelope if stored is not None else None
    parts = stored.parts.by_name if stored is not None else {}
    error = JobError.from_json(event.error) if event.error else None
    num = event.num

    own: list[tuple[Any, Any]] = []

    def own_part(index: int) -> Any:
        if not own:
            own.append(own_config(num))
        return own[0][index]

    def config(index: int, name: str) -> Any:
        if stored is not None and name in parts:
            return LateValue(lambda: decoder.part(stored, name))
        return LateValue(lambda: own_part(index))

    value: Any = None
    if stored is not None and "value" in parts:
        value = LateValue(lambda: _value(stored, error, decoder))
    elif error is not None:
        value = RemoteJobError(error, event.host)
    return _ControllerJobReturn(
        overrides=list(event.overrides),
        cfg=config(0, "cfg"),
        hydra_cfg=config(1, "hydra_cfg"),
        working_dir=str(returned.output_dir),
        task_name=envelope.task_name if envelope is not None else None,
        status=JobStatus[event.status],
        _return_value=value,
        job_id=job_id,
        num=num,
        host=event.host,
        attempt=event.attempt,
        started_at=envelope.started_at if envelope is not None else None,
        ended_at=envelope.ended_at if envelope is not None else None,
        duration=event.duration,
        output_dir=str(returned.output_dir),
        error=error,
        hooks=envelope.hooks if envelope is not None else [],
        code=(envelope.code if envelope is not None else {}) or code,
        stopped=event.stopped,
        resources_used=None if event.resources_used is None else ResourcesUsed.from_json(event.resources_used),
    )


def _value(stored: StoredResult, error: JobError | None, decoder: Decoder) -> Any:
    """Return the return value; for a failed job its exception, or a RemoteJobError if that is not available here."""
    if error is None:
        return decoder.part(stored, "value")
    if decoder.policy == "safe":
        # Making an exception runs code of its class.
        return RemoteJobError(error, stored.host)
    try:
        exception = decoder.part(stored, "value")
    except Exception:  # its class may be missing here, or forbidden; then only the text is known # noqa: BLE001
        return RemoteJobError(error, stored.host)
    return exception if isinstance(exception, BaseException) else RemoteJobError(error, stored.host)


class JobReturns(Sequence[JobReturn]):
    """The JobReturns of a run in the order of its jobs, read from the journal one by one.

    A sequence, not a list: a run of 100,000 jobs does not have to fit into memory. `list(returns)` makes a list.
    """

    def __init__(
        self,
        count: int,
        load: Callable[[int], JobReturn],
        make_dataframe: Callable[[], Any],
        make_html: Callable[[], str],
    ) -> None:
        self._count = count
        self._load = load
        self._make_dataframe = make_dataframe
        self._make_html = make_html

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> JobReturn: ...
    @overload
    def __getitem__(self, index: slice) -> list[JobReturn]: ...
    def __getitem__(self, index: int | slice) -> JobReturn | list[JobReturn]:
        if isinstance(index, slice):
            return [self._load(num) for num in range(*index.indices(self._count))]
        if index < 0:
            index += self._count
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._load(index)

    def __iter__(self) -> Iterator[JobReturn]:
        return (self._load(num) for num in range(self._count))

    def to_dataframe(self) -> Any:
        """Return a pandas DataFrame with a row for each job, and the columns of `launcher table --csv`.

        Values come from their plain form alone, whatever the run's `results` policy is. Nothing is unpickled.

        Raises:
            UsageError: pandas is not installed.
        """
        return self._make_dataframe()

    def _repr_html_(self) -> str:
        """What a notebook shows: a table of the jobs."""
        return self._make_html()

    def __repr__(self) -> str:
        return f"<JobReturns of {self._count} jobs>"


def load_returned(reader: JournalReader, num: int) -> Returned:
    """Load how a job ended, from the journal.

    Raises:
        LauncherError: the job has not returned.
    """
    event = reader.returned(num)
    if event is None:
        raise LauncherError(f"job {num} has not returned")
    job = reader.job(num)
    output_dir = Path(job[1]) if job else Path()
    return Returned(event, reader.result(num, event.attempt), output_dir)


def environment_of(code: Any) -> str:
    """The key of the environment that a job ran in, from what its JobReturn says of the code; empty for none."""
    told = code.get("environment") if isinstance(code, Mapping) else None
    key = told.get("key") if isinstance(told, Mapping) else None
    return str(key) if is_sha256(key) else ""
