"""The messages between controller, agent, zygote and job: the header of each, by its type.

Rule: a header is a dict, which costs nothing to pass on, and its type has every field. mypy checks that a sender gives
all fields, and that a reader uses no others. `ABSENT` has the values of fields that an earlier version or another
program left out. `remote_agent.protocol.wire` fills them in, so that a reader finds every field. Specs and envelopes are
read by their own classes.
"""

from typing import Any, Dict, List, Literal, Optional, Tuple, TypedDict, Union, get_args, get_origin

__all__ = ["ABSENT", "SCHEMA", "FromAgent", "FromController", "FromJob", "FromZygote", "Message"]

# -- a controller to an agent ----------------------------------------------------------------------------------------


class Hello(TypedDict):
    """A link begins. `slots` and `gpus` are as the user gave them.

    `needs`: the Resources of each job; None for jobs that take a slot as it is. `size`: those that the user says the host has.
    `lease`: seconds without a controller after which jobs end. `batch`: the batch system there, whose allocations run the jobs, and how to
    ask for them; None for a host that runs them itself. `sync`: a SyncSpec; None if output files come at the end of their job alone.
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
    """A job. `spec`: a JobSpec. Its payload is in this message, or has come as a blob."""

    t: Literal["job"]
    spec: Dict[str, Any]
    payload_blob: Optional[str]


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


# -- an agent to a controller ----------------------------------------------------------------------------------------


class Welcome(TypedDict):
    """The answer to a hello.

    The states of attempts are its payload, in as many parts as needed. (pid, hostname and spool are for debugging.)
    `logout`: those of the notes that say what the end of the login session does to the agent. `takes_back`: it knows the message
    `take_back`, and `stops` the message `stop`. `too_small`: why no job of the size that the run says can run there. `room`: a Room, which says what of the host the run's
    jobs may take; None from an earlier version, which knows no jobs of sizes of their own.
    """

    t: Literal["welcome"]
    version: int
    run: str
    hostname: str
    boot_id: str
    pid: int
    python: str
    slots: int
    gpus: List[str]
    spool: str
    notes: List[str]
    logout: List[str]
    takes_back: bool
    stops: bool
    too_small: str
    room: Optional[Dict[str, Any]]
    more: bool


class Missing(TypedDict):
    """Contents that are missing, of the code or of its manifest. `manifest`: the root of the manifest is missing.

    `more`: others may be, too.
    """

    t: Literal["missing"]
    sha256: List[str]
    manifest: Optional[str]
    more: bool


class Pythons(TypedDict):
    """The answer to `ask_pythons`; the payload is a HostFacts."""

    t: Literal["pythons"]


class EnvironmentState(TypedDict):
    """How an environment stands: `missing` (the payload lists [sha256, bytes that are there]), `sending`, `waiting`, `building` or `ready`.

    `waiting`: another run builds it. `done`, `total`: bytes. `fetched`: of these, what the host has fetched itself for this run.
    """

    t: Literal["environment_state"]
    key: str
    state: str
    done: int
    total: int
    fetched: int


class Imported(TypedDict):
    """What the import of the application did: whether it put configs into the ConfigStore, registered resolvers, or changed variables or
    the working folder; and which installed packages it loaded.
    """

    configs: bool
    resolvers: bool
    process: bool
    modules: List[str]


class Zygote(TypedDict):
    """The application is prepared, or cannot be prepared. `imported`: an Imported; None if it is not known."""

    t: Literal["zygote"]
    zygote: str
    state: str
    error: Optional[Dict[str, Any]]
    python: str
    isolation: str
    why: str
    notes: List[str]
    imported: Optional[Dict[str, Any]]


class Started(TypedDict):
    """An attempt has begun."""

    t: Literal["started"]
    attempt: str
    slot: int
    at: float


class Final(TypedDict):
    """The result of an attempt. `envelope`: an Envelope. `again`: the host has made the next attempt itself, which it runs or has run."""

    t: Literal["final"]
    attempt: str
    envelope: Dict[str, Any]
    parts: Dict[str, Any]
    again: bool


class Chunk(TypedDict):
    """A part of a long result (`kind`: result) or file (`kind`: file). `parts`: with the first chunk of a result."""

    t: Literal["chunk"]
    attempt: str
    kind: str
    path: str
    mode: int
    mtime: Optional[int]
    size: int
    offset: int
    parts: Optional[Dict[str, Any]]


class Files(TypedDict):
    """Complete small files, as [path, mode, size, mtime]."""

    t: Literal["files"]
    attempt: str
    items: List[Any]


class Tree(TypedDict):
    """Links as [path, text], folders as [path, mtime]."""

    t: Literal["tree"]
    attempt: str
    links: List[Any]
    folders: List[Any]


class Synced(TypedDict):
    """A part of a file of an attempt that runs. The file has grown from `base` bytes to `size`; with `base` 0 it is sent as a whole."""

    t: Literal["synced"]
    attempt: str
    path: str
    mode: int
    size: int
    base: int
    offset: int


class FilesEnd(TypedDict):
    """Everything of an attempt was sent. `refused`, `noted`: [path, why]."""

    t: Literal["files_end"]
    attempt: str
    refused: List[Any]
    sizes: Dict[str, Any]
    cut: Optional[Dict[str, Any]]
    noted: List[Any]
    unmatched: List[int]


class Output(TypedDict):
    """What a job printed."""

    t: Literal["output"]
    attempt: str
    stream: str
    offset: int


class Reports(TypedDict):
    """What an attempt has reported. `items`: [number, Report] of each, in order; numbers begin with 1 and have gaps where nothing was kept."""

    t: Literal["reports"]
    attempt: str
    items: List[Any]


class Surveyed(TypedDict):
    """The answer to `survey`."""

    t: Literal["surveyed"]
    more: bool


class EnvironmentsListed(TypedDict):
    """The answer to `list_environments`; the payload is a JSON list."""

    t: Literal["environments_listed"]
    more: bool


class GpusListed(TypedDict):
    """The answer to `list_gpus`; the payload is a JSON list.

    `source`: what told them. `error`: what could not be read. `why`: why a run could not have those that it asks for. `covers_host`: leases hold on
    the whole host.
    """

    t: Literal["gpus_listed"]
    source: str
    error: str
    why: str
    covers_host: bool
    more: bool


class UseListed(TypedDict):
    """The answer to `list_use`; the payload is a JSON object."""

    t: Literal["use_listed"]


class EnvironmentCompared(TypedDict):
    """The answer to `compare_environment`; the payload is a JSON object."""

    t: Literal["environment_compared"]


class Removed(TypedDict):
    """The answer to `remove`."""

    t: Literal["removed"]


class Looked(TypedDict):
    """The answer to `look`."""

    t: Literal["looked"]
    attempt: Optional[str]
    state: str
    more: bool


class Dropped(TypedDict):
    """An attempt is given back without having started, and never will. `asked`: it was asked for with `take_back`. `again`: see `final`."""

    t: Literal["dropped"]
    attempt: str
    why: str
    asked: bool
    again: bool


class Opened(TypedDict):
    """The host accepts jobs again."""

    t: Literal["opened"]


class Fatal(TypedDict):
    """A note for the user (`code`: note), or why the link ends."""

    t: Literal["fatal"]
    code: str
    message: str


# -- an agent to a zygote --------------------------------------------------------------------------------------------


class Start(TypedDict):
    """Start a process, with three descriptors and those of its GPUs. `spec`: a ForkSpec or an EpilogueSpec. `leases`: how many the last are.

    Also from an agent to a worker that waits: do this job next. Two descriptors and those of its GPUs come with it, because the worker has its
    socket.
    """

    t: Literal["fork", "epilogue"]
    attempt: str
    spec: Dict[str, Any]
    leases: int


class Warm(TypedDict):
    """Become a warm interpreter. The payload is a WarmSpec, as JSON."""

    t: Literal["warm"]


class Adopt(TypedDict):
    """Become the zygote's process of a run, whose log's descriptor comes along. `variables`: those that each login sets anew."""

    t: Literal["adopt"]
    key: str
    variables: Dict[str, str]


# -- a zygote to its agent -------------------------------------------------------------------------------------------


class Preparing(TypedDict):
    """It runs under the jobs' Python, and begins to prepare the application."""

    t: Literal["preparing"]


class Adopted(TypedDict):
    """A warm interpreter is the zygote's process from now on."""

    t: Literal["adopted"]


class Ready(TypedDict):
    """The application is prepared. `imported`: an Imported; None if it is not known, as where each job imports it. The payload, if there is
    one, is a JSON object of what a warm interpreter for the next run imports.
    """

    t: Literal["ready"]
    python: str
    isolation: str
    why: str
    notes: List[str]
    imported: Optional[Dict[str, Any]]


class Unusable(TypedDict):
    """The application cannot be prepared. `error`: a JobError."""

    t: Literal["unusable"]
    error: Dict[str, Any]


class Forked(TypedDict):
    """A process has begun."""

    t: Literal["forked"]
    attempt: str
    pid: int


class Exited(TypedDict):
    """A process has ended. `status` is that of waitpid. `used`: a ResourcesUsed of its whole life, as the system says; None if it was never made."""

    t: Literal["exited"]
    attempt: str
    status: int
    used: Optional[Dict[str, Any]]


# -- an agent to a job -----------------------------------------------------------------------------------------------


class Kept(TypedDict):
    """The job's result is in the log."""

    t: Literal["kept"]


# -- a job to its agent ----------------------------------------------------------------------------------------------


class Hook(TypedDict):
    """A hook is about to be called."""

    t: Literal["hook"]
    hook: str
    callback: str
    index: int


class State(TypedDict):
    """The state of the callbacks after on_job_start, perhaps in a file; or `why` it could not be saved."""

    t: Literal["state"]
    file: Optional[str]
    error: Optional[str]


class Result(TypedDict):
    """The outcome of the application, and later that of the whole job. `envelope`: an Envelope. `spent`: seconds of CPU time of its process so far."""

    t: Literal["outcome", "done"]
    envelope: Dict[str, Any]
    parts: Dict[str, Any]
    spent: float


class Ending(TypedDict):
    """What the end of the process waits for."""

    t: Literal["ending"]
    running: List[Any]


class Idle(TypedDict):
    """The job is over. Its process is a worker, and waits for another one."""

    t: Literal["idle"]


FromController = Union[
    Hello,
    Prepare,
    AskPythons,
    Environment,
    Manifest,
    Blob,
    Blobs,
    Withheld,
    SendJob,
    Cancel,
    TakeBack,
    Ack,
    Go,
    Stop,
    Finish,
    Look,
    Survey,
    ListEnvironments,
    ListGpus,
    ListUse,
    CompareEnvironment,
    Remove,
    Ping,
    Pong,
]
FromAgent = Union[
    Welcome,
    Missing,
    Pythons,
    EnvironmentState,
    Zygote,
    Started,
    Final,
    Chunk,
    Files,
    Tree,
    Synced,
    FilesEnd,
    Output,
    Reports,
    Surveyed,
    EnvironmentsListed,
    GpusListed,
    UseListed,
    EnvironmentCompared,
    Removed,
    Looked,
    Dropped,
    Opened,
    Fatal,
    Ping,
    Pong,
]
FromAgentToZygote = Union[Start, Prepare, Warm, Adopt]
FromZygote = Union[Adopted, Preparing, Ready, Unusable, Forked, Exited]
ToJob = Union[Kept, Cancel, Start]
FromJob = Union[Hook, State, Result, Ending, Idle]
Message = Union[FromController, FromAgent, FromAgentToZygote, FromZygote, ToJob, FromJob]

#: message -> field -> its value if it is missing; `list` and `dict` mean an empty one.
ABSENT: Dict[str, Dict[str, Any]] = {
    "hello": {
        "slots": None,
        "gpus": None,
        "needs": None,
        "size": None,
        "lease": None,
        "live": False,
        "batch": None,
        "sync": None,
    },
    "blob": {"scope": "cache"},
    "ask_pythons": {"python": None},
    "environment": {"budget": None, "addresses": dict, "named": False, "fetch_python": False},
    "withheld": {"environment": False},
    "environment_state": {"done": 0, "total": 0, "fetched": 0},
    "job": {"payload_blob": None},
    "cancel": {"kill": False, "kind": "cancelled", "why": ""},
    "finish": {"keep": False, "interrupted": False},
    "look": {"stdout": 0, "stderr": 0},
    "remove": {"force": False},
    "welcome": {
        "gpus": list,
        "notes": list,
        "logout": list,
        "takes_back": False,
        "stops": False,
        "too_small": "",
        "room": None,
        "more": False,
    },
    "missing": {"manifest": None, "more": False},
    "zygote": {"error": None, "python": "", "isolation": "", "why": "", "notes": list, "imported": None},
    "dropped": {"asked": False, "again": False},
    "final": {"parts": dict, "again": False},
    "chunk": {"path": "", "mode": 0, "mtime": None, "parts": None},
    "tree": {"folders": list, "links": list},
    "files_end": {"sizes": dict, "cut": None, "noted": list, "unmatched": list},
    "surveyed": {"more": False},
    "environments_listed": {"more": False},
    "list_gpus": {"gpus": None},
    "gpus_listed": {"more": False},
    "looked": {"more": False},
    "ready": {"why": "", "notes": list, "imported": None},
    "fork": {"leases": 0},
    "epilogue": {"leases": 0},
    "exited": {"used": None},
    "state": {"file": None, "error": None},
    "outcome": {"parts": dict, "spent": 0.0},
    "done": {"parts": dict, "spent": 0.0},
}


def _types(kind: Any) -> Tuple[type, ...]:
    """Return the types that a value may have. The content of a list or an object is checked by its reader."""
    origin = get_origin(kind)
    if origin is Union:
        return tuple(one for inner in get_args(kind) for one in _types(inner))
    return (int, float) if kind is float else (origin or kind,)


def _schema(cls: type) -> Dict[str, Dict[str, Tuple[Tuple[type, ...], bool]]]:
    kinds = dict(cls.__annotations__)
    return {
        name: {field: (_types(kind), field not in ABSENT.get(name, ())) for field, kind in kinds.items()}
        for name in get_args(kinds.pop("t"))
    }


#: message -> field -> (types, required). Other fields are accepted, because a later version may send more.
SCHEMA: Dict[str, Dict[str, Tuple[Tuple[type, ...], bool]]] = {}
for _one in get_args(Message):
    SCHEMA.update(_schema(_one))
