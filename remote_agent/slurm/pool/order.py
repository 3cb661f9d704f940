"""What an allocation is for, and in which words it leaves."""

from typing import Mapping, NamedTuple, Optional, Tuple

from remote_agent.protocol.specs.resources import Resources
from remote_agent.slurm.batch.classes import DEFAULT, Lasting
from remote_agent.slurm.shared_disk.lease import LEASE_ENDED

__all__ = ["DONE", "IDLE", "IDLE_WORDS", "NOTHING", "NO_TIME", "Order"]

#: Why an allocation leaves that nothing is wrong with.
DONE, NOTHING, NO_TIME = "it has done its part", "no job waits", "it has no time left for another job"
IDLE_WORDS = (DONE, NOTHING, NO_TIME, LEASE_ENDED)
#: An allocation for many jobs ends after this many seconds without any.
IDLE = 60.0


class Order(NamedTuple):
    """What an allocation is for.

    Attributes:
        slots: how many jobs it runs at once.
        most: how many jobs it takes at most; None for as many as there are.
        klass: the class of jobs that it takes.
        part: what each of them has; None if they say nothing.
        expects: how many attempts were in the pool when it was asked for. A disk that shows fewer shows an old state.
        owed: the same for what dead allocations owe.
        idle: if it takes many jobs, it ends after so many seconds without any.
        request: the name of the request that it comes from.
        turn: that of the submitter who has asked for it.
        lasting: how long the allocation lasts, and each job takes at most.
        left: how many seconds are left when it gets SIGTERM: because its time is nearly up, and for any other reason.
        of: requests, all of whose allocations have ended. It fires what they owe, and takes no job.
        requeue: the run's limits for attempts that follow by themselves; see `next_attempts`.
    """

    slots: int = 1
    most: Optional[int] = 1
    klass: str = DEFAULT
    part: Optional[Resources] = None
    expects: int = 0
    owed: int = 0
    idle: float = IDLE
    request: str = ""
    requeue: Mapping[str, int] = {}
    of: Tuple[str, ...] = ()
    lasting: Lasting = Lasting()
    left: Tuple[float, float] = (60.0, 30.0)
    turn: int = 0
