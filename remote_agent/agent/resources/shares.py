"""What each job gets of this host: its GPUs, its CPUs, and its number.

Rule: what a host has is read from the system, unless the user says it. No CPU or byte of memory is given to two jobs of a run, and no GPU
to two jobs of any run. Only where the user asked for more jobs than there are GPUs, jobs that do not say what they need share GPUs.
"""

import heapq
from typing import Dict, Iterable, List, Optional, Tuple

from remote_agent.agent.resources.cpus import Cpus
from remote_agent.agent.resources.gpus import GpuPool
from remote_agent.agent.spool.attempt import Attempt
from remote_agent.protocol.specs.resources import Resources, Room
from remote_agent.shared.room import Admission, SizedQueue

__all__ = ["Shares", "variables"]


class Shares:
    """Who has what.

    Args:
        room: what the run's jobs may take.
        is_sized: whether the run says what its jobs need.

    Attributes:
        slots: how many jobs run at once that do not say what they need.
    """

    def __init__(self, room: Room, gpus: GpuPool, cpus: Cpus, *, is_sized: bool) -> None:
        self.room = room
        self.slots = min(there // need for need, there in zip(room.need(None), room.amounts) if need)
        self._is_sized = is_sized
        self._gpus = gpus
        self._cpus = cpus
        self._admission = Admission(room.amounts)
        #: Attempts that wait for their start to be recorded -> the GPUs that they will have.
        self._reserved: Dict[str, List[str]] = {}
        #: Numbers that are free again, and the first one that nobody had.
        self._numbers: List[int] = []
        self._next_number = 0
        #: Attempt -> what it takes, and which waiting job it has passed.
        self._taken: Dict[str, Tuple[Tuple[int, ...], int]] = {}
        if not is_sized:
            gpus.share_among(self.slots)

    @property
    def free(self) -> int:
        """How many of the `slots` no attempt has."""
        return self.slots - len(self._taken)

    # -- who may start -------------------------------------------------------------------------------------------

    def too_large(self, queue: "SizedQueue[Attempt, Optional[Resources]]") -> List[Attempt]:
        """Return the attempts for which this host has no room even if nothing else runs."""
        large = [size for size in queue.sizes() if not self._admission.can_hold(self.room.need(size))]
        return [attempt for size in large for attempt in queue.of_size(size)]

    def next(self, queue: "SizedQueue[Attempt, Optional[Resources]]") -> List[Attempt]:
        """Return the attempts that would start now, in their order."""
        return [attempt for attempt, _ in self._admission.copy().choose(queue, self.room.need)]

    def reserve(self, attempts: Iterable[Attempt]) -> List[Attempt]:
        """Take the GPUs of attempts that would start now. Returns the first of them, up to the one that has to wait: another run may have its GPU,
        or another program.
        """
        chosen = list(attempts)
        for gone in self._reserved.keys() - {attempt.id for attempt in chosen}:
            self._gpus.release(self._reserved.pop(gone))
        for place, attempt in enumerate(chosen):
            if attempt.id in self._reserved:
                continue
            gpus = self._gpus.take(
                1 if self._shares_gpus(attempt) else self.room.need(attempt.spec.needs)[0],
                is_shared=self._shares_gpus(attempt),
            )
            if gpus is None:
                return chosen[:place]
            self._reserved[attempt.id] = gpus
        return chosen

    def take(self, queue: "SizedQueue[Attempt, Optional[Resources]]") -> bool:
        """Give the first attempt that `next` returned its share. Returns False if no GPUs are reserved for it."""
        for attempt, passed in self._admission.choose(queue, self.room.need, 1):
            need = self.room.need(attempt.spec.needs)
            if attempt.id not in self._reserved:
                self._admission.release(need, passed)
                return False
            self._give(attempt, self._reserved.pop(attempt.id))
            self._taken[attempt.id] = need, passed
        return True

    # -- what they get -------------------------------------------------------------------------------------------

    def _give(self, attempt: Attempt, gpus: List[str]) -> None:
        is_told = self._is_sized or attempt.spec.needs is not None
        # A job of a run without GPUs here is not told of them at all, unless the user wants it to see none.
        attempt.gpus = gpus if is_told or gpus or self._gpus.are_hidden else None
        attempt.cpus = self._cpus.take(self.room.need(attempt.spec.needs)[1]) if is_told else []
        if self._numbers:
            attempt.slot = heapq.heappop(self._numbers)
        else:
            attempt.slot, self._next_number = self._next_number, self._next_number + 1

    def _shares_gpus(self, attempt: Attempt) -> bool:
        return attempt.spec.needs is None and not self._is_sized and 0 < self._gpus.count < self.slots

    def release(self, attempt: Attempt) -> None:
        """Take back what an attempt has, because its process has ended or was never made."""
        self._gpus.release(self._reserved.pop(attempt.id, []))
        taken = self._taken.pop(attempt.id, None)
        if taken is None or attempt.slot is None:
            return
        self._admission.release(*taken)
        heapq.heappush(self._numbers, attempt.slot)
        self._gpus.release(attempt.gpus or [])
        self._cpus.release(attempt.cpus)
        attempt.slot, attempt.gpus, attempt.cpus = None, None, []

    def restore(self, attempts: List[Attempt]) -> None:
        """Leave attempts that an earlier agent started what it gave them. Their GPUs are theirs already."""
        for attempt in attempts:
            if attempt.slot is None:
                continue
            need = self.room.need(attempt.spec.needs)
            self._taken[attempt.id] = need, self._admission.take(need)
            self._cpus.hold(attempt.cpus)
            self._numbers += range(self._next_number, attempt.slot)
            self._next_number = max(self._next_number, attempt.slot + 1)
            self._numbers = [number for number in self._numbers if number != attempt.slot]
        heapq.heapify(self._numbers)

    def threads(self, attempt: Attempt) -> int:
        """Return how many threads numerical libraries of the job should start; 0 for what they choose."""
        return self.room.need(attempt.spec.needs)[1] if self._is_sized or attempt.spec.needs is not None else 0

    def close(self) -> None:
        """Give back everything."""
        self._cpus.close()


def variables(attempt: Attempt) -> Dict[str, str]:
    """Return the environment variables that tell a job of its GPUs."""
    return {} if attempt.gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(attempt.gpus)}
