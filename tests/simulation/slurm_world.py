"""A run on a cluster, as its seed has it: submitters, allocations, deaths, and a disk that is late and forgetful. Time goes on in steps.

Rule: what is decided is decided by the code of `remote_agent.slurm`. The model has what that cannot have here: processes, which die at any step
and may go on though Slurm has started their job again, and what a promise is about: that an attempt begins once, that its end hooks fire once,
that it has one result, and that one submitter writes at a time.
"""

from __future__ import annotations

import random
from collections import Counter

from remote_agent.job import JobError
from remote_agent.slurm.pool import incarnations
from remote_agent.slurm.pool.heirs import MAX_HEIRS, OWED, Owed, owe, settle_dead, take_owed
from remote_agent.slurm.pool.incarnations import FOLDER, Debt, Fate, Incarnation, Incarnations, holders, is_fenced
from remote_agent.slurm.pool.next_attempts import make_next, next_id
from remote_agent.slurm.pool.pool import Pool, order_of
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from remote_agent.slurm.shared_disk.turns import SEEN, SILENCE, Turn
from tests.simulation.late_disk import LATE, LateDisk, LateReader, Machine
from tests.specs import job_spec

__all__ = ["STEPS", "World"]

_LIMITS = {"preempted": 2, "node_failed": 1}
_JOBS = 6
#: More than any history takes.
STEPS = 6000
#: After so many steps nothing more happens to the cluster.
_QUIET = 60


def _final(kind: str = "") -> dict[str, object]:
    error = {"kind": kind, "type": "", "message": "", "traceback": "", "causes": []} if kind else None
    envelope = {"status": "FAILED" if kind else "COMPLETED", "error": error, "hooks": [], "abort": None}
    return {"envelope": envelope, "parts": {}}


class Allocation:
    """One incarnation, which takes attempts as an allocation with some slots does, a step at a time."""

    def __init__(self, world: World, job: int, restart: int) -> None:
        self.world = world
        self.name = f"{job}.{restart}"
        self.job, self.restart = job, restart
        self.machine = Machine(world.disk)
        files = self.files = SharedFiles("/run", self.name, self.machine)
        for folder in ((FOLDER,), (OWED,), (FOLDER, self.name)):
            files.make_folder(*folder)
        self.pool = Pool(files, self.name)
        self.log = world.disk.logs.setdefault(f"/run/{FOLDER}/{self.name}/log", [])
        self.slots = world.disk.rng.choice([1, 1, 2, 3])
        self.is_alive = True
        #: Whether Slurm has said that it is over, and it goes on.
        self.is_split = False
        self.held: list[str] = []
        self.running: list[str] = []
        #: Attempts that it has inherited, as (attempt, what is owed): taken, and copied into its log.
        self.inherited: list[tuple[str, Owed]] = []
        self.ending: list[tuple[str, str]] = []
        #: It waits for the logs of earlier starts of its job, and for what was owed when it was asked for.
        self.waits_until = world.disk.now + incarnations.SETTLE
        self.expects = len(world.owed)
        self.has_buried = self.has_begun = False
        self.earlier = [
            Incarnation(name, LateReader(self.machine, f"/run/{FOLDER}/{name}/log"))
            for name in files.names(FOLDER)
            if is_fenced(name, [self.name])
        ]

    def record(self, name: str, **fields: object) -> None:
        self.log.append((self.world.disk.now, {"r": name, **fields}))

    def is_fenced(self) -> bool:
        """Whether it sees a later start of its own Slurm job."""
        return is_fenced(self.name, self.files.names(FOLDER))

    def step(self) -> None:
        try:
            if not self.has_begun:
                self.begin()
            else:
                self.work()
        except OSError:
            # It ends with what it has not caught, and Slurm sees that.
            self.die()

    def die(self) -> None:
        self.is_alive = False
        if self.restart == self.world.latest(self.job):
            self.world.ended[self.job] = self.world.disk.now

    def begin(self) -> None:
        """Say what earlier starts owe, inherit something, and only then take jobs."""
        now = self.world.disk.now
        for one in self.earlier:
            one.advance()
        if not self.has_buried:
            if self.earlier and now < self.waits_until and any(one.left is None for one in self.earlier):
                return
            settle_dead(self.files, self.pool, self.earlier, "h", _LIMITS, lambda one: ("node_failed", "again"))
            self.has_buried = True
        if len(self.files.names(OWED)) < self.expects and now < self.waits_until:
            return
        for attempt, owed in take_owed(self.files, self.pool, self.slots):
            self.inherited.append((attempt, owed))
        self.record("began", node="n1")
        self.has_begun = True

    def work(self) -> None:
        rng = self.world.disk.rng
        if self.is_fenced():
            self.is_alive = False
        elif self.inherited:
            attempt, owed = self.inherited.pop()
            self.record("claimed", a=attempt, boot=owed.source)
            self.ending.append((attempt, owed.kind))
        elif self.ending and rng.random() < 0.5:
            attempt, kind = self.ending.pop()
            self.world.fire(attempt, self)
            self.finish(attempt, kind)
        elif self.running and rng.random() < 0.3:
            self.end(self.running.pop(rng.randrange(len(self.running))))
        elif self.held and len(self.running) < self.slots:
            attempt = self.held.pop()
            self.record("claimed", a=attempt, boot="b")
            self.world.begins(attempt, self)
            self.running.append(attempt)
        elif not self.running and not self.held and not self.ending and rng.random() < 0.05:
            self.record("left", why="idle")
            self.die()
        else:
            self.take()

    def finish(self, attempt: str, kind: str) -> None:
        """A result is in the log, and the next attempt is made, if one follows."""
        self.world.results[attempt] += 1
        self.record("final", a=attempt, **_final(kind))
        if kind:
            try:
                make_next(self.pool, attempt, "h", kind, _LIMITS)
            except OSError:
                pass  # the submitter makes it

    def end(self, attempt: str) -> None:
        """A job has ended, or the allocation is preempted: then the job's end hooks fire, and the allocation may have the time to say more."""
        rng = self.world.disk.rng
        self.world.fire(attempt, self)
        if rng.random() < 0.8:
            self.finish(attempt, "")
            return
        if rng.random() < 0.5:
            self.world.results[attempt] += 1
            self.record("final", a=attempt, **_final("preempted"))
            self.die()
            return
        self.finish(attempt, "preempted")
        while self.running:
            other = self.running.pop()
            self.world.fire(other, self)
            self.finish(other, "preempted")
        self.record("left", why="preempted")
        self.die()

    def take(self) -> None:
        # A claim to end hooks that turns out to be its own is left to another one, as in `Allocation`.
        self.held += [one for one in self.pool.settled() if one.count(".") == 1]
        for attempt in self.pool.waiting("default"):
            if len(self.held) + len(self.running) >= self.slots:
                return
            try:
                if self.pool.take(attempt):
                    self.held.append(attempt)
            except OSError:
                pass  # its `.id` could not be made


class Submitter:
    """A process that puts jobs in and says what became of those that died. It begins when those before it have stopped."""

    def __init__(self, world: World) -> None:
        self.world = world
        machine = Machine(world.disk)
        world.submitters += 1
        files = self.files = SharedFiles("/run", f"submitter-{world.submitters}", machine)
        files.make_folder(OWED)
        self.pool = Pool(files, f"submitter-{world.submitters}")
        self.incarnations = Incarnations(files, machine.reader)
        self.turn = Turn(files)
        self.begun_at = self.touched_at = world.disk.now
        self.is_alive = True
        self.asleep_until = 0.0

    def may_act(self) -> bool:
        """Whether it is its turn. It stops for good when it has seen a later one."""
        now = self.world.disk.now
        if now < self.asleep_until:
            return False
        if self.turn.is_over:
            self.is_alive = False
            return False
        self.touched_at = now
        before = [one for one in self.world.all_submitters if one.turn.number < self.turn.number]
        # What it sees of their logs may be as old as the disk is late.
        late = self.world.disk.rng.uniform(0.0, LATE) if before else 0.0
        return all(not one.is_alive or (now - one.touched_at > SILENCE - late and self._is_seen(one)) for one in before)

    def _is_seen(self, earlier: Submitter) -> bool:
        """Whether that one must have seen that a later turn was taken."""
        taken = min(one.begun_at for one in self.world.all_submitters if one.turn.number > earlier.turn.number)
        return self.world.disk.now - taken >= SEEN

    def step(self) -> None:
        if not self.may_act():
            return
        world = self.world
        world.acts(self)
        try:
            self.put()
            self.follow()
        except OSError:
            self.is_alive = False  # it ends with the link, and another one comes

    def put(self) -> None:
        world = self.world
        for attempt in world.to_put:
            spec = job_spec(num=order_of(attempt)[0], attempt=order_of(attempt)[1]).to_json()
            try:
                self.pool.put("default", attempt, {"t": "job", "spec": spec, "payload_blob": None}, b"payload")
                world.is_put.add(attempt)
            except OSError:
                continue

    def follow(self) -> None:
        world = self.world
        self.incarnations.advance(world.disk.now)
        for one in self.incarnations:
            if one.left is None and world.disk.now >= world.ended.get(one.job, world.disk.now + 1):
                self.incarnations.bury(one.name, "node_failed", "NODE_FAIL", world.disk.now)
        takers = self.pool.takers()
        held_by = holders(takers)
        for one in self.incarnations:
            for name, known in one.attempts.items():
                rank, holder = held_by.get(name, (0, ""))
                counts = holder == one.name and rank >= world.owed.get(name, 0)
                if known.final is not None and counts and name not in world.collected | world.verdicts.keys():
                    self.see_end(name, known.final.envelope.error)
        for attempt in world.to_cancel:
            if self.pool.take(attempt):
                world.cancelled.add(attempt)
        for debt in self.incarnations.debts(takers, world.disk.now):
            if debt.attempt not in world.collected | world.verdicts.keys():
                self.settle(debt)

    def settle(self, debt: Debt) -> None:
        """As `Following` does: what never began is given back; what may have is owed its end hooks, a few times."""
        world = self.world
        if world.owed.get(debt.attempt, 0) > debt.rank:
            return
        if debt.fate is Fate.UNBEGUN and not debt.rank:
            world.decide(debt.attempt, debt.fate)
        elif debt.rank >= MAX_HEIRS:
            world.decide(debt.attempt, Fate.BROKEN)
        else:
            owe(self.files, f"{debt.attempt}.{debt.rank + 1}", Owed(debt.incarnation, debt.kind, debt.why))
            world.owed[debt.attempt] = debt.rank + 1

    def see_end(self, attempt: str, error: JobError | None) -> None:
        """Make the attempt that follows, and then count this one."""
        try:
            if error is not None and make_next(self.pool, attempt, "h", error.kind, _LIMITS):
                self.world.follow(attempt)
        except OSError:
            return
        self.world.collect(attempt)


class World:
    """A run, as its seed has it."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.disk = LateDisk(rng, faults=rng.choice([0.0, 0.05, 0.3]))
        self.submitters = 0
        self.attempts = dict.fromkeys(range(_JOBS), 1)
        self.is_put: set[str] = set()
        #: Since when Slurm says that a job of its own has ended.
        self.ended: dict[int, float] = {}
        self.verdicts: dict[str, Fate] = {}
        self.followed: set[str] = set()
        self.collected: set[str] = set()
        self.cancelled: set[str] = set()
        #: Attempt -> how often its end hooks were owed, as the logs of submitters say.
        self.owed: dict[str, int] = {}
        self.wants_cancel: set[str] = {f"{num}.1" for num in range(_JOBS) if rng.random() < 0.15}
        self.begun: Counter[str] = Counter()
        self.begun_by: dict[str, Allocation] = {}
        self.results: Counter[str] = Counter()
        self.fired: dict[str, list[Allocation]] = {}
        self.allocations: list[Allocation] = []
        self.acting = 0
        self.all_submitters: list[Submitter] = []
        self.new_submitter()
        self.jobs = 100

    def new_submitter(self) -> None:
        """Another one comes, if it can take a turn."""
        try:
            made = Submitter(self)
        except OSError:
            return
        assert made.turn.number not in [one.turn.number for one in self.all_submitters], "a turn was taken twice"
        self.all_submitters.append(made)

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

    # -- what is promised ----------------------------------------------------------------------------------------

    def acts(self, submitter: Submitter) -> None:
        """One submitter writes, and none that came before another one that has."""
        assert submitter.turn.number >= self.acting, f"submitter {submitter.turn.number} writes after {self.acting}"
        self.acting = submitter.turn.number

    def begins(self, attempt: str, allocation: Allocation) -> None:
        """A job's process begins: never twice, and never beside that of an earlier attempt that nobody has said to be broken."""
        self.begun[attempt] += 1
        self.begun_by[attempt] = allocation
        assert self.begun[attempt] == 1, f"{attempt} began twice"
        num, number = order_of(attempt)
        before = f"{num}.{number - 1}"
        assert number == 1 or self.results[before] or before in self.verdicts or not self.begun[before], (
            f"{attempt} began before the end of {before}"
        )
        assert attempt not in self.cancelled, f"{attempt} began though it was cancelled"
        assert not self.begun[next_id(attempt)], f"{attempt} began after {next_id(attempt)}"
        assert self.verdicts.get(attempt) is not Fate.UNBEGUN, f"{attempt} began after it was said not to have"

    def fire(self, attempt: str, allocation: Allocation) -> None:
        """The end hooks of an attempt fire: once, unless a process goes on of which Slurm says that it is over."""
        fired = self.fired.setdefault(attempt, [])
        assert self.begun[attempt], f"end hooks of {attempt} fire, and it never began"
        assert not fired or any(one.is_split for one in (*fired, allocation)), f"end hooks of {attempt} fire again"
        fired.append(allocation)

    def collect(self, attempt: str) -> None:
        """A result is the controller's."""
        assert self.results[attempt], f"{attempt} has no result"
        assert self.fired.get(attempt), f"{attempt} has a result, and its end hooks have not fired"
        self.collected.add(attempt)

    def decide(self, attempt: str, fate: Fate) -> None:
        """The submitter says what became of an attempt; both fates get another one here."""
        assert attempt not in self.followed, f"{attempt} is followed by more than one"
        self.verdicts[attempt] = fate
        num, number = order_of(attempt)
        assert fate is Fate.BROKEN or not self.begun[attempt], f"{attempt} had begun"
        self.attempts[num] = max(self.attempts[num], number + 1)

    def follow(self, attempt: str) -> None:
        """The next attempt was made in the pool."""
        num, number = order_of(attempt)
        # A later one may have been seen before, because the log of this one is late.
        self.attempts[num] = max(self.attempts[num], number + 1)
        self.followed.add(attempt)
        self.is_put.add(next_id(attempt))

    # -- what happens --------------------------------------------------------------------------------------------

    def disturb(self) -> None:
        """Something happens to the cluster."""
        rng = self.disk.rng
        if rng.random() < 0.02:
            self.new_submitter()
        if rng.random() < 0.02:
            # Its machine stands still, and it does not know.
            self.all_submitters[-1].asleep_until = self.disk.now + rng.uniform(0.0, 2 * SILENCE)
        if rng.random() < 0.02:
            rng.choice(self.all_submitters).is_alive = False
        if rng.random() < 0.3 and len([one for one in self.allocations if one.is_alive]) < 4:
            self.add_allocation()
        alive = [one for one in self.allocations if one.is_alive]
        if alive and rng.random() < 0.1:
            one = rng.choice(alive)
            latest = self.latest(one.job)
            if one.restart < latest:
                # Slurm has started it again before. What went on ends now.
                one.is_alive = False
                return
            one.is_split = one.is_alive = rng.random() < 0.3
            if one.is_split or rng.random() < 0.5:
                self.ended.pop(one.job, None)
                self.allocations.append(Allocation(self, one.job, latest + 1))
            else:
                self.ended[one.job] = self.disk.now + rng.choice([0.0, 30.0])

    def latest(self, job: int) -> int:
        """The last start of a job of Slurm's."""
        return max(one.restart for one in self.allocations if one.job == job)

    def add_allocation(self) -> None:
        """Slurm starts another one."""
        self.jobs += 1
        self.allocations.append(Allocation(self, self.jobs, 0))

    def keep_going(self) -> None:
        """Somebody is there as long as something is to be done: a submitter, and allocations for jobs and for what is owed."""
        if not any(one.is_alive for one in self.all_submitters):
            self.new_submitter()
        alive = [one for one in self.allocations if one.is_alive]
        owes = any(attempt not in self.collected | self.verdicts.keys() for attempt in self.owed)
        if not alive or (owes and len(alive) < 4 and self.disk.rng.random() < 0.05):
            self.add_allocation()

    def run(self) -> None:
        """Let it go on until all jobs have returned."""
        rng = self.disk.rng
        for turn in range(STEPS):
            self.disk.now += rng.choice([0.1, 1.0, 5.0])
            if turn < _QUIET:
                self.disturb()
            elif not self.open:
                break
            else:
                self.keep_going()
            for submitter in list(self.all_submitters):
                if submitter.is_alive:
                    submitter.step()
            for one in list(self.allocations):
                if one.is_alive:
                    one.step()
        assert not self.open, f"forgotten: {self.open}"
