"""What an agent says to a controller."""

from typing import Any, Dict, List, Literal, Optional, TypedDict

__all__ = [
    "AskHeld",
    "Chunk",
    "Dropped",
    "EnvironmentCompared",
    "EnvironmentState",
    "EnvironmentsListed",
    "Fatal",
    "Files",
    "FilesEnd",
    "Final",
    "GpusListed",
    "Imported",
    "Looked",
    "Missing",
    "Opened",
    "Output",
    "Pythons",
    "Removed",
    "Reports",
    "Rest",
    "Started",
    "Surveyed",
    "Synced",
    "Tree",
    "UseListed",
    "Welcome",
    "Zygote",
]


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
    """A part of a long result (`kind`: result) or file (`kind`: file). `parts`: with the first chunk of a result.

    `hole`: how many bytes before `offset` are a hole of the file. They are zeros, and are not sent.
    """

    t: Literal["chunk"]
    attempt: str
    kind: str
    path: str
    mode: int
    mtime: Optional[int]
    size: int
    offset: int
    hole: int
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


class AskHeld(TypedDict):
    """What does the controller hold of the files of this attempt, which has ended? The files follow the answer."""

    t: Literal["ask_held"]
    attempt: str


class Rest(TypedDict):
    """A part of what a file has beyond the `base` bytes of it that the controller holds. They are the same bytes."""

    t: Literal["rest"]
    attempt: str
    path: str
    mtime: int
    size: int
    base: int
    offset: int


class FilesEnd(TypedDict):
    """Everything of an attempt was sent. `refused`, `noted`: [path, why].

    `left`: what jobs of the run, this one or others, have written beside their code on the host, as `{"folder", "count", "names"}`: where it will be, how
    many files, and the names of some. None for nothing.
    """

    t: Literal["files_end"]
    attempt: str
    refused: List[Any]
    sizes: Dict[str, Any]
    cut: Optional[Dict[str, Any]]
    noted: List[Any]
    unmatched: List[int]
    left: Optional[Dict[str, Any]]


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
