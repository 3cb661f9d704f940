"""The result of a job: JobReturn, JobStatus, JobError, ResourcesUsed.

Rule: everything that decides (status, error text, times, sizes, digests) is plain JSON data. A user's objects (the
return value, an exception, an edited config) are separate opaque bytes, which are decoded only when they are read.
"""

import enum
import re
import sys
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

__all__ = [
    "ENVIRONMENT_FAILED",
    "ERROR_KINDS",
    "IMPORTING",
    "PYTHON_FAILED",
    "PYTHON_TOO_OLD",
    "SETUP_FAILED",
    "STORE_FAILED",
    "JobError",
    "JobReturn",
    "JobStatus",
    "RemoteJobError",
    "ResourcesUsed",
    "with_article",
]

#: The variable that has the application's module name while a zygote imports it.
IMPORTING = "HYDRA_REMOTE_LAUNCHER_IMPORTING"

#: `JobError.type` (of kind `host`) if a setup line of a host failed. Jobs cannot run there, but perhaps on another host.
SETUP_FAILED = "SetupFailed"
#: The same if the disk there does not take the code, or the callbacks and the task.
STORE_FAILED = "StoreFailed"
#: The same if the jobs' Python cannot be started there, or is too old.
PYTHON_FAILED = "PythonFailed"
PYTHON_TOO_OLD = "PythonTooOld"
#: The same if the environment of packages cannot be made there.
ENVIRONMENT_FAILED = "EnvironmentFailed"

#: Values of `JobError.kind`.
#:
#: `exception`: the application (or a hook with `on_error = "fail"`) raised. `exited`: it left by `sys.exit` with a
#: non-zero code or by `os._exit`. `killed`: a signal ended it. `timeout`, `cancelled`: we ended it for this reason, which
#: was recorded before the signal. `lost`: its host was given up or lost power. `unpicklable`: its return value cannot be
#: serialized. `config`: its config could not be composed. `import`: the application could not be imported on the host.
#: `hook`: a hook with `on_error = "fail"` raised. `host`: the host could not set the job up (disk full, no fork).
#: `out_of_memory`, `preempted`, `time_limit`, `node_failed`: a batch system ended it, or its allocation, for this reason.
ERROR_KINDS = (
    "exception",
    "exited",
    "killed",
    "timeout",
    "cancelled",
    "lost",
    "unpicklable",
    "config",
    "import",
    "hook",
    "host",
    "out_of_memory",
    "preempted",
    "time_limit",
    "node_failed",
)


#: Words that are written with a vowel and spoken with a consonant.
_LIKE_A_CONSONANT = re.compile(r"eu|one|u(?:ni|se|til|u)", re.IGNORECASE)


def with_article(name: str) -> str:
    """Return a name with its article: `a dict`, `an int`, `an io.TextIOWrapper`."""
    is_vowel = name[:1].lower() in tuple("aeiou") and not _LIKE_A_CONSONANT.match(name)
    return "{} {}".format("an" if is_vowel else "a", name)


class JobStatus(enum.Enum):
    """How a job ended. It has the members of Hydra's JobStatus."""

    __module__ = "remote_agent"  # for good: pickles name it

    UNKNOWN = 0
    COMPLETED = 1
    FAILED = 2


@dataclass
class JobError:
    """Why a job is FAILED, in plain text and numbers that any process can read.

    `traceback` is the remote traceback as text. `causes` has `{"type", "message", "relation"}` of each exception in the
    chain, the outermost first. `relation` is `cause` or `context`. `exit_code` is set for `exited`, `signal` (its
    number) for `killed`.
    """

    __module__ = "remote_agent"  # for good: pickles name it

    kind: str
    type: str = ""
    message: str = ""
    traceback: str = ""
    exit_code: Optional[int] = None
    signal: Optional[int] = None
    causes: List[Dict[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        what = self.type.rpartition(".")[2] if self.type else self.kind
        return "{}: {}".format(what, self.message) if self.message else what

    def to_json(self) -> Dict[str, Any]:
        """Return the error as a JSON object, which `from_json` reads."""
        return {
            "kind": self.kind,
            "type": self.type,
            "message": self.message,
            "traceback": self.traceback,
            "exit_code": self.exit_code,
            "signal": self.signal,
            "causes": self.causes,
        }

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> "JobError":
        """Read an error from the JSON object that a host sent. Unknown keys are ignored, and wrong types are refused.

        Raises:
            ValueError: a field has the wrong type, or `kind` is unknown.
        """
        if not isinstance(data, dict):
            raise ValueError("the error is not an object")  # noqa: TRY004 - of the data, not of a caller
        kind = data.get("kind")
        if kind not in ERROR_KINDS:
            raise ValueError("unknown error kind {!r}".format(kind))
        for name in ("type", "message", "traceback"):
            if not isinstance(data.get(name, ""), str):
                raise ValueError("error.{} is not text".format(name))  # noqa: TRY004 - of the data, not of a caller
        for name in ("exit_code", "signal"):
            value = data.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise ValueError("error.{} is not a whole number".format(name))
        causes = data.get("causes", [])
        if not isinstance(causes, list) or not all(
            isinstance(cause, dict) and all(isinstance(v, str) for v in cause.values()) for cause in causes
        ):
            raise ValueError("error.causes is not a list of objects of text")
        return cls(
            kind=kind,
            type=data.get("type", ""),
            message=data.get("message", ""),
            traceback=data.get("traceback", ""),
            exit_code=data.get("exit_code"),
            signal=data.get("signal"),
            causes=causes,
        )


#: More than any host has, of bytes; and more than any job takes, of seconds.
_MOST_BYTES = 1 << 60
_MOST_SECONDS = 1e11
#: Of each field of ResourcesUsed: whether it counts bytes, and the greatest value that it may have.
_RESOURCES = {
    "wall_seconds": (False, _MOST_SECONDS),
    "cpu_seconds": (False, _MOST_SECONDS),
    "peak_memory": (True, _MOST_BYTES),
    "gpu_share": (False, 1.0),
    "peak_gpu_memory": (True, _MOST_BYTES),
    "bytes_in": (True, _MOST_BYTES),
    "bytes_out": (True, _MOST_BYTES),
}
#: Nothing fits it.
_NO_FIELD = (True, -1)


@dataclass
class ResourcesUsed:
    """What a job has used, until its result or its death. None: it is not known; it never means 0.

    `wall_seconds`: from its begin to its end. `cpu_seconds`: user and system time of its process and of the children that it has waited for, and of
    those that were seen while they ran. `peak_memory`: bytes of resident memory; the greatest of what its process had, what one of its children had, and
    what all of them had together whenever it was looked. `gpu_share`: the share of the time, from 0 to 1, in which its GPUs worked, the mean of what
    was seen of each. `peak_gpu_memory`: bytes of the memory of its GPUs that were seen used at once, of all of them together. `bytes_in`: what was sent to
    the host for this job alone. `bytes_out`: the value, the output files, and what it printed, as they came back.
    """

    __module__ = "remote_agent"  # for good: pickles name it

    wall_seconds: Optional[float] = None
    cpu_seconds: Optional[float] = None
    peak_memory: Optional[int] = None
    gpu_share: Optional[float] = None
    peak_gpu_memory: Optional[int] = None
    bytes_in: Optional[int] = None
    bytes_out: Optional[int] = None

    def to_json(self) -> Dict[str, Any]:
        """Return what is known as a JSON object, which `from_json` reads."""
        return {name: value for name, value in self.__dict__.items() if value is not None}

    @classmethod
    def from_json(cls, data: Any) -> "ResourcesUsed":
        """Read what a host sent. A number that cannot be true is not known: it must not cost the result that it came with.

        Raises:
            ValueError: it is no object.
        """
        if not isinstance(data, dict):
            raise ValueError("resources_used is not an object")  # noqa: TRY004 - of the data, not of a caller
        made = cls()
        for name, value in data.items():
            is_bytes, most = _RESOURCES.get(name, _NO_FIELD)
            if (type(value) is int or (type(value) is float and not is_bytes)) and 0 <= value <= most:
                setattr(made, name, value if is_bytes else float(value))
        return made


class RemoteJobError(RuntimeError):
    """Raised for a failed job if its original exception could not be sent or decoded, or if there was none.

    `error` is the JobError. Its text, with the remote traceback, is the exception's message.
    """

    __module__ = "remote_agent"  # for good: pickles name it

    def __init__(self, error: JobError, where: str = "") -> None:
        self.error = error
        self.where = where
        text = str(error)
        if where:
            text = "{} on {}".format(text, where)
        if error.traceback:
            text = "{}\n\nRemote traceback:\n{}".format(text, error.traceback.rstrip())
        super().__init__(text)

    def __reduce__(self) -> Tuple[Any, ...]:
        return (RemoteJobError, (self.error, self.where))


#: Decodes bytes when they are read, or returns the value itself.
_Thunk = Callable[[], Any]


@dataclass
class JobReturn:
    """The result of a job. The first fields and their meaning are those of Hydra's JobReturn (hydra/core/utils.py,
    1.3).

    On the host, `working_dir` and `output_dir` are the host's. On the controller, both are the local output directory.
    `started_at` and `ended_at` are seconds since the epoch by the host's clock, `duration` is seconds by its monotonic
    clock. `hooks` lists what fired, in order, as `{"hook", "callback", "ok"}`. `code` describes the snapshot that ran:
    `{"hash", "commit", "dirty"}` (empty where the code was shared in place), and "warm" if an interpreter had waited for the run.
    `stopped`: the job was asked to stop, and a report of it has raised StopRequested. `resources_used`: what the job has used of its host; None if
    it never ran, or if an earlier version ran it.
    """

    __module__ = "remote_agent"  # for good: pickles name it

    overrides: Optional[List[str]] = None
    cfg: Any = None
    hydra_cfg: Any = None
    working_dir: Optional[str] = None
    task_name: Optional[str] = None
    status: Any = JobStatus.UNKNOWN
    _return_value: Any = None
    job_id: str = ""
    num: int = 0
    host: str = ""
    attempt: int = 1
    started_at: Optional[float] = None
    ended_at: Optional[float] = None
    duration: Optional[float] = None
    output_dir: Optional[str] = None
    error: Optional[JobError] = None
    hooks: List[Dict[str, Any]] = field(default_factory=list)
    code: Dict[str, Any] = field(default_factory=dict)
    stopped: bool = False
    resources_used: Optional[ResourcesUsed] = None

    @property
    def return_value(self) -> Any:
        """The value that the task returned.

        Raises:
            BaseException: the job failed. It is the original exception if that could be sent and decoded, else
            `RemoteJobError`. The remote traceback is written to stderr first (Hydra writes a line there, too).
        """
        value = self._return_value
        if isinstance(value, LateValue):
            value = self._return_value = value.load()
        name = getattr(self.status, "name", str(self.status))
        if name == "UNKNOWN":
            raise RuntimeError("return_value was read before the job ended")
        if name == "COMPLETED":
            return value
        where = self.host
        has_own_text = not isinstance(value, BaseException) or isinstance(value, RemoteJobError)
        if self.error is not None and self.error.traceback and not has_own_text:
            sys.stderr.write(
                "Error executing job with overrides: {}{}\n{}\n".format(
                    self.overrides, " on {}".format(where) if where else "", self.error.traceback.rstrip()
                )
            )
        if isinstance(value, BaseException):
            raise value
        raise RemoteJobError(self.error or JobError("exception", message="failed"), where)

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


def same(value: Any) -> Any:
    """Return the value itself. Pickles have it in place of the function that would have decoded the value."""
    return value


#: Pickles look for it there (docs/stored.md).
same.__module__ = "remote_agent.by_reference"


class LateValue:
    """A return value that is decoded when it is read. `load` may raise."""

    def __init__(self, load: Union[_Thunk, None]) -> None:
        self._load = load

    def load(self) -> Any:
        if self._load is None:
            return None
        return self._load()

    def __reduce__(self) -> Tuple[Any, ...]:
        # A pickled JobReturn has the value itself.
        return (same, (self.load(),))


#: The first version's pickles look for it under this name.
_identity = same
