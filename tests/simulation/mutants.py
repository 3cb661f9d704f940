"""Schedulers, deciders and hosts with one defect each: the simulation must find every one of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from launcher import events
from launcher.agents import facts
from launcher.engine.decider import Decider
from launcher.engine.scheduling.policies import Policies
from launcher.engine.scheduling.scheduler import Scheduler
from launcher.engine.scheduling.state import UnfinishedJob
from launcher.engine.scheduling.time_limits import TimeLimits
from remote_agent.job import JobError
from remote_agent.protocol.specs.resources import Resources
from remote_agent.shared.room import Admission
from tests.simulation.history import History, Job, Step
from tests.simulation.model_host import Gpus, ModelHost, Record

__all__ = ["CAUGHT"]


class ForgetsFencing(Scheduler):
    """Takes what any attempt on any host brings for that of the job."""

    def current(self, num: int, attempt: int, host: str) -> UnfinishedJob | None:
        job = self.jobs.get(num)
        return job if job is not None and job.host and num not in self.pending else None


class GivesUpAtOnce(Scheduler):
    """Takes a link that is gone for a host that is lost."""

    def __init__(self, hosts: list[str], policies: Policies | None = None) -> None:
        super().__init__(hosts, policies)
        self._limits = _WithoutPatience(self, self.policies)


class _WithoutPatience(TimeLimits):
    def _patience(self) -> float:
        return 0.0


class ChangesStateBesides(Scheduler):
    """Cancels without an event, so that a journal does not have it."""

    def cancel(self, at: float, num: int) -> list[events.Event]:
        job = self.jobs.get(num)
        if job is None:
            return []
        job.is_cancelled = True
        return self._fail(at, job, "cancelled", "") if num in self.pending else []


class ForgetsClosedHosts(Scheduler):
    """Does not see that a host that takes no job can lose its link, too."""

    def observe_unknown(self, at: float, host: str, why: str) -> list[events.Event]:
        return [] if self.hosts[host].closed is not None else super().observe_unknown(at, host, why)


class RequeuesInterrupted(Scheduler):
    """Has a job that was given back wait, though nothing will ever start again."""

    def _try_again(self, at: float, job: UnfinishedJob, why: str, *, is_taken_back: bool = False) -> list[events.Event]:
        return self._all(events.JobRequeued(at, job.num, job.attempt, job.host, why))


class AgesByWallClock(Scheduler):
    """Measures how long a host has been silent by a clock that can be set."""

    def plan(self, at: float, now: float) -> list[events.Event]:
        return super().plan(at, at)

    def deadline(self) -> float | None:
        return None


class NeverTakesBack(Scheduler):
    """Leaves jobs where they wait."""

    def take_back(self, now: float, prepared: set[str], able: set[str]) -> dict[str, list[str]]:
        return {}


class TakesWithoutAsking(Scheduler):
    """Gives another attempt to a job before its host has said that the first one never starts."""

    def plan(self, at: float, now: float) -> list[events.Event]:
        made = super().plan(at, now)
        names = set(self.hosts)
        for host, attempts in super().take_back(now, names, names).items():
            for attempt in attempts:
                num, _, number = attempt.partition(".")
                made += self.observe_dropped(at, host, int(num), int(number), "", asked=True)
        return made + super().plan(at, now)


class ActsBeforeJournal(Decider):
    """Acts on what is not on the disk."""

    def commit(self) -> None:
        decided, self._round = self._round, type(self._round)()
        for step in decided.steps:
            if isinstance(step, partial):
                step()
            else:
                self.effects.act(step)
                self._observe(step)
        self._journal.commit()


class TrustsReconnects(Decider):
    """Does not ask which jobs arrived."""

    def _take_connected(self, at: float, fact: facts.Connected, decided: Any) -> None:
        known = {
            f"{num}.{self._scheduler.jobs[num].attempt}": "queued" for num in self._scheduler.hosts[fact.host].jobs
        }
        fact = facts.Connected(
            fact.host, fact.slots, fact.python, fact.gpus, fact.boot_id, {**known, **fact.attempts}, ()
        )
        super()._take_connected(at, fact, decided)


class NeverSaysGo(Decider):
    """Leaves what waits in a spool waiting."""

    def _take_connected(self, at: float, fact: facts.Connected, decided: Any) -> None:
        super()._take_connected(at, fact, decided)
        decided.steps.pop()


class IgnoresReboots(Decider):
    """Sends again what may have run before the machine went down."""

    def _take_connected(self, at: float, fact: facts.Connected, decided: Any) -> None:
        self._scheduler.hosts[fact.host].boot_id = fact.boot_id
        super()._take_connected(at, fact, decided)


class MixesResults(Decider):
    """Stores a result under the number of another job."""

    def _take_ended(self, at: float, fact: facts.Ended, decided: Any) -> None:
        payload = self._last if hasattr(self, "_last") else fact.payload
        self._last = fact.payload
        fact = facts.Ended(fact.host, fact.attempt, fact.envelope, fact.parts, payload, fact.file)
        super()._take_ended(at, fact, decided)


class DropsResults(Decider):
    """Takes a job that completed for one that was killed."""

    def _take_ended(self, at: float, fact: facts.Ended, decided: Any) -> None:
        envelope = fact.envelope._replace(status="FAILED", error=JobError("killed"))
        fact = facts.Ended(fact.host, fact.attempt, envelope, fact.parts, fact.payload, fact.file)
        super()._take_ended(at, fact, decided)


class AcksAtOnce(Decider):
    """Acknowledges an outcome when it comes, not when it is journalled."""

    def decide(self, items: Iterable[Any]) -> None:
        items = list(items)
        for item in items:
            if isinstance(item, facts.Ended):
                self._links[item.host].acknowledge([item.attempt])
        super().decide(items)


class ClaimsAfterwards(ModelHost):
    """Starts an attempt and claims it when it has ended: an agent that dies meanwhile starts it again."""

    def kill_agent(self) -> None:
        for record in self.spool.values():
            if record.state == "running":
                record.claimed_in = ""
        super().kill_agent()


class StartsWhatItKnows(ModelHost):
    """Takes a job that it was sent twice for two."""

    def _on_job(self, content: dict[str, Any]) -> None:
        known = self.spool.pop(content["attempt_id"], None)
        super()._on_job(content)
        if known is not None and known.final is None and known.state == "running":
            self._release(self.processes.pop(known.attempt))


class DoesNotHold(ModelHost):
    """Starts what waits in the spool before it was told which of it still may."""

    def start_agent(self) -> None:
        super().start_agent()
        for record in self.spool.values():
            record.is_held = False


class SkipsEpilogues(ModelHost):
    """Lets the hooks of a killed job stay open."""

    def _adopt(self, agent: int) -> None:
        closed, self.world.closed_hooks = self.world.closed_hooks, lambda attempt: []
        try:
            super()._adopt(agent)
        finally:
            self.world.closed_hooks = closed


class Oversubscribes(ModelHost):
    """Counts its slots anew for each agent, though jobs of the last one still run."""

    def _start(self, record: Record) -> None:
        super()._start(record)
        if self.agents > 1:
            for other in self.spool.values():
                if other.state == "queued" and not other.is_held:
                    super()._start(other)
                    return


class ForgetsSizes(Scheduler):
    """Takes every job for one that is like the others."""

    def submit(
        self, at: float, num: int, overrides: tuple[str, ...] = (), needs: Resources | None = None
    ) -> list[events.Event]:
        return super().submit(at, num, overrides)


class ForgetsWhatRuns(ModelHost):
    """Begins with all of the host for each agent, though jobs of the last one still run."""

    def start_agent(self) -> None:
        super().start_agent()
        self.admission = Admission(self.room.amounts)
        self.gpus = Gpus([f"{self.name}-{number}" for number in range(self.slots)])


class GivesBackWhatRuns(ModelHost):
    """Gives a job back that has started."""

    def _on_take_back(self, content: dict[str, Any]) -> None:
        for record in list(self.spool.values()):
            if record.final is None:
                self._give_back(record)


class SaysBeforeSpool(ModelHost):
    """Says a result and loses it with the agent."""

    def kill_agent(self) -> None:
        for record in self.spool.values():
            if record.final is not None and record.final["status"] == "COMPLETED":
                record.final = None
                record.claimed_in = "before"
        super().kill_agent()


def _history(seed: int, slots: tuple[int, ...], seconds: tuple[float, ...], *steps: Step, **policies: Any) -> History:
    jobs = tuple(Job(0.0, each) for each in seconds)
    return History(seed, slots, jobs, policies, steps)


#: A controller has left all jobs to the hosts, and comes back: the slower host has a queue, and the other one is soon idle.
_SLOW_QUEUE = replace(
    _history(1, (1, 1), (5.0,) * 8, Step(1.0, "detach"), Step(3.0, "kill_controller")), slowness=(1.0, 10.0)
)

#: Mutant, the promise that it breaks, and a minimal history in which it does.
CAUGHT: list[tuple[str, type, str, History]] = [
    (
        "make_scheduler",
        ForgetsFencing,
        "one attempt",
        _history(
            782,
            (1,),
            (15.392, 7.507),
            Step(1.534, "reboot", 0, 0.299),
            Step(2.48, "reboot", 0, 2.511),
            on_host_loss="retry",
            retries={"lost": 2},
        ),
    ),
    ("make_scheduler", GivesUpAtOnce, "unknown is not lost", _history(1, (1,), (13.0,), Step(5.0, "reboot"))),
    (
        "make_scheduler",
        ChangesStateBesides,
        "replayed state is live state",
        _history(6, (1,), (5.747,), Step(1.086, "cancel", 0, 4.024, 0.7)),
    ),
    (
        "make_scheduler",
        ForgetsClosedHosts,
        "a verdict by the deadline",
        _history(2252, (1,), (4.864, 13.702), Step(0.449, "full", 0, 56.822), Step(2.382, "gone"), on_host_loss="fail"),
    ),
    (
        "make_scheduler",
        RequeuesInterrupted,
        "a verdict by the deadline",
        _history(3, (1,), (5.0, 5.0), Step(1.0, "full", 0, 5.0), Step(1.0005, "interrupt", 0, 0.0, 0.9)),
    ),
    (
        "make_scheduler",
        AgesByWallClock,
        "a verdict by the deadline",
        _history(67, (1,), (115.0,), Step(2.395, "gone"), on_host_loss="fail", host_loss_timeout=60.0),
    ),
    ("make_scheduler", NeverTakesBack, "no idle slot", _SLOW_QUEUE),
    ("make_scheduler", TakesWithoutAsking, "one attempt", _SLOW_QUEUE),
    ("make_host", GivesBackWhatRuns, "one attempt", _SLOW_QUEUE),
    (
        "make_decider",
        ActsBeforeJournal,
        "one delivery",
        _history(11, (1,), (5.0,), Step(2.0, "kill_at_write", 0, 0.1, 0.15)),
    ),
    (
        "make_decider",
        TrustsReconnects,
        "a verdict by the deadline",
        _history(3, (1,), (1.406,), Step(0.4, "wipe"), on_host_loss="fail", host_loss_timeout=5.0),
    ),
    ("make_decider", DropsResults, "spooled result dropped", _history(1, (1,), (1.0,))),
    ("make_decider", NeverSaysGo, "a verdict by the deadline", _history(27, (1,), (4.784,), Step(0.184, "kill_agent"))),
    (
        "make_decider",
        IgnoresReboots,
        "one start",
        _history(
            2019,
            (3,),
            (0.874, 1.631),
            Step(0.157, "cut"),
            Step(1.501, "reboot", 0, 0.111),
            Step(2.282, "wipe"),
            on_host_loss="fail",
        ),
    ),
    ("make_decider", MixesResults, "own result", _history(0, (1,), (9.831, 15.614))),
    ("make_decider", AcksAtOnce, "ack", _history(359, (1,), (56.586,), Step(28.426, "journal_full", 0, 37.109))),
    ("make_host", ClaimsAfterwards, "one start", _history(13, (1,), (3.0,), Step(2.5, "reboot", 0, 2.6))),
    ("make_host", StartsWhatItKnows, "one start", _history(31, (1,), (33.894,), Step(0.854, "send_again"))),
    (
        "make_host",
        DoesNotHold,
        "fencing",
        _history(5648, (1,), (0.011, 0.016), Step(0.116, "kill_agent"), Step(0.39, "give_up")),
    ),
    ("make_host", SkipsEpilogues, "hooks balanced", _history(13, (1,), (3.0,), Step(2.5, "reboot", 0, 2.6))),
    (
        "make_host",
        Oversubscribes,
        "one job for each GPU",
        _history(27, (1,), (30.0,) * 5, Step(2.5, "detach"), Step(5.0, "kill_agent")),
    ),
    (
        "make_host",
        ForgetsWhatRuns,
        "one job for each GPU",
        _history(27, (1,), (30.0,) * 5, Step(2.5, "detach"), Step(5.0, "kill_agent")),
    ),
    ("make_scheduler", ForgetsSizes, "size", History(1, (1, 2), (Job(0.0, 5.0, gpus=2), Job(0.0, 5.0, gpus=2)))),
    (
        "make_host",
        SaysBeforeSpool,
        "success needs a result",
        _history(24, (2,), (0.791, 1.637, 1.582), Step(2.684, "reboot", 0, 0.093), on_host_loss="retry"),
    ),
]
