"""What an agent and the process of a job say to each other."""

from typing import Any, Dict, List, Literal, Optional, TypedDict

__all__ = ["Ending", "Hook", "Idle", "Kept", "Result", "State"]


# -- an agent to a job ---------------------------------------------------------------------------------------------------


class Kept(TypedDict):
    """The job's result is in the log."""

    t: Literal["kept"]


# -- a job to its agent --------------------------------------------------------------------------------------------------


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
