"""What an agent and its zygote say to each other."""

from typing import Any, Dict, List, Literal, Optional, TypedDict

__all__ = ["Adopt", "Adopted", "Exited", "Forked", "Preparing", "Ready", "Start", "Unusable", "Warm"]


# -- an agent to a zygote ------------------------------------------------------------------------------------------------


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


# -- a zygote to its agent -----------------------------------------------------------------------------------------------


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
