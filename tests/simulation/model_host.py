"""A host as the agent's promises describe it: a spool that lasts, processes that outlive the agent, an agent that does not.

Rule: what the model promises is what the agent's own tests hold the real one to (`tests/remote_agent/agent/test_agent.py`): an
attempt is claimed in the spool before it starts, a result is in the spool before it is said, what was acknowledged is
forgotten, what an earlier agent took waits until the controller says `go`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from remote_agent.protocol.specs.resources import Resources, Room
from remote_agent.shared.room import Admission, SizedQueue

if TYPE_CHECKING:
    from tests.simulation.world import Connection, World

__all__ = ["Gpus", "ModelHost", "Violation"]

#: Seconds from a link to a zygote that is ready; of an epilogue; until SIGTERM has ended a job.
_PREPARE = 0.2
#: Seconds until the disk has what nobody waits for.
_SYNC = 0.5
_EPILOGUE = 0.1
_TERM = 0.5


class Violation(Exception):
    """A promise was broken. `name` says which."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        super().__init__(f"{name}: {text}")


@dataclass
class Record:
    """What the spool has of an attempt."""

    attempt: str
    accepted_in: str
    needs: Resources | None = None
    claimed_in: str = ""
    cancel: str = ""
    final: dict[str, Any] | None = None
    is_held: bool = False
    #: It was given up before this agent began, so that this agent must not start it.
    is_stale: bool = False

    @property
    def state(self) -> str:
        """As a welcome tells it."""
        if self.final is not None:
            return "final"
        return "running" if self.claimed_in else "queued"


@dataclass
class Process:
    """A job's process: it needs no agent to go on."""

    attempt: str
    ends: str
    gpus: list[str]
    term: bool = False
    done: bool = False


class Gpus:
    """The GPUs of a host that one run has alone, as an agent gives them to jobs: in their order, and each to one job."""

    def __init__(self, gpus: list[str]) -> None:
        self._all = gpus
        self._free = list(gpus)

    def take(self, count: int) -> list[str] | None:
        """Those of a job; None if there are not so many free."""
        if count > len(self._free):
            return None
        taken, self._free = self._free[:count], self._free[count:]
        return taken

    def release(self, gpus: list[str]) -> None:
        """Its job has ended."""
        free = {*self._free, *gpus}
        self._free = [gpu for gpu in self._all if gpu in free]

    def hold(self, gpus: list[str]) -> None:
        """A job of an earlier agent has them."""
        self._free = [gpu for gpu in self._free if gpu not in gpus]


@dataclass
class ModelHost:
    """One host of a history."""

    world: World
    index: int
    slots: int
    name: str = ""
    slowness: float = 1.0
    boots: int = 1
    spools: int = 1
    spool: dict[str, Record] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    has_agent: bool = False
    agents: int = 0
    is_prepared: bool = False
    is_full: bool = False
    link: Connection | None = None
    #: Names of what was given to it and can no longer be asked for: wiped, or given up.
    wiped: set[str] = field(default_factory=set)
    #: What was given back, and when.
    _removed: list[tuple[float, Record]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = f"h{self.index}"
        self.room = Room(Resources(self.slots, 0, 0), Resources(1, 0, 0), 0)
        #: What its agent counts: who has room, which GPUs are free, and what each attempt takes.
        self.admission = Admission(self.room.amounts)
        self.gpus = Gpus([])
        self.taken: dict[str, tuple[tuple[int, ...], int]] = {}

    @property
    def boot_id(self) -> str:
        """Names this life of machine and spool."""
        return f"{self.boots}/{self.spools}"

    # -- the agent's life ----------------------------------------------------------------------------------------

    def start_agent(self) -> None:
        """What `connect` does where there is no agent: it takes up the spool."""
        self.has_agent = True
        self.agents += 1
        self.is_prepared = False
        self.admission, self.taken = Admission(self.room.amounts), {}
        self.gpus = Gpus([f"{self.name}-{number}" for number in range(self.slots)])
        for process in self.processes.values():
            self.gpus.hold(process.gpus)
            need = self.room.need(self.spool[process.attempt].needs)
            self.taken[process.attempt] = need, self.admission.take(need)
        for record in self.spool.values():
            record.is_held = record.state == "queued"
            record.is_stale = not self.world.is_wanted(self, record.attempt)
        self.world.after(_EPILOGUE, self._adopt, self.agents)

    def _adopt(self, agent: int) -> None:
        """Results that processes left while there was no agent, and ends of those that died."""
        if agent != self.agents or not self.has_agent:
            return
        for record in list(self.spool.values()):
            if record.state != "running":
                continue
            process = self.processes.get(record.attempt)
            if process is None:
                self._finish(record, "lost" if record.claimed_in != self.boot_id else "killed")
            elif process.done:
                self._reap(record, process)

    def kill_agent(self) -> None:
        """Kill -9 of the agent and its zygote; jobs go on."""
        self.has_agent = self.is_prepared = False
        if self.link is not None:
            self.link.reset()

    def reboot(self) -> None:
        """A power cut: nothing that ran is alive, the disk is as it was."""
        self.kill_agent()
        self.boots += 1
        for process in self.processes.values():
            self.world.died(process.attempt)
        self.processes.clear()
        for at, record in self._removed:
            # That it was given back was not on the disk yet.
            if self.world.now - at < _SYNC:
                self.spool.setdefault(record.attempt, record)

    def wipe(self) -> None:
        """Somebody removes the spool, and what belongs to it."""
        self.kill_agent()
        self.spools += 1
        for process in self.processes.values():
            self.world.died(process.attempt)
        self.processes.clear()
        self.wiped |= set(self.spool)
        self.spool.clear()

    def set_full(self, is_full: bool) -> None:
        """The disk is full, or has room again."""
        self.is_full = is_full
        if not self.has_agent:
            return
        if is_full:
            self._drop_queue()
        else:
            self.say("opened", {})
            self.dispatch()

    def _drop_queue(self) -> None:
        for record in [one for one in self.spool.values() if one.state == "queued"]:
            del self.spool[record.attempt]
            self.say("dropped", {"attempt": record.attempt, "asked": False})

    # -- the link ------------------------------------------------------------------------------------------------

    def greeted(self, link: Connection) -> dict[str, Any]:
        """A hello came; returns what the welcome says."""
        if self.link is not None and self.link is not link:
            self.link.reset()
        self.link = link
        if not self.is_prepared:
            self.world.after(_PREPARE, self._prepared, self.agents)
        states = {name: record.state for name, record in self.spool.items()}
        return {"slots": self.slots, "boot_id": self.boot_id, "attempts": states, "room": self.room.to_json()}

    def has_room(self, needs: Resources | None) -> bool:
        """Whether such a job would start if it were sent to it now."""
        is_able = self.has_agent and self.is_prepared and not self.is_full
        is_able = is_able and not any(one.is_held for one in self.spool.values())
        return is_able and self.admission.fits(self.room.need(needs))

    def _prepared(self, agent: int) -> None:
        if agent == self.agents and self.has_agent:
            self.is_prepared = True
            self.say("zygote", {})
            self.dispatch()

    def welcomed(self) -> None:
        """Behind the welcome: everything that was not acknowledged is said again, and that the application is prepared."""
        if self.is_prepared:
            self.say("zygote", {})
        for record in self.spool.values():
            if record.final is not None:
                self._say_final(record)

    def say(self, name: str, content: dict[str, Any]) -> None:
        """Tell the controller, if there is one."""
        if self.link is not None:
            self.link.to_controller(name, content)

    def _say_final(self, record: Record) -> None:
        self.say("final", {"attempt": record.attempt, "envelope": record.final})
        self.say("files_end", {"attempt": record.attempt})

    # -- what the controller says --------------------------------------------------------------------------------

    def hear(self, name: str, content: dict[str, Any]) -> None:
        """A message of the controller."""
        getattr(self, "_on_" + name)(content)
        self.dispatch()

    def _on_job(self, content: dict[str, Any]) -> None:
        attempt = content["attempt_id"]
        if attempt in self.spool:
            return
        if self.is_full:
            self.say("dropped", {"attempt": attempt, "asked": False})
            return
        needs = Resources.from_json(content["needs"]) if content["needs"] is not None else None
        self.spool[attempt] = Record(attempt, self.boot_id, needs)
        if self.room.lacks(needs):
            raise Violation("size", f"{attempt} is sent to {self.name}: {self.room.lacks(needs)}")

    def _on_cancel(self, content: dict[str, Any]) -> None:
        chosen = list(self.spool) if content["attempts"] is None else content["attempts"]
        for attempt in chosen:
            record = self.spool.get(attempt)
            if record is None or record.final is not None:
                continue
            record.cancel = record.cancel or content["kind"]
            if record.state == "queued":
                self._finish(record, record.cancel)
                continue
            process = self.processes.get(attempt)
            if process is not None and not process.done and not process.term:
                process.term = True
                self.world.after(0.01 if content["kill"] else _TERM, self.ended, process)

    def _on_take_back(self, content: dict[str, Any]) -> None:
        for attempt in content["attempts"]:
            record = self.spool.get(attempt)
            if record is None or record.final is not None:
                continue
            if record.state == "queued":
                self._give_back(record)
            else:
                self.say("started", {"attempt": attempt})

    def _give_back(self, record: Record) -> None:
        self.world.given_back(record.attempt)
        self._removed.append((self.world.now, self.spool.pop(record.attempt)))
        self.say("dropped", {"attempt": record.attempt, "asked": True})

    def _on_go(self, content: dict[str, Any]) -> None:
        for record in self.spool.values():
            record.is_held = False

    def _on_sync(self, content: dict[str, Any]) -> None:
        self.say("synced", content)

    def _on_ack(self, content: dict[str, Any]) -> None:
        for attempt in content["attempts"]:
            record = self.spool.get(attempt)
            if record is not None and record.final is not None:
                self.world.check_ack(self, attempt)
                del self.spool[attempt]

    # -- jobs ----------------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Start what may start."""
        if not self.has_agent or not self.is_prepared or self.is_full:
            return
        waiting: SizedQueue[str, Resources | None] = SizedQueue()
        for record in self.spool.values():
            if record.state == "queued" and not record.is_held:
                waiting.append(record.attempt, record.needs)
        for attempt, passed in self.admission.choose(waiting, self.room.need):
            self.taken[attempt] = self.room.need(self.spool[attempt].needs), passed
            self._start(self.spool[attempt])

    def _start(self, record: Record) -> None:
        if record.is_stale:
            raise Violation("fencing", f"{record.attempt} starts on {self.name}, though it was given up")
        record.claimed_in = self.boot_id
        seconds, ends = self.world.started(self, record.attempt)
        seconds *= self.slowness
        gpus = self.gpus.take(self.room.need(record.needs)[0]) or []
        process = Process(record.attempt, ends, gpus)
        others = {gpu for other in self.processes.values() for gpu in other.gpus if not other.done}
        if len(gpus) < self.room.need(record.needs)[0] or others & set(gpus):
            raise Violation(
                "one job for each GPU", f"{record.attempt} gets {gpus} of {self.name}, and others have {others}"
            )
        self.processes[record.attempt] = process
        self.say("started", {"attempt": record.attempt})
        self.world.after(seconds, self.ended, process)

    def ended(self, process: Process) -> None:
        """The application is through, or was ended."""
        if process.done or self.processes.get(process.attempt) is not process:
            return
        process.done = True
        record = self.spool.get(process.attempt)
        if self.has_agent and record is not None:
            self._reap(record, process)
            self.dispatch()

    def _reap(self, record: Record, process: Process) -> None:
        del self.processes[record.attempt]
        self._release(process)
        kind = process.ends
        if process.term:
            kind = record.cancel
        self._finish(record, kind)

    def _release(self, process: Process) -> None:
        taken = self.taken.pop(process.attempt, None)
        if taken is not None:
            self.admission.release(*taken)
            self.gpus.release(process.gpus)

    def _finish(self, record: Record, kind: str) -> None:
        """The attempt has its result, in the spool; then it is said."""
        if record.final is not None:
            raise Violation("one result", f"{record.attempt} ended twice on {self.name}")
        hooks = self.world.closed_hooks(record.attempt)
        error = {"kind": kind, "type": "", "message": kind, "traceback": "", "causes": []} if kind else None
        record.final = {
            "status": "FAILED" if kind else "COMPLETED",
            "error": error,
            "duration": 1.0,
            "hooks": [{"hook": hook, "callback": "c", "ok": True} for hook in hooks],
        }
        self.world.spooled(self, record)
        self._say_final(record)
