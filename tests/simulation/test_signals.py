"""One or two signals at any step of a run: session, hooks, driving and leaving are real; engine, journal and hosts are a model.

A step is whatever the session's thread does that takes time: it waits for an arrival, a hook runs, the journal is written, a job is
submitted, the run is closed. What holds, whenever the signals come:

* there is an end;
* a hook that came to its end is in the journal, and one that did not is not, so that it is owed to whoever takes the run up;
* a callback's `on_job_return` comes to its end once per job, its end hook once;
* without a second signal nothing is owed; with it, the end hook has come to its end or the journal does not say that it has.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher import events
from launcher.errors import RunInterrupted
from launcher.runs import record as run_record
from launcher.runs.journal import Returned
from launcher.session.hooks import RunHooks
from launcher.session.session import Session, SessionConf
from launcher.session.stopping import interrupts
from remote_agent.callbacks.composite import Callbacks

_FOLDER = Path("/nowhere/launcher-simulation")
KINDS = ("start", "submit", "wait", "deliver", "hook", "write", "close", "end")


class World:
    """Steps, and the signals that come at some of them."""

    def __init__(self, seed: int, signals: tuple[int, ...]) -> None:
        self.rng = random.Random(seed)
        #: Jobs do not end when they are told to.
        self.is_deaf = self.rng.random() < 0.3
        self.signals = signals
        self.steps: list[str] = []
        self.interrupts: Any = None
        self.done: Counter[tuple[str, str, int]] = Counter()
        self.cut: list[tuple[str, str, int]] = []

    def step(self, kind: str) -> None:
        """Something takes a while; a signal may come meanwhile."""
        self.steps.append(kind)
        for _ in range(self.signals.count(len(self.steps) - 1)):
            try:
                self.interrupts.handled(signal.SIGINT)
            finally:
                self.interrupts.arrived(signal.SIGINT)


class Journal:
    """What was written."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.happened: list[events.Event] = []
        self.meta: dict[str, str] = {}

    def append(self, happened: list[events.Event]) -> None:
        """Events."""
        self.happened += happened

    def put_meta(self, **values: str) -> None:
        """Facts about the run."""
        self.meta |= values

    def put_blob(self, name: str, data: bytes) -> None:
        """Of no concern here."""

    def commit(self) -> None:
        """It takes a while."""
        self.world.step("write")


class Arrivals:
    """What came and was not taken."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def empty(self) -> bool:
        """Nothing."""
        return not self.items


class Engine:
    """Hosts that answer in any order, and not always when they are told to end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.journal = Journal(world)
        self.arrivals = Arrivals()
        self.scheduler = SimpleNamespace(hosts={}, pending={}, counts=Counter())
        self.running: list[int] = []
        self.submitted = self.returned = 0
        self.is_running = self.interrupted = False
        self.is_deaf = world.is_deaf
        self.crash, self.stalled, self.not_ended = None, "", []

    has_room = True
    is_own_thread = False

    @property
    def is_idle(self) -> bool:
        """Everything has been taken."""
        return self.returned >= self.submitted

    def observe(self, event: events.Event) -> None:
        """Nobody looks."""

    def start(self, *, connect: bool = True) -> None:
        """Connect."""
        self.is_running = True
        self.world.step("start")

    def submit(self, jobs: Any, is_stopped: Any, *, is_complete: bool = False) -> bool:
        """Take jobs."""
        self.submitted += len(jobs)
        self.running += [job.num for job in jobs]
        self.world.step("submit")
        return True

    def interrupt(self, why: str, *, kill: bool = False) -> None:
        """Cancel everything: what is killed comes back, unless its host is deaf."""
        self.interrupted = True

    def record(self, happened: Any = (), meta: Any = None, blobs: Any = None) -> None:
        """Journal it."""
        self.journal.append(list(happened))
        self.journal.put_meta(**(meta or {}))

    def wait(self, timeout: float | None) -> Any:
        """Some job returns; a deaf host's, once told to end, never do."""
        self.world.step("wait")
        if not self.running or (self.is_deaf and self.interrupted):
            return None
        num = self.running.pop(self.world.rng.randrange(len(self.running)))
        event = events.JobReturned(0.0, num, 1, "h", "COMPLETED", 1.0, None)
        self.journal.append([event])
        self.returned += 1
        self.world.step("deliver")
        return Returned(event, None, _FOLDER)

    def close(self, *, keep: bool = False) -> list[str]:
        """Tell the hosts."""
        self.world.step("close")
        self.is_running = False
        return []

    def close_journal(self, *happened: events.Event) -> None:
        """Write the last of it."""
        self.journal.append(list(happened))
        self.world.step("end")

    def detach_at_once(self, timeout: float) -> bool:
        """Leave in haste."""
        self.is_running = False
        return True

    def drop_links(self) -> None:
        """There are none."""

    def wake(self) -> None:
        """It never sleeps."""

    def lift_limit(self) -> None:
        """There is none."""


class Callback:
    """Takes its time in each hook."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name

    def _hook(self, hook: str, num: int) -> None:
        try:
            self.world.step("hook")
        except KeyboardInterrupt:
            self.world.cut.append((self.name, hook, num))
            raise
        self.world.done[self.name, hook, num] += 1

    def on_multirun_start(self, **kwargs: Any) -> None:
        """Before any job."""
        self._hook("on_multirun_start", -1)

    def on_job_return(self, job_return: Any, **kwargs: Any) -> None:
        """As one arrives."""
        self._hook("on_job_return", job_return.num)

    def on_multirun_end(self, **kwargs: Any) -> None:
        """After all."""
        self._hook("on_multirun_end", -1)


class SimSession(Session):
    """A session with the model's engine."""

    def __init__(self, world: World) -> None:
        self.world = world
        setup: Any = SimpleNamespace(
            run_id="r",
            folder=_FOLDER,
            first_num=0,
            root_config=None,
            config_name=None,
            mode="MULTIRUN",
            callbacks=Callbacks([("a", Callback(world, "a")), ("b", Callback(world, "b"))], report=lambda record: None),
            fired_elsewhere=frozenset(),
            hosts=[],
            options=SimpleNamespace(lease=None, otel=False),
            task=None,
            continues=None,
            waits_for_task=False,
            prepare=lambda: SimpleNamespace(warnings=(), notes=()),
            hook_returns=lambda returns: returns,
            pickler=SimpleNamespace(dumps_here=lambda value: b""),
            job=lambda num, task, config, overrides: SimpleNamespace(num=num),
        )
        claim = SimpleNamespace(folder=_FOLDER, earlier=None, take_lock=lambda: -1)
        setup.take_folder = lambda: (setup, claim)
        setup.with_task = lambda task, with_config: setup
        super().__init__(setup, SessionConf())
        world.interrupts = self.interrupts

    def build(self, lock: int | None = None) -> None:
        self._engine = Engine(self.world)  # type: ignore[assignment]
        self.hooks = RunHooks(self.setup, self.engine, self.interrupts)
        self.made_returns = SimpleNamespace(  # type: ignore[assignment]
            make=lambda item: SimpleNamespace(num=item.event.num, status=SimpleNamespace(name="COMPLETED")),
            hook_config=lambda job_return, payload: None,
        )

    def show_signal(self, text: str) -> None:
        """Nor is the screen."""

    def handle_signals(self) -> None:
        """The history gives the signals."""


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    # The user's index of runs is of no concern.
    monkeypatch.setattr("launcher.session.opening.index_run", lambda setup, hooks, at, secret: None)
    monkeypatch.setattr(run_record, "write_setup", lambda setup, journal: None)
    monkeypatch.setattr(run_record, "write_prepared", lambda prepared, journal: None)
    monkeypatch.setattr(interrupts, "PATIENCE", 0.0)
    monkeypatch.setattr("launcher.session.stopping.ending._ON_THEIR_WAY", 0.0)


def history(seed: int, signals: tuple[int, ...]) -> World:
    """A run of some jobs, with signals at those steps; what a life of the controller must leave behind is checked."""
    world = World(seed, signals)
    jobs = world.rng.randrange(1, 5)
    session = SimSession(world)
    try:
        with session:
            session.drive([(None, ()) for _ in range(jobs)])
    except RunInterrupted:
        assert signals, "nobody asked for it"
    except KeyboardInterrupt:
        raise AssertionError("a signal was raised outside of a hook") from None
    engine: Any = session.engine
    fired = Counter(
        (event.callback, event.hook, event.num if event.num is not None else -1)
        for event in engine.journal.happened
        if isinstance(event, events.HookFired)
    )
    assert fired == world.done, "what came to its end is in the journal, and nothing else is"
    assert all(count == 1 for count in fired.values())
    assert not set(world.cut) & set(world.done)
    assert len(world.cut) <= 1
    returned = [event.num for event in engine.journal.happened if isinstance(event, events.JobReturned)]
    owed = [(name, num) for name in "ab" for num in returned if not fired[name, "on_job_return", num]]
    is_ended = any(isinstance(event, events.RunEnded) for event in engine.journal.happened)
    is_left = any(isinstance(event, events.RunDetached) for event in engine.journal.happened)
    assert is_ended or is_left or "on_multirun_start" in [hook for _, hook, _ in world.cut]
    assert not (is_ended and (owed or world.cut)), "a run that is over owes nothing"
    ends = sum(fired[name, "on_multirun_end", -1] for name in "ab")
    if is_ended:
        assert ends == 2
    if '"on_multirun_end": "done"' in engine.journal.meta.get("ended", ""):
        assert ends == 2
    if len(signals) < 2:
        assert is_ended or engine.is_deaf
        assert not owed
    return world


def pairs(first: int, count: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(seed, steps of signals): of one history after the other, at one step or at two."""
    seed = first
    while count > 0:
        rng = random.Random(seed)
        steps = len(history(seed, ()).steps)
        for _ in range(min(count, 5)):
            one = rng.randrange(steps)
            # A host that is deaf to the first signal is only left by a second one.
            is_deaf = World(seed, ()).is_deaf
            yield seed, (one, one + rng.choice((0, 1, 2, 3, 8))) if rng.random() < 0.6 or is_deaf else (one,)
            count -= 1
        seed += 1


def check(first: int, count: int) -> None:
    """Run them; every kind of step must have been signalled in."""
    seen: Counter[str] = Counter()
    for seed, signals in pairs(first, count):
        try:
            world = history(seed, signals)
        except AssertionError as error:
            pytest.fail(f"history({seed}, {signals}): {error}", pytrace=True)
        seen.update(world.steps[step] for step in signals if step < len(world.steps))
    assert set(seen) == set(KINDS)


@pytest.mark.slow
def test_signals_at_some_steps() -> None:
    """Three hundred histories."""
    check(0, 300)


@pytest.mark.simulation
def test_signals_at_ten_thousand_steps() -> None:
    """Ten thousand pairs of a history and steps in it."""
    check(1000, 10_000)


def test_a_handler_that_raises_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation can fail: so it was once."""

    def handled(self: interrupts.Interrupts, number: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(interrupts.Interrupts, "handled", handled)
    with pytest.raises(AssertionError):
        for seed, signals in pairs(0, 50):
            history(seed, signals)


def test_an_interrupted_hook_that_is_written_down_as_fired_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would never fire again."""
    monkeypatch.setattr(RunHooks, "is_cut", property(lambda self: False, lambda self, value: None), raising=False)
    with pytest.raises(AssertionError):
        for seed, signals in pairs(0, 100):
            history(seed, signals)
