"""The controller's links to two hosts as a state machine. One host obeys the protocol, the other sends anything in
any order.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from launcher import events
from launcher.agents import facts
from launcher.agents.receiver import FrameReceiver
from launcher.engine import requests
from launcher.engine.decider import Decider
from launcher.engine.requests import QueuedJob
from launcher.engine.scheduling.policies import Policies
from launcher.engine.scheduling.scheduler import Scheduler
from launcher.errors import AgentError
from remote_agent.protocol import wire
from remote_agent.protocol.specs.job import JobSpec
from tests.launcher.agents.links import WELCOME, messages, plan
from tests.simulation.journal import Disk, SimJournal
from tests.specs import DONE, FAILED, job_spec

JOBS = 12


class End:
    """What the decider sends to a host, and what the host sends to it."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.given: list[str] = []
        self.receiver: FrameReceiver | None = None
        #: Hosts that its errors named.
        self.blamed: set[str] = set()

    def send_job(self, spec: JobSpec, payload: bytes, *, is_last: bool = False) -> None:
        self.given.append(spec.attempt_id)

    def cancel(self, attempts: list[str] | None, **more: Any) -> None: ...

    def sync(self, number: int) -> None: ...

    def go(self) -> None: ...

    # -- the host's side -------------------------------------------------------------------------------------------

    def connect(self) -> FrameReceiver:
        """A new link, on which nothing was sent."""
        self.lose("another link")
        world = self.world
        self.receiver = FrameReceiver(
            self.name, plan(), world.tell, world.decider.effects.folder_of, world.folder / "results", self._answered
        )
        return self.receiver

    def _answered(self, item: Iterator[bytes] | bytes) -> None:
        for data in [item] if isinstance(item, bytes) else item:
            wire.Decoder().feed(data)

    def say(self, data: bytes) -> None:
        """Send bytes. If they break the protocol, the link ends with an error that names the host."""
        receiver = self.receiver or self.connect()
        try:
            receiver.feed(data)
        except AgentError as error:
            self.blamed.add(error.host)
            self.lose(error.message)

    def lose(self, why: str) -> None:
        """The link is gone."""
        if self.receiver is not None:
            self.receiver.attempts.close()
            self.receiver = None
            self.world.tell(facts.Disconnected(self.name, why))


class World:
    """A real decider and scheduler, and a journal in memory."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="session-"))
        self.disk = Disk()
        self.delivered: list[requests.Returned] = []
        self.hostile, self.honest = End(self, "h"), End(self, "other")
        self.scheduler = Scheduler(["h", "other"], Policies(on_host_loss="retry", host_loss_timeout=0.0))
        links: dict[str, Any] = {"h": self.hostile, "other": self.honest}
        self.decider = Decider(
            self.scheduler,
            SimJournal(self.disk),
            links,
            lambda host, attempt: None,
            self.delivered.append,
            lambda event: None,
            self,
        )
        jobs = [QueuedJob(num, (), self.folder / str(num), b"p", job_spec(num)) for num in range(JOBS)]
        self.decide(requests.Submit(tuple(jobs)))

    def wall(self) -> float:
        return 1.0

    def monotonic(self) -> float:
        return 1.0

    def decide(self, *asked: Any) -> None:
        """Decide about requests and facts."""
        self.decider.decide(list(asked))
        self.decider.commit()

    def tell(self, fact: facts.Fact) -> None:
        """Decide about a host's facts."""
        self.decide(fact)


def frames(kind: str, attempt: str) -> bytes:
    """The frames of an honest agent for an attempt."""
    if kind == "started":
        return wire.encode({"t": "started", "attempt": attempt, "slot": 0, "at": 1.0})
    if kind in ("final", "failed"):
        return wire.encode({"t": "final", "attempt": attempt, "envelope": DONE if kind == "final" else FAILED})
    if kind == "files_end":
        return wire.encode({"t": "files_end", "attempt": attempt, "refused": [], "sizes": {}})
    if kind == "dropped":
        return wire.encode({"t": "dropped", "attempt": attempt, "why": "no room"})
    if kind == "chunk":
        return wire.encode({"t": "chunk", "attempt": attempt, "kind": "result", "size": 2, "offset": 0}, b"x")
    return wire.encode({"t": "output", "attempt": attempt, "stream": "stdout", "offset": 0}, b"x")


_KINDS = st.sampled_from(["started", "final", "failed", "files_end", "dropped", "chunk", "output"])


class SessionMachine(RuleBasedStateMachine):
    """Whatever the hostile host sends, no job has two outcomes, and the honest host finishes what the other one leaves."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.world.honest.connect()
        self.world.honest.say(wire.encode({**WELCOME, "slots": 1, "hostname": "other"}))

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        try:
            world.hostile.lose("for good")
            world.tell(facts.Refused("h", "it refuses"))
            world.tell(facts.Unusable("h", AgentError("h", "session", "it was never there")))
            for _ in range(3 * JOBS):
                self.honest_host_works()
            assert sorted(returned.event.num for returned in world.delivered) == list(range(JOBS))
        finally:
            shutil.rmtree(world.folder)

    # -- the honest host -------------------------------------------------------------------------------------------

    @rule()
    def honest_host_works(self) -> None:
        """It finishes its oldest job."""
        honest = self.world.honest
        if honest.given:
            attempt = honest.given.pop(0)
            for kind in ("started", "final", "files_end"):
                honest.say(frames(kind, attempt))
        assert honest.receiver is not None

    # -- the hostile one -------------------------------------------------------------------------------------------

    @rule(
        slots=st.integers(1, 3),
        boot=st.sampled_from(["b", "c"]),
        known=st.sampled_from([b"", b"all", b'{"0.1": "final"}']),
    )
    def greet(self, slots: int, boot: str, known: bytes) -> None:
        """A new link with a welcome, which knows some attempts or claims to."""
        hostile = self.world.hostile
        if known == b"all":
            known = ("{" + ", ".join(f'"{attempt}": "running"' for attempt in set(hostile.given)) + "}").encode()
        hostile.connect()
        hostile.say(wire.encode({**WELCOME, "slots": slots, "boot_id": boot}, known))

    @precondition(lambda self: self.world.hostile.given)
    @rule(
        which=st.integers(0, 9),
        kinds=st.lists(_KINDS, min_size=1, max_size=4)
        | st.permutations(["started", "final", "files_end"])
        | st.just(["failed", "files_end", "final", "files_end"]),
    )
    def tell_of_its_attempt(self, which: int, kinds: list[str]) -> None:
        """Messages about an attempt that the host was given, in any order and as often as it likes."""
        given = self.world.hostile.given
        if self.world.hostile.receiver is None:
            self.greet(1, "b", b"all")
        for kind in kinds:
            self.world.hostile.say(frames(kind, given[which % len(given)]))

    @rule(num=st.integers(0, JOBS), attempt=st.integers(1, 3), kinds=st.lists(_KINDS, min_size=1, max_size=3))
    def tell_of_any_attempt(self, num: int, attempt: int, kinds: list[str]) -> None:
        """Messages about attempts of the other host, of no host, or not assigned yet."""
        for kind in kinds:
            self.world.hostile.say(frames(kind, f"{num}.{attempt}"))

    @rule(message=messages(), piece=st.sampled_from([1, 7, 1 << 20]))
    def say_anything(self, message: tuple[dict[str, Any], bytes], piece: int) -> None:
        """Any message, in pieces."""
        data = wire.encode(*message)
        for start in range(0, len(data), piece):
            self.world.hostile.say(data[start : start + piece])

    @rule(noise=st.binary(min_size=1, max_size=40))
    def make_noise(self, noise: bytes) -> None:
        """Bytes that are no frame, or only a part of one."""
        self.world.hostile.say(noise)

    @rule(why=st.sampled_from(["reset", "silent"]))
    def vanish(self, why: str) -> None:
        """The link is lost."""
        self.world.hostile.lose(why)

    # -- what holds at all times -----------------------------------------------------------------------------------

    @invariant()
    def no_job_has_two_outcomes(self) -> None:
        """No unknown job is delivered, slots are never negative, and the journal gives the same state again."""
        if not hasattr(self, "world"):
            return
        world = self.world
        delivered = [returned.event.num for returned in world.delivered]
        assert len(delivered) == len(set(delivered))
        assert set(delivered) <= set(range(JOBS))
        returned = [event.num for _, event in world.disk.events() if isinstance(event, events.JobReturned)]
        assert sorted(returned) == sorted(delivered)
        for host in world.scheduler.hosts.values():
            assert host.ahead() >= 0

    @invariant()
    def the_honest_host_is_served(self) -> None:
        """Its link stays, and errors name only the other host."""
        if hasattr(self, "world"):
            assert self.world.honest.receiver is not None
            assert self.world.hostile.blamed <= {"h"}


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
