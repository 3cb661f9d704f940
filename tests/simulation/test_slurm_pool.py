"""Histories of a pool on a disk that is late and forgetful, and the promises that hold in each of them."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from remote_agent.job import JobError
from remote_agent.protocol.wire import Frame
from remote_agent.slurm import incarnations
from remote_agent.slurm.incarnations import FOLDER, Fate, Incarnations, is_fenced
from remote_agent.slurm.next_attempts import make_next, next_id
from remote_agent.slurm.pool import Pool, order_of
from remote_agent.slurm.shared_files import SharedFiles
from tests.simulation.late_disk import LATE, LateDisk, Machine
from tests.specs import job_spec

_FIRST = int(os.environ.get("SIMULATION_FIRST_SEED", "0"))
#: One takes 20 ms, so that ten thousand are four minutes.
_HISTORIES = int(os.environ.get("SIMULATION_POOL_HISTORIES", "3000"))
_DONE = {"envelope": {"status": "COMPLETED", "error": None, "hooks": [], "abort": None}, "parts": {}}
_ERROR = {"kind": "preempted", "type": "", "message": "", "traceback": "", "causes": []}
_PREEMPTED = {"envelope": {"status": "FAILED", "error": _ERROR, "hooks": [], "abort": None}, "parts": {}}
_LIMITS = {"preempted": 2}
_JOBS = 6


class Allocation:
    """One incarnation, which takes attempts as an allocation with some slots does, a step at a time."""

    def __init__(self, world: World, job: int, restart: int) -> None:
        self.world = world
        self.name = f"{job}.{restart}"
        self.job, self.restart = job, restart
        self.machine = Machine(world.disk)
        files = SharedFiles("/run", self.name, self.machine)
        self.files = files
        files.make_folder(FOLDER)
        files.make_folder(FOLDER, self.name)
        self.pool = Pool(files, self.name)
        self.log = world.disk.logs.setdefault(f"/run/{FOLDER}/{self.name}/log", [])
        self.record("began", node="n1")
        self.held: list[str] = []
        self.running: list[str] = []
        self.slots = world.disk.rng.choice([1, 1, 2, 3])
        self.is_alive = True

    def record(self, name: str, **fields: object) -> None:
        self.log.append((self.world.disk.now, {"r": name, **fields}))

    def is_fenced(self) -> bool:
        """Whether it sees a later start of its own Slurm job."""
        return is_fenced(self.name, self.files.names(FOLDER))

    def step(self) -> None:
        rng = self.world.disk.rng
        if self.is_fenced():
            self.is_alive = False
        elif self.running and rng.random() < 0.3:
            self.end(self.running.pop(rng.randrange(len(self.running))))
        elif self.held and len(self.running) < self.slots:
            attempt = self.held.pop()
            self.record("claimed", a=attempt, boot="b")
            self.world.begins(attempt, self)
            self.running.append(attempt)
        elif not self.running and not self.held and rng.random() < 0.05:
            self.record("left", why="idle")
            self.is_alive = False
        else:
            self.take()

    def end(self, attempt: str) -> None:
        """A job has ended, or the allocation is preempted: then it makes the next attempt, if it has the time."""
        rng = self.world.disk.rng
        self.world.results[attempt] += 1
        if rng.random() < 0.8:
            self.record("final", a=attempt, **_DONE)
            return
        self.record("final", a=attempt, **_PREEMPTED)
        self.is_alive = False
        if rng.random() < 0.5:
            self.world.dead[self.name] = self.world.disk.now
            return
        try:
            make_next(self.pool, attempt, "h", "preempted", _LIMITS)
        except OSError:
            pass  # the submitter makes it
        self.record("left", why="preempted")

    def take(self) -> None:
        self.held += self.pool.settled()
        for attempt in self.pool.waiting("default"):
            if len(self.held) + len(self.running) >= self.slots:
                return
            try:
                if self.pool.take(attempt):
                    self.held.append(attempt)
            except OSError:
                pass  # its `.id` could not be made


class Submitter:
    """The one process that puts jobs in and says what became of those that died."""

    def __init__(self, world: World) -> None:
        self.world = world
        machine = Machine(world.disk)
        world.submitters += 1
        files = SharedFiles("/run", f"submitter-{world.submitters}", machine)
        self.pool = Pool(files, f"submitter-{world.submitters}")
        self.incarnations = Incarnations(files, machine.reader)

    def step(self) -> None:
        world = self.world
        for attempt in world.to_put:
            spec = job_spec(num=order_of(attempt)[0], attempt=order_of(attempt)[1]).to_json()
            try:
                self.pool.put("default", attempt, {"t": "job", "spec": spec, "payload_blob": None}, b"payload")
                world.is_put.add(attempt)
            except OSError:
                continue
        self.incarnations.advance(world.disk.now)
        for name, at in world.dead.items():
            if world.disk.now >= at:
                self.incarnations.bury(name, "node_failed", "NODE_FAIL", world.disk.now)
        for one in self.incarnations:
            for name, known in one.attempts.items():
                if known.final is not None and name not in world.collected:
                    self.see_end(name, known.final.envelope.error)
        for attempt in world.to_cancel:
            if self.pool.take(attempt):
                world.cancelled.add(attempt)
        for debt in self.incarnations.debts(self.pool.takers(), world.disk.now):
            if debt.attempt not in world.verdicts:
                world.decide(debt.attempt, debt.fate)

    def see_end(self, attempt: str, error: JobError | None) -> None:
        """Make the attempt that follows, and then count this one."""
        try:
            if error is not None and make_next(self.pool, attempt, "h", error.kind, _LIMITS):
                self.world.follow(attempt)
        except OSError:
            return
        self.world.collected.add(attempt)


class World:
    """A run, as its seed has it."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.disk = LateDisk(rng, faults=rng.choice([0.0, 0.05, 0.3]))
        self.submitters = 0
        self.attempts = dict.fromkeys(range(_JOBS), 1)
        self.is_put: set[str] = set()
        self.dead: dict[str, float] = {}
        self.verdicts: dict[str, Fate] = {}
        self.collected: set[str] = set()
        self.cancelled: set[str] = set()
        self.wants_cancel: set[str] = {f"{num}.1" for num in range(_JOBS) if rng.random() < 0.15}
        self.begun: Counter[str] = Counter()
        self.begun_by: dict[str, Allocation] = {}
        self.results: Counter[str] = Counter()
        self.allocations: list[Allocation] = []
        self.submitter = Submitter(self)
        self.jobs = 100

    @property
    def current(self) -> list[str]:
        return [f"{num}.{number}" for num, number in self.attempts.items()]

    @property
    def to_put(self) -> list[str]:
        return [attempt for attempt in self.current if attempt not in self.is_put]

    @property
    def to_cancel(self) -> list[str]:
        return [one for one in self.current if one in self.wants_cancel & self.is_put - self.cancelled]

    @property
    def open(self) -> list[str]:
        return [one for one in self.current if one not in self.collected | self.cancelled]

    def begins(self, attempt: str, allocation: Allocation) -> None:
        """A job's process begins: never twice, and never beside that of an earlier attempt that nobody has said to be broken."""
        self.begun[attempt] += 1
        self.begun_by[attempt] = allocation
        assert self.begun[attempt] == 1, f"{attempt} began twice"
        num, number = order_of(attempt)
        before = f"{num}.{number - 1}"
        assert number == 1 or self.results[before] or before in self.verdicts, (
            f"{attempt} began before the end of {before}"
        )
        assert attempt not in self.cancelled, f"{attempt} began though it was cancelled"
        assert self.verdicts.get(attempt) is not Fate.UNBEGUN, f"{attempt} began after it was said not to have"

    def decide(self, attempt: str, fate: Fate) -> None:
        """The submitter says what became of an attempt; both fates get another one here."""
        self.verdicts[attempt] = fate
        num, number = order_of(attempt)
        assert fate is Fate.BROKEN or not self.begun[attempt], f"{attempt} had begun"
        self.attempts[num] = max(self.attempts[num], number + 1)

    def follow(self, attempt: str) -> None:
        """The next attempt was made in the pool."""
        num, number = order_of(attempt)
        assert self.attempts[num] == number, f"{attempt} is followed by more than one"
        self.attempts[num] = number + 1
        self.is_put.add(next_id(attempt))

    def disturb(self) -> None:
        """Something happens to the cluster."""
        rng = self.disk.rng
        if rng.random() < 0.3 and len([one for one in self.allocations if one.is_alive]) < 4:
            self.jobs += 1
            self.allocations.append(Allocation(self, self.jobs, 0))
        alive = [one for one in self.allocations if one.is_alive]
        if alive and rng.random() < 0.1:
            one = rng.choice(alive)
            is_split = rng.random() < 0.3
            one.is_alive = is_split
            if is_split or rng.random() < 0.5:
                latest = max(other.restart for other in self.allocations if other.job == one.job)
                self.allocations.append(Allocation(self, one.job, latest + 1))
            else:
                self.dead[one.name] = self.disk.now + rng.choice([0.0, 30.0])
        if rng.random() < 0.02:
            self.submitter = Submitter(self)

    def run(self) -> None:
        rng = self.disk.rng
        for turn in range(4000):
            self.disk.now += rng.choice([0.1, 1.0, 5.0])
            if turn < 60:
                self.disturb()
            elif not self.open:
                break
            elif not any(one.is_alive for one in self.allocations):
                self.jobs += 1
                self.allocations.append(Allocation(self, self.jobs, 0))
            self.submitter.step()
            for one in self.allocations:
                if one.is_alive:
                    one.step()
        assert not self.open, f"forgotten: {self.open}"
        for attempt in self.collected:
            assert self.results[attempt], f"{attempt} has no result"


def check(seed: int) -> None:
    """Fail if the history of this seed breaks a promise."""
    try:
        World(seed).run()
    except AssertionError as error:
        pytest.fail(f"seed {seed}: {error}", pytrace=False)


def test_some_histories():
    """No attempt begins twice, none that was cancelled begins, none is forgotten, and no result is made up."""
    for seed in range(_FIRST, _FIRST + 50):
        check(seed)


@pytest.mark.simulation
def test_many_histories():
    """No attempt begins twice, none that was cancelled begins, none is forgotten, and no result is made up."""
    for seed in range(_FIRST + 50, _FIRST + 50 + _HISTORIES):
        check(seed)


def test_a_verdict_that_comes_too_early_is_found(monkeypatch: pytest.MonkeyPatch):
    """The histories have teeth: without the wait for a log that is seen late, a job runs twice in one of them."""
    monkeypatch.setattr(incarnations, "SETTLE", 0.0)
    with pytest.raises(AssertionError, match=r"had begun|said not to have|more than one|before the end"):
        for seed in range(100):
            World(seed).run()


def test_the_disk_is_late_and_forgetful():
    """The model can do what it is there for: a name that others see late, and requests that fail though they were done."""
    disk = LateDisk(random.Random(1), faults=0.0)
    one, other = Machine(disk), Machine(disk)
    assert other.names("/run") == []
    disk.now = 1.0
    one.create("/run/x", b"")
    assert one.names("/run") == ["x"]
    assert any(other.names("/run") == [] for _ in range(1))
    disk.now += LATE
    assert other.names("/run") == ["x"]
    disk.faults = 1.0
    outcomes = set()
    for number in range(50):
        try:
            one.link("/run/x", f"/run/{number}")
        except OSError:
            outcomes.add(disk.has(f"/run/{number}"))
    assert outcomes == {True, False}


def test_a_job_is_read_as_it_was_put_in():
    """On such a disk, too, a job that can be read is whole."""
    disk = LateDisk(random.Random(2), faults=0.0)
    pool = Pool(SharedFiles("/run", "one", Machine(disk)), "one")
    spec = job_spec().to_json()
    pool.put("default", "3.1", {"t": "job", "spec": spec, "payload_blob": None}, b"payload")
    found = pool.job("default", "3.1")
    assert found == Frame({"t": "job", "spec": spec, "payload_blob": None}, b"payload")
