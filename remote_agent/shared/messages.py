"""The messages between controller, agent, zygote and job: the header of each, by its type.

Rule: a header is a dict, which costs nothing on its way; its type says every field. Whoever makes one says all of them, or mypy
complains, and whoever reads one names no other. `ABSENT` is what a field is taken for where an earlier version, or another hand, left
it out; `remote_agent.shared.wire` puts it there, so that a reader finds every field. Specs and envelopes are read by their own classes.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Literal, Optional, Tuple, TypedDict, Union, get_args

__all__ = ["ABSENT", "SCHEMA", "FromAgent", "FromController", "FromJob", "FromZygote", "Message"]

# -- a controller to an agent ----------------------------------------------------------------------------------------


class Hello(TypedDict):
    """A link begins. `slots` and `gpus` as the user gave them; `lease`: seconds without a controller after which jobs end."""

    t: Literal["hello"]
    version: int
    run: str
    controller: str
    host: str
    slots: Union[int, str, None]
    gpus: Union[List[str], int, None]
    lease: Optional[float]
    live: bool


class Prepare(TypedDict):
    """How the application is prepared; also from an agent to its zygote. `spec`: a ZygoteSpec."""

    t: Literal["prepare"]
    zygote: str
    spec: Dict[str, Any]


class Manifest(TypedDict):
    """The code that travels."""

    t: Literal["manifest"]
    sha256: str


class Blob(TypedDict):
    """A piece of a content; `scope`: `run`, or `cache` for later runs too."""

    t: Literal["blob"]
    sha256: str
    size: int
    offset: int
    scope: str


class Blobs(TypedDict):
    """Many small contents, as [sha256, size]."""

    t: Literal["blobs"]
    items: List[Any]


class AskPythons(TypedDict):
    """Which Pythons are there; the answer is `pythons`. `python`: the only one that counts, by its path or name."""

    t: Literal["ask_pythons"]
    python: Optional[str]


class Environment(TypedDict):
    """The environment of the application; the payload is an EnvironmentSpec."""

    t: Literal["environment"]
    key: str


class Withheld(TypedDict):
    """What was asked for cannot be sent; `environment`: there can be no environment."""

    t: Literal["withheld"]
    message: str
    environment: bool


class SendJob(TypedDict):
    """A job; `spec`: a JobSpec. Its payload comes along, or has come as a blob."""

    t: Literal["job"]
    spec: Dict[str, Any]
    payload_blob: Optional[str]


class Cancel(TypedDict):
    """These attempts, or all, are to end; also from an agent to a job."""

    t: Literal["cancel"]
    attempts: Optional[List[str]]
    kill: bool
    kind: str
    why: str


class Ack(TypedDict):
    """These results are safe."""

    t: Literal["ack"]
    attempts: List[str]


class Go(TypedDict):
    """What an earlier agent took may start."""

    t: Literal["go"]


class Finish(TypedDict):
    """The run is over; `keep`: its spool stays."""

    t: Literal["finish"]
    keep: bool


class Look(TypedDict):
    """How an attempt stands, or all of them, from somebody who only looks."""

    t: Literal["look"]
    attempt: Optional[str]
    stdout: int
    stderr: int


class Survey(TypedDict):
    """What runs have left."""

    t: Literal["survey"]


class Remove(TypedDict):
    """Remove these items of a survey."""

    t: Literal["remove"]
    items: List[str]
    force: bool


class Ping(TypedDict):
    """Are you there; from either side."""

    t: Literal["ping"]
    n: int


class Pong(TypedDict):
    """Here."""

    t: Literal["pong"]
    n: int


# -- an agent to a controller ----------------------------------------------------------------------------------------


class Welcome(TypedDict):
    """The answer to a hello, in as many parts as the states of attempts, its payload, need. (Who debugs reads pid, hostname and spool.)"""

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
    more: bool


class Missing(TypedDict):
    """Contents that are not there; `manifest`: that of the code."""

    t: Literal["missing"]
    sha256: List[str]
    manifest: Optional[str]
    more: bool


class Pythons(TypedDict):
    """The answer to `ask_pythons`; the payload is a HostFacts."""

    t: Literal["pythons"]


class EnvironmentState(TypedDict):
    """How an environment stands: `missing` (the payload lists [sha256, bytes that are there]), `sending`, `waiting`, `building` or `ready`.

    `waiting`: another run builds it. `done`, `total`: bytes.
    """

    t: Literal["environment_state"]
    key: str
    state: str
    done: int
    total: int


class Zygote(TypedDict):
    """The application is prepared, or cannot be."""

    t: Literal["zygote"]
    zygote: str
    state: str
    error: Optional[Dict[str, Any]]
    python: str
    isolation: str
    why: str
    notes: List[str]


class Started(TypedDict):
    """An attempt began."""

    t: Literal["started"]
    attempt: str
    slot: int
    at: float


class Final(TypedDict):
    """The result of an attempt; `envelope`: an Envelope."""

    t: Literal["final"]
    attempt: str
    envelope: Dict[str, Any]
    parts: Dict[str, Any]


class Chunk(TypedDict):
    """A piece of a long result (`kind`: result) or file (file). `parts`: with the first of a result."""

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
    """Small files, whole, as [path, mode, size, mtime]."""

    t: Literal["files"]
    attempt: str
    items: List[Any]


class Tree(TypedDict):
    """Links as [path, text], folders as [path, mtime]."""

    t: Literal["tree"]
    attempt: str
    links: List[Any]
    folders: List[Any]


class FilesEnd(TypedDict):
    """All of an attempt was sent. `refused`, `noted`: [path, why]."""

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


class Surveyed(TypedDict):
    """The answer to `survey`."""

    t: Literal["surveyed"]
    more: bool


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
    """An attempt is given back unstarted."""

    t: Literal["dropped"]
    attempt: str
    why: str


class Opened(TypedDict):
    """The host takes jobs again."""

    t: Literal["opened"]


class Fatal(TypedDict):
    """What concerns the user (`code`: note), or why the link ends."""

    t: Literal["fatal"]
    code: str
    message: str


# -- an agent to a zygote --------------------------------------------------------------------------------------------


class Start(TypedDict):
    """Start a process, with three descriptors. `spec`: a ForkSpec or an EpilogueSpec."""

    t: Literal["fork", "epilogue"]
    attempt: str
    spec: Dict[str, Any]


# -- a zygote to its agent -------------------------------------------------------------------------------------------


class Ready(TypedDict):
    """The application is prepared."""

    t: Literal["ready"]
    python: str
    isolation: str
    why: str
    notes: List[str]


class Unusable(TypedDict):
    """It cannot be. `error`: a JobError."""

    t: Literal["unusable"]
    error: Dict[str, Any]


class Forked(TypedDict):
    """A process began."""

    t: Literal["forked"]
    attempt: str
    pid: int


class Exited(TypedDict):
    """A process ended; `status` is that of waitpid."""

    t: Literal["exited"]
    attempt: str
    status: int


# -- an agent to a job -----------------------------------------------------------------------------------------------


class Kept(TypedDict):
    """Its result is in the log."""

    t: Literal["kept"]


# -- a job to its agent ----------------------------------------------------------------------------------------------


class Hook(TypedDict):
    """A hook is entered."""

    t: Literal["hook"]
    hook: str
    callback: str
    index: int


class State(TypedDict):
    """The callbacks after on_job_start; in a file, or they could not be kept: why."""

    t: Literal["state"]
    file: Optional[str]
    error: Optional[str]


class Result(TypedDict):
    """What came of the application; and then of all. `envelope`: an Envelope."""

    t: Literal["outcome", "done"]
    envelope: Dict[str, Any]
    parts: Dict[str, Any]


class Ending(TypedDict):
    """What its end waits for."""

    t: Literal["ending"]
    running: List[Any]


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
    Ack,
    Go,
    Finish,
    Look,
    Survey,
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
    FilesEnd,
    Output,
    Surveyed,
    Removed,
    Looked,
    Dropped,
    Opened,
    Fatal,
    Ping,
    Pong,
]
FromAgentToZygote = Union[Start, Prepare]
FromZygote = Union[Ready, Unusable, Forked, Exited]
ToJob = Union[Kept, Cancel]
FromJob = Union[Hook, State, Result, Ending]
Message = Union[FromController, FromAgent, FromAgentToZygote, FromZygote, ToJob, FromJob]

#: message -> field -> what stands for it where it is missing; `list` and `dict` for an empty one.
ABSENT: Dict[str, Dict[str, Any]] = {
    "hello": {"slots": None, "gpus": None, "lease": None, "live": False},
    "blob": {"scope": "cache"},
    "ask_pythons": {"python": None},
    "withheld": {"environment": False},
    "environment_state": {"done": 0, "total": 0},
    "job": {"payload_blob": None},
    "cancel": {"kill": False, "kind": "cancelled", "why": ""},
    "finish": {"keep": False},
    "look": {"stdout": 0, "stderr": 0},
    "remove": {"force": False},
    "welcome": {"gpus": list, "notes": list, "more": False},
    "missing": {"manifest": None, "more": False},
    "zygote": {"error": None, "python": "", "isolation": "", "why": "", "notes": list},
    "final": {"parts": dict},
    "chunk": {"path": "", "mode": 0, "mtime": None, "parts": None},
    "tree": {"folders": list, "links": list},
    "files_end": {"sizes": dict, "cut": None, "noted": list, "unmatched": list},
    "surveyed": {"more": False},
    "looked": {"more": False},
    "ready": {"why": "", "notes": list},
    "state": {"file": None, "error": None},
    "outcome": {"parts": dict},
    "done": {"parts": dict},
}


#: What a value may be an instance of; what is inside of a list or an object is for its reader to check.
_BY_NAME: Dict[str, Tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "None": (type(None),),
    "List": (list,),
    "Dict": (dict,),
}


def _types(kind: str) -> Tuple[type, ...]:
    """By the outermost names of an annotation."""
    if kind.startswith("Optional["):
        return (*_types(kind[9:-1]), type(None))
    if kind.startswith("Union["):
        return tuple(one for inner in re.split(r", (?![^\[]*\])", kind[6:-1]) for one in _types(inner))
    return _BY_NAME[kind.partition("[")[0]]


def _schema(cls: type) -> Dict[str, Dict[str, Tuple[Tuple[type, ...], bool]]]:
    # Python keeps the annotations of a TypedDict as forward references.
    kinds = {name: kind.__forward_arg__ for name, kind in cls.__annotations__.items()}
    return {
        name: {field: (_types(kind), field not in ABSENT.get(name, ())) for field, kind in kinds.items()}
        for name in re.findall(r"['\"](\w+)['\"]", kinds.pop("t"))
    }


#: message -> field -> (types, required). Fields that are not named pass: a later version may say more.
SCHEMA: Dict[str, Dict[str, Tuple[Tuple[type, ...], bool]]] = {}
for _one in get_args(Message):
    SCHEMA.update(_schema(_one))
