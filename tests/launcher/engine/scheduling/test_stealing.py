"""Which jobs are taken back from hosts where they wait, and when."""

from __future__ import annotations

import pytest

from launcher import events
from launcher.engine.scheduling.policies import Policies
from launcher.engine.scheduling.scheduler import Scheduler
from remote_agent.protocol.specs.resources import Resources, Room
from tests.launcher.engine.schedulers import assigned, end, ready, returned, submit


class Run:
    """Two hosts with a slot each. `slow` has jobs that wait, as after a detached run; `fast` has none."""

    def __init__(self, jobs: int = 4, **policies) -> None:
        self.scheduler = ready(Scheduler(["slow", "fast"], Policies(**policies)))
        submit(self.scheduler, jobs)
        for num in range(jobs):
            self.scheduler._all(events.JobAssigned(0.0, num, 1, "slow"))
        self.scheduler.observe_started(0.0, "slow", 0, 1, 0, 0.0)

    def ask(self, now: float = 0.0, prepared=("slow", "fast"), able=("slow", "fast")) -> dict[str, list[str]]:
        """What is taken back now."""
        return self.scheduler.take_back(now, set(prepared), set(able))

    def give_back(self, num: int, attempt: int = 1, host: str = "slow") -> list[events.Event]:
        """The host answers; what follows is decided."""
        made = self.scheduler.observe_dropped(0.0, host, num, attempt, "", asked=True)
        return made + self.scheduler.plan(0.0, 0.0)


def test_a_job_that_waits_goes_to_the_idle_host_when_its_host_has_given_it_back():
    """Until the answer comes, nothing changes. No job is asked for twice."""
    run = Run(jobs=2)
    assert run.ask() == {"slow": ["1.1"]}
    assert assigned(run.scheduler.plan(0.0, 0.0)) == []
    assert run.ask() == {}
    made = run.give_back(1)
    assert assigned(made) == [(1, 2, "fast")]
    assert [event.is_taken_back for event in made if isinstance(event, events.JobRequeued)] == [True]
    assert run.ask(now=100.0) == {}


def test_a_job_that_has_started_in_the_meantime_stays():
    """The idle host gets another one."""
    run = Run(jobs=3)
    run.scheduler.hosts["slow"].slots = 2
    assert run.ask() == {"slow": ["2.1"]}
    run.scheduler.observe_started(0.0, "slow", 2, 1, 1, 0.0)
    assert run.give_back(2) == []
    assert run.ask() == {"slow": ["1.1"]}


def test_each_host_keeps_what_it_does_in_the_same_time():
    """Many short jobs come back at once, so that the idle host does not wait a round trip for each."""
    run = Run(jobs=101)
    run.scheduler.hosts["slow"].job_seconds, run.scheduler.hosts["fast"].job_seconds = 0.4, 0.1
    (attempts,) = run.ask().values()
    assert attempts == [f"{num}.1" for num in range(100, 20, -1)]


def test_jobs_that_start_in_a_moment_are_left():
    """To take them back would take as long. If they do not start, they are asked for a second later."""
    run = Run(jobs=3)
    run.scheduler.hosts["slow"].job_seconds = 0.01
    assert run.ask(now=5.0) == {}
    assert run.scheduler.deadline() == 6.0
    assert run.ask(now=6.0) == {"slow": ["2.1"]}


def test_a_job_for_which_there_seems_to_be_a_slot_is_given_a_second():
    """Its slot may still belong to a process that does not end, or the host may not have its environment yet."""
    run = Run(jobs=2)
    run.scheduler.hosts["slow"].slots = 2
    assert run.ask(now=0.0, prepared=("fast",)) == {}
    assert run.ask(now=1.0, prepared=("fast",)) == {"slow": ["1.1"]}


@pytest.mark.parametrize(
    "how",
    [
        {"prepared": ("slow",)},
        {"able": ("fast",)},
    ],
    ids=["the idle host is not prepared", "the agent is of an earlier version"],
)
def test_nothing_is_taken_back_in_vain(how):
    """A job would wait on the idle host too, or the host would not understand."""
    assert Run().ask(now=100.0, **how) == {}


def test_nothing_is_taken_back_without_a_link_to_the_host():
    """It could not say that the attempt never starts. What was asked before is asked again over the new link."""
    run = Run(jobs=2)
    assert run.ask() == {"slow": ["1.1"]}
    run.scheduler.observe_unknown(0.0, "slow", "gone")
    assert run.ask(now=100.0) == {}
    ready(run.scheduler, "slow")
    assert run.ask(now=101.0) == {"slow": ["1.1"]}


def test_nothing_is_taken_back_for_a_host_that_takes_no_job():
    """It is full, or has lost its link."""
    run = Run()
    run.scheduler.observe_closed(0.0, "fast", "full", may_open=True)
    assert run.ask(now=100.0) == {}
    run.scheduler.observe_opened(0.0, "fast")
    assert run.ask(now=100.0) != {}


def test_nothing_is_taken_back_for_a_host_where_the_job_failed():
    """It waits for its turn where it is."""
    run = Run(jobs=2)
    run.scheduler.jobs[1].failed_on.add("fast")
    assert run.ask(now=100.0) == {}


@pytest.mark.parametrize("what", ["interrupt", "detach"])
def test_nothing_is_taken_back_when_nothing_is_assigned(what):
    """After an interrupt nothing starts. A run that is being detached has given its jobs to the hosts on purpose."""
    run = Run()
    if what == "interrupt":
        run.scheduler.interrupt(0.0, "Ctrl-C")
    else:
        run.scheduler.detach(0.0, "run", "")
    assert run.ask(now=100.0) == {}


def test_a_job_that_was_cancelled_in_the_meantime_is_cancelled():
    """It gets no further attempt."""
    run = Run(jobs=2)
    run.ask()
    run.scheduler.cancel(0.0, 1)
    assert returned(run.give_back(1)) == [(1, "FAILED", "cancelled")]


def test_an_attempt_that_never_started_is_no_try():
    """A job that was taken back is still retried as often as was asked."""
    run = Run(jobs=2, retries={"*": 1})
    run.ask()
    run.give_back(1)
    run.scheduler.observe_started(0.0, "fast", 1, 2, 0, 0.0)
    assert returned(end(run.scheduler, "fast", 1, 2, "exception")) == []
    end(run.scheduler, "slow", 0)
    assert assigned(run.scheduler.plan(0.0, 0.0)) == [(1, 3, "slow")]
    assert returned(end(run.scheduler, "slow", 1, 3, "exception")) == [(1, "FAILED", "exception")]


class TestSizes:
    """Hosts and jobs of several sizes."""

    @staticmethod
    def _run(hosts: dict[str, int], jobs: dict[int, tuple[str, int]], started: tuple[int, ...]) -> Scheduler:
        """Hosts with CPUs, and what they have: job -> (host, the CPUs that it needs)."""
        scheduler = Scheduler(list(hosts))
        for name, cpus in hosts.items():
            room = Room(Resources(0, cpus, 0), Resources(0, 1, 0), 0)
            scheduler.observe_ready(0.0, name, cpus, "3.11", (), "boot", room)
        for num, (host, cpus) in jobs.items():
            scheduler.submit(0.0, num, (), Resources(0, cpus, 0))
            scheduler._all(events.JobAssigned(0.0, num, 1, host))
        for num in started:
            scheduler.observe_started(0.0, jobs[num][0], num, 1, 0, 0.0)
        return scheduler

    def test_only_what_the_idle_host_can_run_is_taken_back(self):
        """By what it has free, and not by a number of jobs."""
        jobs = {0: ("busy", 8), 1: ("busy", 4), 2: ("busy", 2), 3: ("busy", 2), 4: ("busy", 1)}
        scheduler = self._run({"busy": 8, "idle": 3}, jobs, (0,))
        assert scheduler.take_back(0.0, {"busy", "idle"}, {"busy"}) == {"busy": ["4.1", "3.1"]}
        assert scheduler.take_back(0.0, {"busy", "idle"}, {"busy"}) == {}

    def test_nothing_is_taken_back_for_a_host_that_is_too_small(self):
        """However long it waits."""
        scheduler = self._run({"busy": 8, "idle": 3}, {0: ("busy", 8), 1: ("busy", 4)}, (0,))
        assert scheduler.take_back(100.0, {"busy", "idle"}, {"busy"}) == {}
        assert scheduler.deadline() is None

    def test_a_host_where_a_large_job_waits_gets_what_has_room_beside_it(self):
        """It is idle for that, as far as the large one is not held up."""
        jobs = {0: ("busy", 2), 1: ("idle", 6), 2: ("idle", 4), 3: ("busy", 2), 4: ("busy", 2)}
        scheduler = self._run({"busy": 2, "idle": 8}, jobs, (0, 1))
        assert scheduler.take_back(0.0, {"busy", "idle"}, {"busy"}) == {"busy": ["4.1"]}

    def test_a_host_that_has_not_started_what_it_has_room_for_gets_nothing(self):
        """It may be about to, or cannot."""
        jobs = {0: ("busy", 8), 1: ("busy", 1), 2: ("idle", 1)}
        scheduler = self._run({"busy": 8, "idle": 8}, jobs, (0,))
        assert scheduler.take_back(0.0, {"busy", "idle"}, {"busy"}) == {}
        scheduler.observe_started(0.0, "idle", 2, 1, 0, 0.0)
        assert scheduler.take_back(0.0, {"busy", "idle"}, {"busy"}) == {"busy": ["1.1"]}
