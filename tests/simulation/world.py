"""The world of one history: time, network, hosts, and a controller that dies and comes back.

Rule: everything happens in one thread, in the order of one heap; the same history does the same every time. What is under
test is real: Scheduler, run state and Decider. What is not is a model: the sessions, the network, the hosts, the journal.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher import events
from launcher.agents import facts
from launcher.engine import requests
from launcher.engine.decider import Decider
from launcher.engine.requests import QueuedJob
from launcher.engine.scheduling.policies import Policies
from launcher.engine.scheduling.scheduler import Scheduler
from launcher.engine.scheduling.state import HostPhase
from launcher.errors import HostUnreachable, JournalError
from launcher.runs.journal import Returned
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.result_parts import NO_PARTS
from remote_agent.protocol.specs.job import JobSpec
from remote_agent.protocol.specs.resources import Resources, Room
from tests.simulation.history import History, Step
from tests.simulation.journal import Disk, Killed, SimJournal, through_json
from tests.simulation.model_host import ModelHost, Record, Violation
from tests.specs import job_spec

__all__ = ["Connection", "World"]

#: Seconds until a side notices a dead link by its heartbeat; the controller's, the agent's.
_NOTICE = (25.0, 27.0)
#: Seconds for which a slot may be idle: the wait until a job is taken back that should have started, and then three messages
#: of the slowest link, the last of which brings the job, behind a message that says what came before.
_IDLE = 1.0 + 4 * 0.9
#: A history that has not come to an end by then has no verdict.
_END = 60_000.0


class Connection:
    """A link: messages in order, delayed, and lost with it."""

    def __init__(self, session: SimSession, host: ModelHost) -> None:
        self.session = session
        self.host = host
        self.world = session.world
        self.is_open = True
        self.is_dead = [False, False]  # towards the host, towards the controller
        self._last = [0.0, 0.0]
        self._latency = self.world.rng.choice((0.001, 0.001, 0.001, 0.001, 0.05, 0.4))

    def _send(self, direction: int, function: Callable[..., None], *args: Any) -> None:
        if not self.is_open or self.is_dead[direction]:
            return
        world = self.world
        self._last[direction] = due = max(world.now + self._latency + world.jitter(), self._last[direction])
        world.at(due, self._arrive, direction, function, args)

    def _arrive(self, direction: int, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        if self.is_open and not self.is_dead[direction]:
            function(*args)

    def to_host(self, name: str, content: dict[str, Any]) -> None:
        """A message of the controller."""
        self._send(0, self._hear, name, content)

    def _hear(self, name: str, content: dict[str, Any]) -> None:
        if self.host.link is self:
            self.host.hear(name, content)

    def to_controller(self, name: str, content: dict[str, Any]) -> None:
        """A message of the agent."""
        self._send(1, self.session.hear, self, name, content)

    def reset(self) -> None:
        """It is over, and both sides are told."""
        if not self.is_open:
            return
        self.is_open = False
        if self.host.link is self:
            self.host.link = None
        self.session.lost(self, "reset")

    def die(self, directions: tuple[int, ...]) -> None:
        """Nothing passes any more, and nobody is told."""
        for direction in directions:
            self.is_dead[direction] = True
        self.world.after(min(_NOTICE[direction] for direction in directions), self.reset)


class SimSession:
    """What AgentConnection does, without threads: connects, greets, turns messages into facts, connects again."""

    def __init__(self, controller: Controller, host: ModelHost) -> None:
        self.controller = controller
        self.world = controller.world
        self.host = host
        self.link: Connection | None = None
        self.was_connected = False
        self._failures = 0

    def connect(self) -> None:
        """Try to reach the host."""
        if self.controller.is_dead:
            return
        host, world = self.host, self.world
        if world.now < world.away_until[host.index]:
            if not self.was_connected:
                self.controller.fact(facts.Unusable(host.name, HostUnreachable(host.name, "connect", "no route")))
                return
            self._again()
            return
        if not host.has_agent:
            host.start_agent()
        link = self.link = Connection(self, host)
        link._send(0, self._hello, link)

    def _again(self) -> None:
        self._failures += 1
        self.world.after(min(30.0, 0.25 * 2 ** min(self._failures, 8)) * self.world.rng.uniform(0.2, 1.0), self.connect)

    def _hello(self, link: Connection) -> None:
        if not self.host.has_agent:
            link.reset()
            return
        welcome = self.host.greeted(link)
        link.to_controller("welcome", welcome)
        self.host.welcomed()

    def lost(self, link: Connection, why: str) -> None:
        """The link is gone."""
        if link is not self.link or self.controller.is_dead:
            return
        self.link = None
        if self.was_connected:
            self.controller.fact(facts.Disconnected(self.host.name, why))
        self._again()

    def hear(self, link: Connection, name: str, content: dict[str, Any]) -> None:
        """A message of the agent becomes a fact."""
        if link is not self.link or self.controller.is_dead:
            return
        host = self.host.name
        tell = self.controller.fact
        if name == "welcome":
            self.was_connected, self._failures = True, 0
            tell(
                facts.Connected(
                    host,
                    content["slots"],
                    "3.11",
                    (),
                    content["boot_id"],
                    dict(content["attempts"]),
                    (),
                    takes_back=True,
                    room=Room.from_json(content["room"]),
                )
            )
        elif name == "zygote":
            tell(facts.ZygoteTold(host, "ready", None, "fork", "", ()))
        elif name == "started":
            tell(facts.Started(host, content["attempt"], 0, 1.0))
        elif name == "final":
            data = f"{content['attempt']} on {host}".encode()
            tell(facts.Ended(host, content["attempt"], Envelope.from_json(content["envelope"]), NO_PARTS, data, None))
        elif name == "files_end":
            tell(facts.Collected(host, content["attempt"], (), {}))
        elif name == "dropped":
            tell(facts.Dropped(host, content["attempt"], "spool: full", content["asked"]))
        elif name == "opened":
            tell(facts.Opened(host))
        elif name == "synced":
            tell(facts.Synced(host, content["number"]))

    # -- as Link -------------------------------------------------------------------------------------------------

    def _put(self, name: str, content: dict[str, Any]) -> None:
        if self.link is not None:
            self.link.to_host(name, content)

    def send_job(self, spec: JobSpec, payload: bytes, *, is_last: bool = False) -> None:
        """Send a job."""
        if payload != f"payload {spec.num}".encode():
            raise Violation("payload", f"{spec.attempt_id} is sent with {payload!r}")
        self._put("job", spec.to_json())

    def cancel(self, attempts: list[str] | None, *, kill: bool = False, kind: str = "cancelled", why: str = "") -> None:
        """Cancel these attempts, or all."""
        self._put("cancel", {"attempts": attempts, "kill": kill, "kind": kind})

    def take_back(self, attempts: list[str]) -> None:
        """Have these back, if they have not started."""
        self._put("take_back", {"attempts": attempts})

    def sync(self, number: int) -> None:
        """Have the agent confirm."""
        self._put("sync", {"number": number})

    def go(self) -> None:
        """What waits in the spool may start."""
        self._put("go", {})

    def acknowledge(self, attempts: list[str]) -> None:
        """The host may forget these."""
        self._put("ack", {"attempts": attempts})


class Controller:
    """One life of the controller."""

    def __init__(self, world: World, scheduler: Scheduler, make_decider: Callable[..., Decider]) -> None:
        self.world = world
        self.is_dead = False
        self.scheduler = scheduler
        self.sessions = {host.name: SimSession(self, host) for host in world.hosts}
        self.journal = SimJournal(world.disk)
        self.decider = make_decider(
            scheduler, self.journal, self.sessions, self._acknowledge, self._deliver, world.observed, self
        )
        self._inbox: list[Any] = []
        self._woken = False
        self._stalled = False
        self._alarm = float("inf")
        #: A process's monotonic clock begins anywhere.
        self._epoch = world.rng.uniform(0, 1e6)
        self._acks: list[tuple[str, str]] = []

    def begin(self, is_resumed: bool) -> None:
        """Start, or take up what the journal has."""
        if is_resumed:
            unfinished = self.decider.restore(self.world.disk)
            for name, session in self.sessions.items():
                host = self.scheduler.hosts[name]
                session.was_connected = bool(
                    host.jobs or host.collecting or host.phase in (HostPhase.READY, HostPhase.UNKNOWN)
                )
            if set(unfinished) != set(self.scheduler.jobs):
                raise Violation("resume", "jobs without a result were forgotten")
            self.journal.append(self.scheduler.resume(self.wall(), "run"))
        for session in self.sessions.values():
            session.connect()
        self.wake()

    def wall(self) -> float:
        """The wall clock, which jumps."""
        return 1e9 + self.world.now + self.world.skew

    def monotonic(self) -> float:
        """The clock that decides."""
        return self._epoch + self.world.now

    def put(self, item: Any) -> None:
        """A request or fact."""
        self._inbox.append(item)
        self.wake()

    def fact(self, fact: facts.Fact) -> None:
        """What a session tells."""
        if not self.is_dead:
            self.put(fact)

    @property
    def is_deciding(self) -> bool:
        """It gives jobs to hosts as they are free."""
        return not self._stalled and self.scheduler.interrupted is None and self.scheduler.detaching is None

    def reaches(self, host: ModelHost) -> bool:
        """The controller knows the host as one that takes jobs, and their link carries messages both ways."""
        link, state = host.link, self.scheduler.hosts[host.name]
        is_link = link is not None and link is self.sessions[host.name].link and link.is_open and not any(link.is_dead)
        return is_link and state.phase is HostPhase.READY and state.closed is None

    @property
    def is_at_rest(self) -> bool:
        """Everything that came was decided and journalled."""
        return not self._woken and not self._stalled

    def wake(self) -> None:
        """Have a turn soon; what comes until then is decided in one round."""
        if not self._woken:
            self._woken = True
            self.world.after(0.001, self._turn)

    def _turn(self) -> None:
        self._woken = False
        if self.is_dead:
            return
        try:
            if not self._stalled:
                items, self._inbox = self._inbox, []
                self.decider.decide(items)
                self.world.decided(self.journal.pending)
            self.decider.commit()
            self._stalled = False
        except JournalError:
            self._stalled = True
            self.world.after(1.0, self.wake)
            return
        except Killed:
            self.world.controller_died()
            return
        self.world.check_state(self.scheduler)
        self._set_alarm()
        if self._inbox:
            self.wake()

    def _set_alarm(self) -> None:
        deadline = self.decider.deadline()
        if deadline is not None and deadline - self._epoch < self._alarm:
            self._alarm = max(deadline - self._epoch, self.world.now)
            self.world.at(self._alarm + 0.01, self._alarmed)

    def _alarmed(self) -> None:
        self._alarm = float("inf")
        self.wake()

    def send_again(self, host: str) -> None:
        """Send the jobs that a host has once more, as a reconnect does that overtakes their arrival.

        Nothing is sent before the host's welcome was decided about: its spool may be another one.
        """
        if self.scheduler.hosts[host].phase is not HostPhase.READY:
            return
        for num in sorted(self.scheduler.hosts[host].jobs):
            spec = self.world.spec(num)._replace(attempt=self.scheduler.jobs[num].attempt)
            if num in self.world.disk.jobs and spec.attempt_id in self.world.assigned:
                self.sessions[host].send_job(spec, f"payload {num}".encode())

    def _acknowledge(self, host: str, attempt: str) -> None:
        if not self._acks:
            self.world.after(1.0, self._flush)
        self._acks.append((host, attempt))

    def _flush(self) -> None:
        if self.is_dead:
            return
        acks, self._acks = self._acks, []
        for host, attempt in acks:
            self.sessions[host].acknowledge([attempt])

    def _deliver(self, returned: Returned) -> None:
        self.world.delivered(returned)

    def die(self) -> None:
        """Kill -9: its sockets are closed by the kernel."""
        self.is_dead = True
        for session in self.sessions.values():
            if session.link is not None:
                session.link.reset()


class World:
    """Runs one history and holds its promises against it.

    Args:
        make_scheduler, make_decider: what is under test; a test of the simulation puts a broken one here.
    """

    def __init__(
        self,
        history: History,
        make_scheduler: Callable[[list[str], Policies], Scheduler] = Scheduler,
        make_decider: Callable[..., Decider] = Decider,
        make_host: Callable[..., ModelHost] = ModelHost,
    ) -> None:
        self.history = history
        self.rng = random.Random(history.seed * 7919 + 1)
        self.now = 0.0
        self.skew = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._make_scheduler = make_scheduler
        self._make_decider = make_decider
        self.policies = Policies(**history.policies)
        self.hosts = [make_host(self, index, slots) for index, slots in enumerate(history.slots)]
        for host, slowness in zip(self.hosts, history.slowness, strict=False):
            host.slowness = slowness
        self.away_until = list(history.absent) + [0.0] * (len(self.hosts) - len(history.absent))
        self.disk = Disk()
        self._kills: dict[int, str] = {}
        self.disk.hook = self._written
        self.lives = 0
        self.controller: Controller | None = None
        self.shadow = Scheduler([host.name for host in self.hosts], self.policies)
        self._shadowed = 0
        # What happened, for the invariants.
        self.starts: Counter[str] = Counter()
        self.hooks: dict[str, list[str]] = defaultdict(list)
        self.spooled_results: dict[str, tuple[str, str]] = {}
        self.assigned: set[str] = set()
        self.given_up: set[tuple[str, str]] = set()
        self.deliveries: Counter[int] = Counter()
        self.unknown_at: dict[str, float] = {}
        self.ready_at: dict[str, float] = {}
        self.is_over = False
        #: Since when hosts have had a free slot while jobs wait.
        self._idle_since: dict[str, float] = {}

    # -- time ----------------------------------------------------------------------------------------------------

    def at(self, due: float, function: Callable[..., None], *args: Any) -> None:
        """Have something happen."""
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, function, args))

    def after(self, seconds: float, function: Callable[..., None], *args: Any) -> None:
        """Have something happen later."""
        self.at(self.now + seconds, function, *args)

    def jitter(self) -> float:
        """What a message takes beyond the link's latency."""
        return 0.001 if self.rng.random() < 0.9 else self.rng.uniform(0.001, 0.5)

    def run(self) -> World:
        """Run the history to its end.

        Raises:
            Violation: a promise was broken.
        """
        self._begin()
        for num, job in enumerate(self.history.jobs):
            self.at(job.at, self._submit, num)
        for step in self.history.steps:
            self.at(step.at, self._do, step)
        while self._heap:
            self.now, _, function, args = heapq.heappop(self._heap)
            if self.now > _END:
                break
            function(*args)
            self._look_for_idle_slots()
            if self._is_settled():
                break
        self._check_end()
        return self

    def _is_settled(self) -> bool:
        return (
            self.controller is not None
            and not self.controller.is_dead
            and self.now > self._last_step
            and len(self.deliveries) + self._submitted_not == len(self.history.jobs)
            and not self._submitted_not
            and self.controller.scheduler.is_idle
            and self.controller.is_at_rest
            and not self.disk.is_full
            and all(self._is_quiet(host) for host in self.hosts)
        )

    def _look_for_idle_slots(self) -> None:
        """No slot is idle for longer than it takes to ask for a job and to send it, while a job waits that may run there."""
        controller = self.controller
        is_deciding = controller is not None and not controller.is_dead and controller.is_deciding
        reached = [host for host in self.hosts if is_deciding and controller.reaches(host)]
        for host in self.hosts:
            if host in reached and self._waits_for(host, reached):
                since = self._idle_since.setdefault(host.name, self.now)
                if self.now == since:
                    self.after(_IDLE + 0.001, self._nothing)
                elif self.now - since > _IDLE:
                    raise Violation(
                        "no idle slot", f"{host.name} has had a free slot since {since:.1f} s, and jobs wait"
                    )
            else:
                self._idle_since.pop(host.name, None)

    def _waits_for(self, idle: ModelHost, reached: list[ModelHost]) -> bool:
        assert self.controller is not None
        scheduler = self.controller.scheduler
        queued = {
            int(record.attempt.partition(".")[0])
            for host in reached
            for record in host.spool.values()
            if record.state == "queued" and scheduler.current(*map(int, record.attempt.split(".")), host.name)
        }
        waiting = [scheduler.jobs[num] for num in queued | set(scheduler.pending)]
        sizes = {job.needs for job in waiting if not job.is_cancelled and idle.name not in job.failed_on}
        return any(map(idle.has_room, sizes))

    def _nothing(self) -> None:
        """Let a moment pass at which the promises are held against the state."""

    _submitted_not = 0

    @property
    def _last_step(self) -> float:
        return max((step.at for step in self.history.steps), default=0.0)

    def _is_quiet(self, host: ModelHost) -> bool:
        return (not host.processes and not host.spool) or self.now < self.away_until[host.index]

    # -- the controller's lives ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        is_resumed = self.lives > 0
        self.lives += 1
        scheduler = self._make_scheduler([host.name for host in self.hosts], self.policies)
        self.controller = Controller(self, scheduler, self._make_decider)
        self.controller.begin(is_resumed)
        if is_resumed:
            for num, job in enumerate(self.history.jobs):
                # What was asked and never journalled is asked again.
                if job.at <= self.now and num not in self.disk.jobs:
                    self._submit(num)

    def controller_died(self) -> None:
        """It is dead; somebody resumes the run a little later."""
        if self.controller is not None and not self.controller.is_dead:
            self.controller.die()
            self.after(self.rng.choice((0.1, 3.0, 40.0)), self._begin)

    def _submit(self, num: int) -> None:
        if self.controller is None or self.controller.is_dead:
            return
        self.controller.put(
            requests.Submit((QueuedJob(num, (f"x={num}",), Path(str(num)), f"payload {num}".encode(), self.spec(num)),))
        )

    def spec(self, num: int) -> JobSpec:
        """That of a job, before its first attempt."""
        gpus = self.history.jobs[num].gpus
        return job_spec(num, needs=Resources(gpus, 0, 0) if gpus else None)

    def _written(self, write: int, when: str) -> None:
        if self._kills.get(write) == when:
            del self._kills[write]
            raise Killed

    def kill_at(self, write: int, when: str) -> None:
        """Have the controller die at that write."""
        self._kills[write] = when

    # -- steps ---------------------------------------------------------------------------------------------------

    def _do(self, step: Step) -> None:
        getattr(self, "_step_" + step.kind)(step, self.hosts[step.host % len(self.hosts)])

    def _step_cut(self, step: Step, host: ModelHost) -> None:
        if host.link is not None:
            host.link.reset()

    def _step_blackhole(self, step: Step, host: ModelHost) -> None:
        if host.link is not None:
            host.link.die((0, 1))
            self._away(host, step.a)

    def _step_half(self, step: Step, host: ModelHost) -> None:
        if host.link is not None:
            host.link.die((1,) if step.b < 0.5 else (0,))

    def _step_kill_agent(self, step: Step, host: ModelHost) -> None:
        host.kill_agent()

    def _step_reboot(self, step: Step, host: ModelHost) -> None:
        host.reboot()
        self._away(host, step.a)

    def _step_wipe(self, step: Step, host: ModelHost) -> None:
        host.wipe()

    def _step_full(self, step: Step, host: ModelHost) -> None:
        host.set_full(True)
        self.after(step.a, host.set_full, False)

    def _step_isolate(self, step: Step, host: ModelHost) -> None:
        if host.link is not None:
            host.link.reset()
        self._away(host, step.a * 20)

    def _step_gone(self, step: Step, host: ModelHost) -> None:
        if self.policies.on_host_loss != "wait":
            host.reboot()
            self._away(host, float("inf"))

    def _away(self, host: ModelHost, seconds: float) -> None:
        self.away_until[host.index] = max(self.away_until[host.index], self.now + seconds)

    def _step_kill_controller(self, step: Step, host: ModelHost) -> None:
        self.controller_died()

    def _step_kill_at_write(self, step: Step, host: ModelHost) -> None:
        self.kill_at(self.disk.writes + 1 + int(step.b * 8), "before" if step.a < 1 else "after")

    def _step_journal_full(self, step: Step, host: ModelHost) -> None:
        self.disk.is_full = True
        self.after(step.a, self._journal_free)

    def _journal_free(self) -> None:
        self.disk.is_full = False

    def _step_resend(self, step: Step, host: ModelHost) -> None:
        if host.link is not None:
            host.welcomed()

    def _step_send_again(self, step: Step, host: ModelHost) -> None:
        if self.controller is not None and not self.controller.is_dead:
            self.controller.send_again(host.name)

    def _step_clock_jump(self, step: Step, host: ModelHost) -> None:
        self.skew += (step.b - 0.5) * 200_000

    def _request(self, request: Any) -> None:
        if self.controller is not None and not self.controller.is_dead:
            self.controller.put(request)

    def _step_cancel(self, step: Step, host: ModelHost) -> None:
        self._request(requests.Cancel(int(step.b * len(self.history.jobs))))

    def _step_interrupt(self, step: Step, host: ModelHost) -> None:
        self._request(requests.Interrupt("Ctrl-C", step.b < 0.5))

    def _step_give_up(self, step: Step, host: ModelHost) -> None:
        self._request(requests.GiveUp(host.name, "as asked"))

    def _step_detach(self, step: Step, host: ModelHost) -> None:
        self._request(requests.Detach("run", "as asked", step.b < 0.5))

    # -- what the model tells ------------------------------------------------------------------------------------

    def is_wanted(self, host: ModelHost, attempt: str) -> bool:
        """The journal has this attempt for that of its job."""
        num, number = (int(part) for part in attempt.split("."))
        return self._replayed().current(num, number, host.name) is not None

    def started(self, host: ModelHost, attempt: str) -> tuple[float, str]:
        """An attempt starts: how long it takes and how it ends."""
        self.starts[attempt] += 1
        if self.starts[attempt] > 1:
            raise Violation("one start", f"{attempt} starts a second time, on {host.name}")
        num, number = (int(part) for part in attempt.split("."))
        is_current = self._replayed().current(num, number, host.name) is not None
        if not is_current and (attempt, host.name) not in self.given_up:
            raise Violation("one attempt", f"{attempt} starts on {host.name}, and the job has another attempt")
        for earlier in range(1, number):
            where, status = self.spooled_results.get(f"{num}.{earlier}", ("", ""))
            name = f"{num}.{earlier}"
            if status == "COMPLETED" and (name, where) not in self.given_up and not self._is_wiped(name):
                raise Violation("spooled result executed again", f"{attempt} starts, {name} is spooled on {where}")
        self.hooks[attempt].append("on_job_start")
        job = self.history.jobs[num]
        return job.seconds, job.ends[number - 1] if number <= len(job.ends) else ""

    def given_back(self, attempt: str) -> None:
        """A host says that an attempt never starts there."""
        if self.starts[attempt]:
            raise Violation("one attempt", f"{attempt} is given back, and has started")

    def died(self, attempt: str) -> None:
        """A process was ended with its machine; its hooks are owed."""

    def closed_hooks(self, attempt: str) -> list[str]:
        """The attempt ends: its open hook is closed, by the job or by an epilogue."""
        hooks = self.hooks[attempt]
        if hooks == ["on_job_start"]:
            hooks.append("on_job_end")
        return list(hooks)

    def spooled(self, host: ModelHost, record: Record) -> None:
        """A result is in the spool."""
        assert record.final is not None
        self.spooled_results[record.attempt] = (host.name, record.final["status"])

    def check_ack(self, host: ModelHost, attempt: str) -> None:
        """A host is told to forget a result: the journal must have it, or must not want it."""
        num, number = (int(part) for part in attempt.split("."))
        if (num, number) in self.disk.results:
            return
        state = self._replayed().jobs.get(num)
        if state is not None and state.attempt == number and state.host == host.name:
            raise Violation("ack", f"{attempt} is to be forgotten by {host.name}, and the journal does not have it")

    def decided(self, happened: list[events.Event]) -> None:
        """Events, before they are journalled."""
        for event in happened:
            if isinstance(event, events.HostReady):
                self.ready_at[event.host] = self.now
            elif isinstance(event, events.HostUnknown):
                # A link that was there for moments, and brought nothing, was none.
                stood = self.now - self.ready_at.get(event.host, self.now)
                if stood >= min(10.0, self.policies.host_loss_timeout) + 0.01:
                    self.unknown_at.pop(event.host, None)
                self.unknown_at.setdefault(event.host, self.now)
            elif isinstance(event, (events.AttemptStarted, events.AttemptEnded, events.JobReturned)):
                if getattr(event, "error", None) is None or event.error["kind"] != "lost":
                    self.unknown_at.pop(event.host, None)
            elif isinstance(event, events.RunResumed):
                self.unknown_at = dict.fromkeys(self.ready_at, self.now)
                self.ready_at.clear()
            elif isinstance(event, events.HostLost):
                self._check_patience(event)
                self.unknown_at.pop(event.host, None)
                self.ready_at.pop(event.host, None)

    def observed(self, event: events.Event) -> None:
        """An event, after it was journalled."""
        if isinstance(event, events.JobAssigned) and self._is_interrupted():
            raise Violation("interrupt", f"job {event.num} is given to {event.host} after an interrupt")

    def _is_interrupted(self) -> bool:
        return any(isinstance(event, events.RunInterrupt) for event in self.disk.happened)

    def _check_patience(self, event: events.HostLost) -> None:
        """P5: a host is not given up because its link is gone, but because it stayed so for as long as was asked."""
        assert self.controller is not None
        is_interrupted = self.controller.scheduler.interrupted is not None
        if event.why == "as asked" or is_interrupted or event.host not in self.unknown_at:
            return
        waited = self.now - self.unknown_at[event.host]
        if self.policies.on_host_loss == "wait" or waited < self.policies.host_loss_timeout - 0.01:
            raise Violation("unknown is not lost", f"{event.host} was given up after {waited:.1f} s")

    def delivered(self, returned: Returned) -> None:
        """A JobReturn reaches the caller."""
        event = returned.event
        self.deliveries[event.num] += 1
        if returned.stored is not None:
            expected = f"{event.num}.{event.attempt} on {event.host}".encode()
            if returned.stored.payload != expected:
                raise Violation("own result", f"job {event.num} has {returned.stored.payload!r} for {expected!r}")

    # -- invariants ----------------------------------------------------------------------------------------------

    def _replayed(self) -> Scheduler:
        for event in self.disk.happened[self._shadowed :]:
            if isinstance(event, events.JobAssigned):
                self.assigned.add(f"{event.num}.{event.attempt}")
            if isinstance(event, events.HostLost):
                self.given_up |= {(f"{num}.{self.shadow.jobs[num].attempt}", event.host) for num in event.jobs}
            self.shadow.apply(event)
        self._shadowed = len(self.disk.happened)
        return self.shadow

    def check_state(self, scheduler: Scheduler) -> None:
        """What the journal says is what the controller thinks."""
        self._compare(scheduler, self._replayed())
        for host in scheduler.hosts.values():
            if host.slots < 1 or host.ahead() < 0:
                raise Violation("slots", f"{host.name} has {host.slots} slots, and {host.ahead()} jobs may wait there")

    @staticmethod
    def _compare(live: Scheduler, replayed: Scheduler) -> None:
        for name in ("jobs", "pending", "counts", "interrupted", "detaching", "forgiven", "next_num"):
            if getattr(live, name) != getattr(replayed, name):
                raise Violation(
                    "replayed state is live state",
                    f"{name}: {getattr(live, name)} is {getattr(replayed, name)} replayed",
                )
        for host, other in zip(live.hosts.values(), replayed.hosts.values(), strict=True):
            mine, its = dict(vars(host)), dict(vars(other))
            for data in (mine, its):
                data["unknown_since"] = data["ready_since"] = data["closed_since"] = None
            if mine != its:
                raise Violation("replayed state is live state", f"{mine} is {its} replayed")

    def _check_end(self) -> None:
        assert self.controller is not None
        returned = Counter(event.num for event in self.disk.happened if isinstance(event, events.JobReturned))
        for num in range(len(self.history.jobs)):
            if returned[num] != 1:
                state = self.controller.scheduler.jobs.get(num)
                raise Violation(
                    "one outcome" if returned[num] else "a verdict by the deadline",
                    f"job {num} has {returned[num]} outcomes after {self.now:.0f} s; {state}",
                )
            if self.deliveries[num] > 1:
                raise Violation("one delivery", f"job {num} was delivered {self.deliveries[num]} times")
        self._check_nothing_dropped()
        fresh = Scheduler([host.name for host in self.hosts], self.policies)
        for event in self.disk.happened:
            fresh.apply(through_json(event))
        self._compare(self.controller.scheduler, fresh)
        self._check_hooks()

    def _check_nothing_dropped(self) -> None:
        """A job whose attempt completed, and was spooled, is not reported as anything else."""
        for event in self.disk.happened:
            if not isinstance(event, events.JobReturned):
                continue
            attempt = f"{event.num}.{event.attempt}"
            where, status = self.spooled_results.get(attempt, ("", ""))
            host = next((host for host in self.hosts if host.name == where), None)
            gone = host is not None and (attempt in host.wiped or (attempt, where) in self.given_up)
            if event.status == "COMPLETED" and status != "COMPLETED":
                raise Violation("success needs a result", f"job {event.num} is COMPLETED, {attempt} was not")
            if event.status == "FAILED" and status == "COMPLETED" and not gone:
                raise Violation("spooled result dropped", f"{attempt} completed on {where}, and is {event.error}")

    def _check_hooks(self) -> None:
        for attempt, hooks in self.hooks.items():
            host = next((host for host in self.hosts if attempt in host.spool or attempt in host.processes), None)
            if hooks and hooks != ["on_job_start", "on_job_end"] and host is None and not self._is_wiped(attempt):
                raise Violation("hooks balanced", f"{attempt}: {hooks}")

    def _is_wiped(self, attempt: str) -> bool:
        return any(attempt in host.wiped for host in self.hosts)
