"""The GPUs of a host, as one run gives them to its jobs: which ones it may use, who has them, and why a job waits for one.

Rule: a GPU is given out only while this process has its lease (`remote_agent.system.gpu_lease`), so no other run and no other user has
it. A job gets all of its GPUs at once, or none. Who is in the way is named, and never ended.

Programs that do not lease are seen where the user wants GPUs that are free of them (`free`), and where leases do not hold on the whole
host. Then a GPU is looked at right before it is taken, and again after a while if it was in use.
"""

import re
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple, Union

from remote_agent.protocol import wire
from remote_agent.system import gpu_lease, gpus
from remote_agent.system.background import BackgroundThread
from remote_agent.system.gpu_lease import Holder, Lease, process_name, user_of, user_of_process
from remote_agent.system.gpus import Gpu, Survey

__all__ = ["GpuPool", "choose"]

#: More descriptors than these need do not fit into one message to a zygote.
_MOST_PER_JOB = 120
#: How often the connections of those who asked for the holder are dropped, in seconds.
_DRAIN_EVERY = 1.0
#: Seconds after which a job that waits says why, and after which it says so again if the reason has changed.
_QUIET, _NEXT_WORD = 1.0, 60.0
_MOST_NAMED = 8
#: As `gpus` of a hello: all GPUs that no other program uses.
_FREE = "free"
#: A GPU with more bytes of used memory is not free.
_MOST_USED = 500 << 20
#: For so many seconds it counts what was seen of a GPU.
_FRESH = 1.0
#: Seconds until GPUs that are in use are looked at again: at first, and at most. It doubles.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
_NUMBER = re.compile("[0-9]{1,9}")


class GpuPool:
    """The GPUs that a run may use here.

    Args:
        run: its id, by which others see who has a GPU.
        note: takes a text for the user.
        background: asks the driver, which may take its time.
    """

    def __init__(self, run: str, note: Callable[[str], None], background: BackgroundThread) -> None:
        self._run = run
        self._note = note
        self._background = background
        #: Return the processes of this run that wait for a job, and may have memory of a GPU; and end them.
        self.waiting_processes: Callable[[], Set[int]] = set
        self.end_waiting: Callable[[], None] = lambda: None
        #: The GPUs that jobs may get, as the host counts them.
        self.uuids: List[str] = []
        #: Those of them that were given back. The first one is taken first, as with slots, so that a slot gets its GPU again.
        self._used: List[str] = []
        self._most = 0
        self._sharers = 1
        self.are_hidden = False
        #: How many attempts have it, and its lease. There is none where the job of an earlier agent has it.
        self._users: Dict[str, int] = {}
        #: Those that a job does not share.
        self._alone: Set[str] = set()
        self._leases: Dict[str, Lease] = {}
        #: Those whose lease others had when it was last tried.
        self._taken_by_others: Set[str] = set()
        self._drain_at = 0.0
        self._is_waiting = False
        self._say_at = 0.0
        self._said: List[str] = []
        self._known: Dict[int, Holder] = {}
        self._trouble: Dict[str, str] = {}
        self._must_look = False
        self._is_looking = False
        self._seen: Optional[Survey] = None
        self._seen_at = self._look_at = 0.0
        self._pause = _FIRST_PAUSE

    # -- which ones ----------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many GPUs a job can ever get."""
        return min(self._most, _MOST_PER_JOB)

    def choose(self, wish: Any) -> str:
        """Find the GPUs of the host, and choose those that jobs may get. Returns why this host cannot be used; empty if it can.

        Args:
            wish: None (all), a number (that many, whichever are not taken), a list of numbers and UUIDs, or `free` (all, as far as no other
                program uses them). With 0 and an empty list jobs see no GPU.

        Raises:
            wire.ProtocolError: code `field`: it makes no sense.
        """
        self.are_hidden = wish in (0, [])
        found = Survey([], "", "") if self.are_hidden else gpus.survey()
        chosen, why = choose(wish, found)
        if why:
            return why
        if found.error and found.gpus:
            self._note("its GPUs can be read in part only: {}".format(found.error))
        self.uuids = chosen
        self._most = wish if isinstance(wish, int) else len(chosen)
        if chosen and not gpu_lease.is_supported():
            self._note("GPUs cannot be leased on this system, so another run may use the same ones")
        elif chosen and not gpu_lease.covers_host():
            self._note(
                "the agent is in a network namespace of its own, as in a container, so leases of GPUs hold only there: a GPU that "
                "any other program uses is left alone"
            )
        self._must_look = wish == _FREE or not (gpu_lease.is_supported() and gpu_lease.covers_host())
        if self._must_look and any(gpu.processes is None for gpu in found.gpus if gpu.uuid in chosen):
            self._note(
                "which programs use its GPUs cannot be read, so only GPUs with under 500 MiB of used memory are free"
            )
        return ""

    def share_among(self, jobs: int) -> None:
        """Let jobs share GPUs, if so many run at a time that there are fewer GPUs."""
        if self.count:
            self._sharers = -(-jobs // self.count)

    # -- given out -----------------------------------------------------------------------------------------------

    def take(self, count: int, *, is_shared: bool = False) -> Optional[List[str]]:
        """Take GPUs for a job that is about to start. Returns None if there are not so many free now. `is_shared`: other jobs that share may
        have them, too.
        """
        taken: List[str] = []
        self._trouble = {}
        in_turn = [*self._used, *(uuid for uuid in self.uuids if uuid not in self._used)]
        for uuid in sorted(in_turn, key=lambda uuid: self._users.get(uuid, 0)):
            if len(taken) == count:
                break
            if self._take_one(uuid, is_shared=is_shared):
                taken.append(uuid)
        if len(taken) == count:
            self._is_waiting, self._pause = False, _FIRST_PAUSE
            return taken
        for uuid in taken:
            self._let_go(uuid)
        self._wait(count)
        return None

    def release(self, uuids: Sequence[str]) -> None:
        """Give the GPUs of a job back. A process that it left behind has them until it ends."""
        # What was seen while this job was there counts no more.
        self._look_again()
        for uuid in uuids:
            self._let_go(uuid)
            if uuid in self._used:
                self._used.remove(uuid)
            if uuid in self.uuids:
                self._used.append(uuid)

    def adopt(self, uuids: Sequence[str]) -> None:
        """Take over the GPUs of a job that an earlier agent started, and that may have them still."""
        for uuid in uuids:
            self._users[uuid] = self._users.get(uuid, 0) + 1
            # If the job is dead, its end hooks need them.
            self._has(uuid)

    def retake(self, uuids: Sequence[str]) -> List[str]:
        """Lease the GPUs of a job again whose process has ended. Returns those that it still has: another run may have taken some."""
        kept = []
        for uuid in uuids:
            if self._has(uuid):
                kept.append(uuid)
            else:
                self._let_go(uuid)
        return kept

    def descriptors(self, uuids: Sequence[str], attempt: str) -> List[int]:
        """Return the descriptors that the process of an attempt gets, so that it has the GPUs as long as it lives.

        Raises:
            OSError: there are too many open files.
        """
        leases = [self._leases[uuid] for uuid in uuids if uuid in self._leases]
        return [fd for lease in leases for fd in (lease.fileno(), lease.tag(attempt))]

    def tick(self, now: float) -> None:
        """Make room for others who ask who has a GPU."""
        if now >= self._drain_at:
            self._drain_at = now + _DRAIN_EVERY
            for lease in self._leases.values():
                lease.drain()

    def close(self) -> None:
        """Let go of everything. Jobs that still run have their GPUs themselves."""
        for lease in self._leases.values():
            lease.close()
        self._leases = {}

    def _take_one(self, uuid: str, *, is_shared: bool) -> bool:
        users = self._users.get(uuid, 0)
        if users and (not is_shared or uuid in self._alone or users >= self._sharers):
            return False
        if not users and (len(self._users) >= self._most or not self._has(uuid)):
            return False
        if not users and self._is_in_use(uuid):
            # Another run, for which it may be free, can have it meanwhile.
            self._let_go(uuid)
            return False
        self._users[uuid] = users + 1
        if not is_shared:
            self._alone.add(uuid)
        return True

    def _has(self, uuid: str) -> bool:
        """Whether this agent has the lease, or gets it now. Without leases nobody else is known to have it."""
        if uuid in self._leases or not gpu_lease.is_supported():
            return True
        try:
            lease = gpu_lease.take(uuid, self._run)
        except OSError as error:
            self._trouble[uuid] = "it cannot be leased: {}".format(error.strerror)
            return False
        if lease is None:
            self._taken_by_others.add(uuid)
            return False
        self._leases[uuid] = lease
        if uuid in self._taken_by_others:
            # It was given back, so the last look, which may be long ago, says nothing of it.
            self._taken_by_others.remove(uuid)
            self._look_again()
        return True

    def _let_go(self, uuid: str) -> None:
        users = self._users.pop(uuid, 0)
        self._alone.discard(uuid)
        if users > 1:
            self._users[uuid] = users - 1
        elif uuid in self._leases:
            self._leases.pop(uuid).close()

    # -- other programs ------------------------------------------------------------------------------------------

    def _is_in_use(self, uuid: str) -> bool:
        """Whether another program uses a GPU, or that is not known. Then a look begins, and wakes the loop when it is over."""
        if not self._must_look:
            return False
        if self._seen is None or time.monotonic() - self._seen_at > _FRESH:
            self._look()
            return True
        return self._why_in_use(uuid) != ""

    def _look_again(self) -> None:
        """Let the next look be soon, and forget what the last one saw."""
        self._seen, self._look_at, self._pause = None, 0.0, _FIRST_PAUSE

    def _look(self) -> None:
        if self._is_looking or time.monotonic() < self._look_at:
            return
        self._is_looking = True
        found: List[Survey] = []

        def done(error: Optional[BaseException]) -> None:
            self._is_looking = False
            self._seen_at = time.monotonic()
            self._seen = found[0] if found else Survey([], "", str(error))
            self._look_at = self._seen_at + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

        self._background.submit(lambda: found.append(gpus.survey()), done)

    def _why_in_use(self, uuid: str) -> str:
        """Return who uses a GPU, as far as was seen; empty if nobody does."""
        if self._seen is None:
            return ""
        gpu = next((one for one in self._seen.gpus if one.uuid == uuid), None)
        if gpu is None:
            return self._seen.error or "it is gone"
        return _users_of(gpu, self.waiting_processes())

    # -- waiting -------------------------------------------------------------------------------------------------

    def _wait(self, count: int) -> None:
        """Say why a job waits, if others are the reason: after a moment, and again when the reason has changed."""
        now = time.monotonic()
        if len(self._users) >= self._most:
            return  # the run's own jobs have them
        if self._must_look and self._seen is not None:
            # Where the driver does not tell processes, those of this run are as much in the way as others.
            self.end_waiting()
        if not self._is_waiting:
            self._is_waiting, self._say_at = True, max(now + _QUIET, self._say_at)
        if now < self._say_at:
            return
        reasons = self._reasons()
        self._say_at = now + (_NEXT_WORD if reasons else _QUIET)
        if reasons and reasons != self._said:
            self._said = reasons
            more = ["and {} more".format(len(reasons) - _MOST_NAMED)] if len(reasons) > _MOST_NAMED else []
            what = "a GPU" if count == 1 else "{} GPUs".format(count)
            self._note("a job waits for {}: {}".format(what, "; ".join(reasons[:_MOST_NAMED] + more)))

    def _reasons(self) -> List[str]:
        """Return who has each GPU that no attempt of this agent has."""
        holders = gpu_lease.holders(self._known)
        self._known = {one.inode: one for one in holders.values()}
        reasons = []
        for uuid in self.uuids:
            if uuid in self._users:
                continue
            if uuid in holders:
                reasons.append("{} {}".format(uuid, _holder_text(holders[uuid])))
            elif uuid in self._trouble:
                reasons.append("{}: {}".format(uuid, self._trouble[uuid]))
            elif self._must_look and self._why_in_use(uuid):
                reasons.append("{}: {}".format(uuid, self._why_in_use(uuid)))
        return reasons


def _users_of(gpu: Gpu, own: Set[int]) -> str:
    """Return who uses a GPU, besides these processes; empty if nobody does."""
    others = [one for one in gpu.processes or () if one.pid not in own]
    if others:
        texts = [
            _process_text(one.pid, user_of_process(one.pid))
            + (" uses it" if one.used is None else " uses {} MiB".format(one.used >> 20))
            for one in others[:_MOST_NAMED]
        ]
        return ", ".join(
            texts + (["and {} more".format(len(others) - _MOST_NAMED)] if len(others) > _MOST_NAMED else [])
        )
    if gpu.used is not None and gpu.used > _MOST_USED and not gpu.processes:
        return "{} MiB of its memory are used, by a process that is not visible here".format(gpu.used >> 20)
    return ""


def _process_text(pid: int, user: str) -> str:
    name = process_name(pid)
    return "process {}{} of {}".format(pid, " ({})".format(name) if name else "", user)


def _holder_text(holder: Holder) -> str:
    user = user_of(holder.uid)
    process = user if holder.pid is None else _process_text(holder.pid, user)
    if holder.attempt:
        return "has job {} of run {} ({})".format(holder.attempt.partition(".")[0], holder.run, process)
    if holder.run:
        return "is about to have a job of run {} ({})".format(holder.run, process)
    return "is taken by {}, which is not a run's".format(process)


# -- what is asked for -----------------------------------------------------------------------------------------------


def choose(wish: Any, found: Survey) -> Tuple[List[str], str]:
    """Return the UUIDs of the GPUs that jobs may get, see `GpuPool.choose`; and why there are not enough, or empty.

    Raises:
        wire.ProtocolError: code `field`: it makes no sense.
    """
    if not _makes_sense(wish):
        raise wire.ProtocolError("field", "gpus are {!r}".format(wish)[:200])
    chosen, why = [gpu.uuid for gpu in found.gpus if gpu.uuid], ""
    if wish == 0:
        chosen = []
    elif isinstance(wish, list):
        chosen, why = _resolve(wish, found)
    elif isinstance(wish, int) and wish > len(chosen):
        why = "{} of its GPUs are asked for".format(wish)
    elif wish == _FREE and not chosen:
        why = "free GPUs are asked for"
    return ([], "{}, and it has {}".format(why, _described(found))) if why else (chosen, "")


def _makes_sense(wish: Any) -> bool:
    if wish is None or wish == _FREE or (type(wish) is int and 0 <= wish <= 10_000):
        return True
    return isinstance(wish, list) and len(wish) <= 10_000 and all(type(one) in (int, str) for one in wish)


def _resolve(wish: Sequence[Union[int, str]], found: Survey) -> Tuple[List[str], str]:
    """Return the UUIDs of GPUs that were named by number, by UUID, or by its beginning, as CUDA takes it; and what is wrong.

    A divided GPU stands for its MIG instances.
    """
    chosen: List[str] = []
    for one in wish:
        if isinstance(one, int) or _NUMBER.fullmatch(one):
            meant = [gpu.uuid for gpu in found.gpus[int(one) : int(one) + 1] if gpu.uuid]
        else:
            name = one.lower()
            there = [gpu for gpu in found.gpus if gpu.uuid] if name else []
            exact = [gpu.uuid for gpu in there if name in (gpu.uuid.lower(), gpu.parent.lower())]
            begins = [gpu.uuid for gpu in there if gpu.uuid.lower().startswith(name)]
            if not exact and len(begins) > 1:
                return [], "GPU {} is asked for, which is not one alone".format(one)
            meant = exact or begins
        if not meant:
            return [], "GPU {} is asked for".format(one)
        chosen += [uuid for uuid in meant if uuid not in chosen]
    return chosen, ""


def _described(found: Survey) -> str:
    """What there is, for a message."""
    names = ["{} {}".format(place, gpu.uuid or "that cannot be read") for place, gpu in enumerate(found.gpus)]
    more = ["and {} more".format(len(names) - _MOST_NAMED)] if len(names) > _MOST_NAMED else []
    error = " ({})".format(found.error) if found.error else ""
    return (", ".join(names[:_MOST_NAMED] + more) or "no GPU") + error
