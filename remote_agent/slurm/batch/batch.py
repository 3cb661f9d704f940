"""The seam to a batch system: what the rest of a run must be able to ask of it.

Rule: nothing but an implementation of `Batch` knows the system's programs, words and limits. A word of the system explains a death; it is
never a result. What nobody knows is said to be unknown, and a state that an implementation does not know counts as alive while it is listed.
"""

import enum
import socket
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

__all__ = [
    "Batch",
    "BatchError",
    "Limits",
    "Listed",
    "NoAnswer",
    "NoRoom",
    "Phase",
    "Refused",
    "Request",
    "expected_start",
]


class BatchError(Exception):
    """The batch system could not be asked. The text is for the user."""


class Refused(BatchError):
    """It says that it will never take this. The text is its own."""


class NoRoom(BatchError):
    """It takes no more jobs of this user now, or not so many at once."""


class NoAnswer(BatchError):
    """Nobody knows whether it has taken the request. `Batch.listed` tells later, by name."""


class Request(NamedTuple):
    """Allocations of one kind.

    Attributes:
        name: finds them again; of letters, digits, `.`, `_` and `-`.
        tasks: how many.
        at_once: how many of them at most run at a time; None for no limit.
        script: what each runs, for `sh`. It holds no secret: others may read it.
        output: the file of what it prints, where `%j` is the job's id.
        needs: what an allocation has (`partition`, `account`, `time`, `cpus`, `gpus`, `mem`, `nodes`, `tasks`), as the user wrote it. cpus: of
            a task; gpus and mem: of a node.
        options: passed on as they are.
        is_optional: it is to be refused if no node that is up has as much, because less will do.
        after: ids of requests, all of whose allocations must have ended before.
    """

    name: str
    tasks: int
    at_once: Optional[int]
    script: str
    output: str
    needs: Dict[str, str]
    options: Tuple[str, ...]
    is_optional: bool = False
    after: Tuple[str, ...] = ()


class Limits(NamedTuple):
    """What the system says of itself.

    Attributes:
        tasks: the most that one request may have.
        kill_wait: seconds between its SIGTERM and its SIGKILL.
        remembers: for how many seconds it lists what has ended.
    """

    tasks: int
    kill_wait: float
    remembers: float


class Phase(enum.Enum):
    """Where an allocation is in its life."""

    WAITING = "waiting"
    ALIVE = "alive"
    ENDED = "ended"


class Listed(NamedTuple):
    """An allocation as the system lists it.

    Attributes:
        job: its id, which its processes have, too. Those that wait may share one.
        name: that of its request.
        phase: see there.
        word: the system's own, such as `NODE_FAIL`.
        kind: the kind of error (`JobError.kind`) that the word explains; empty for none.
        reason: why it waits, in the system's words; empty if it does not say.
        node: where it runs, or has run.
        start: when the system expects it to start, if it waits: `2026-11-30T17:05:00`, by the cluster's clock; empty if it does not say.
        is_held: its nodes could not start it, and the system holds it until somebody releases it. For a run it has ended.
    """

    job: str
    name: str
    phase: Phase
    word: str
    kind: str
    reason: str
    node: str
    start: str = ""
    is_held: bool = False


def expected_start(found: Sequence[Listed], reason: str) -> str:
    """When the system expects to start the first of those that wait for a reason, as a part of a sentence; empty if it does not say."""
    starts = [one.start for one in found if one.phase is Phase.WAITING and one.reason == reason and one.start]
    return "; Slurm expects to start the first at {} by its clock".format(min(starts)) if starts else ""


class Batch:
    """A batch system. Each method asks one program, and may take seconds. All raise BatchError."""

    def limits(self) -> Limits:
        """What the system says of itself."""
        raise NotImplementedError

    def submit(self, request: Request) -> str:
        """Ask for allocations. Returns the id of the request.

        Raises:
            Refused, NoRoom, NoAnswer: see there.
        """
        raise NotImplementedError

    def listed(self, names: Sequence[str]) -> List[Listed]:
        """All allocations of requests with these names that it still knows, those that have ended among them."""
        raise NotImplementedError

    def is_hopeless(self, reason: str) -> bool:
        """Whether an allocation that waits for this reason never starts, unless somebody changes the system."""
        raise NotImplementedError

    def cancel(self, names: Sequence[str], *, waiting_only: bool = False) -> None:
        """End all allocations of requests with these names, or those that have not begun. What is gone already is no error."""
        raise NotImplementedError

    def why(self, job: str, restart: int) -> Tuple[str, str]:
        """Why this start of the allocation in which this process runs was told to end: the kind of error, and what the user reads."""
        raise NotImplementedError

    def why_before(self) -> Optional[Tuple[str, str]]:
        """The same for the start before this one; None if that is not known."""
        return None

    def go_again(self, job: str) -> None:
        """Have the allocation in which this process runs started again, if it was only warned of a preemption: it leaves now, and the system would
        take that for its end.
        """
        raise NotImplementedError

    def warning(self, needs: Mapping[str, str], options: Sequence[str]) -> float:
        """How many seconds before the end of its time an allocation of such a request gets SIGTERM."""
        raise NotImplementedError

    def wake(self, job: str) -> None:
        """Make an allocation look for requests at once. Without it, it looks soon."""
        raise NotImplementedError

    def node(self) -> str:
        """The name of the node on which this process runs, as the system knows it."""
        return socket.gethostname()

    def variables(self) -> Tuple[str, str]:
        """The names of the variables that say to an allocation which job it is, and how often it was started again."""
        raise NotImplementedError
