"""What a controller says to an agent."""

from typing import Any, Dict, List, Literal, Optional, TypedDict, Union

__all__ = [
    "Ack",
    "AskPythons",
    "Blob",
    "Blobs",
    "Cancel",
    "CompareEnvironment",
    "Environment",
    "Finish",
    "Go",
    "Held",
    "Hello",
    "ListEnvironments",
    "ListGpus",
    "ListUse",
    "Look",
    "Manifest",
    "Ping",
    "Pong",
    "Prepare",
    "Remove",
    "SendJob",
    "Stop",
    "Survey",
    "TakeBack",
    "Withheld",
]


class Hello(TypedDict):
    """A link begins. `slots` and `gpus` are as the user gave them.

    `needs`: the Resources of each job; None for jobs that take a slot as it is. `size`: those that the user says the host has.
    `lease`: seconds without a controller after which jobs end. `batch`: the batch system there, whose allocations run the jobs, and how to
    ask for them; None for a host that runs them itself. `sync`: a SyncSpec; None if output files come at the end of their job alone. `holes`: the
    controller understands chunks with a `hole`.
    """

    t: Literal["hello"]
    version: int
    run: str
    controller: str
    host: str
    slots: Union[int, str, None]
    gpus: Union[List[Any], int, str, None]
    needs: Optional[Dict[str, Any]]
    size: Optional[Dict[str, Any]]
    lease: Optional[float]
    live: bool
    batch: Optional[Dict[str, Any]]
    sync: Optional[Dict[str, Any]]
    holes: bool


class Prepare(TypedDict):
    """How to prepare the application; also from an agent to its zygote. `spec`: a ZygoteSpec."""

    t: Literal["prepare"]
    zygote: str
    spec: Dict[str, Any]


class Manifest(TypedDict):
    """The code that is sent."""

    t: Literal["manifest"]
    sha256: str


class Blob(TypedDict):
    """A part of a content. `scope`: `run`, or `cache` to keep it for later runs, too."""

    t: Literal["blob"]
    sha256: str
    size: int
    offset: int
    scope: str


class Blobs(TypedDict):
    """Many small contents, each as [sha256, size]."""

    t: Literal["blobs"]
    items: List[Any]


class AskPythons(TypedDict):
    """Ask which Pythons the host has; the answer is `pythons`. `python`: the only one that counts, by path or name."""

    t: Literal["ask_pythons"]
    python: Optional[str]


class Environment(TypedDict):
    """The environment that the application needs. The payload is an EnvironmentSpec.

    `budget`: the bytes that all environments may have before it is built. `addresses`: sha256 -> where the host may fetch that wheel
    itself. `named`: the user has named the beginnings of these addresses, so they may be in a private network.
    `fetch_python`: uv may fetch the Python if that is not there.
    """

    t: Literal["environment"]
    key: str
    budget: Optional[int]
    addresses: Dict[str, Any]
    named: bool
    fetch_python: bool


class Withheld(TypedDict):
    """Requested contents cannot be sent. `environment`: the environment cannot be made."""

    t: Literal["withheld"]
    message: str
    environment: bool


class SendJob(TypedDict):
    """A job. `spec`: a JobSpec. Its payload is in this message, or has come as a blob. `last`: the controller knows that no other follows soon."""

    t: Literal["job"]
    spec: Dict[str, Any]
    payload_blob: Optional[str]
    last: bool


class Cancel(TypedDict):
    """End these attempts, or all; also from an agent to a job."""

    t: Literal["cancel"]
    attempts: Optional[List[str]]
    kill: bool
    kind: str
    why: str


class TakeBack(TypedDict):
    """Give these attempts back if they have not started. Each is answered with `dropped`, or with `started` if it has."""

    t: Literal["take_back"]
    attempts: List[str]


class Ack(TypedDict):
    """The controller has stored these results."""

    t: Literal["ack"]
    attempts: List[str]


class Held(TypedDict):
    """What the controller holds of the files of an attempt. Payload: a JSON list of HeldFiles. `more`: further ones follow."""

    t: Literal["held"]
    attempt: str
    more: bool


class Go(TypedDict):
    """Attempts that an earlier agent accepted may start."""

    t: Literal["go"]


class Stop(TypedDict):
    """Ask these attempts to stop at their next report. One that has not started never does. One that has ended stays as it is."""

    t: Literal["stop"]
    attempts: List[str]


class Finish(TypedDict):
    """The run is over. `keep`: its spool stays. `interrupted`: it was stopped, and no process is left for later runs."""

    t: Literal["finish"]
    keep: bool
    interrupted: bool


class Look(TypedDict):
    """A query for the state of one attempt or all, which changes nothing."""

    t: Literal["look"]
    attempt: Optional[str]
    stdout: int
    stderr: int


class Survey(TypedDict):
    """A request for a list of what runs have left."""

    t: Literal["survey"]


class ListEnvironments(TypedDict):
    """A request for a list of the environments of packages."""

    t: Literal["list_environments"]


class ListGpus(TypedDict):
    """A request for a list of the host's GPUs. `gpus`: those that a run asks for, as in `hello`."""

    t: Literal["list_gpus"]
    gpus: Union[List[Any], int, str, None]


class ListUse(TypedDict):
    """A question for what runs on the host now."""

    t: Literal["list_use"]


class CompareEnvironment(TypedDict):
    """What of an environment is there; the payload is an EnvironmentSpec."""

    t: Literal["compare_environment"]


class Remove(TypedDict):
    """Remove these items of a survey."""

    t: Literal["remove"]
    items: List[str]
    force: bool


class Ping(TypedDict):
    """A question whether the peer is there; from either side."""

    t: Literal["ping"]
    n: int


class Pong(TypedDict):
    """The answer to a ping."""

    t: Literal["pong"]
    n: int
