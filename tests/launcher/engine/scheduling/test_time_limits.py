"""No host and no job holds a run up for ever."""

from __future__ import annotations

from launcher import events
from launcher.engine.scheduling.policies import Policies
from launcher.engine.scheduling.scheduler import Scheduler


class TestEveryJobHasALimit:
    """If a host answers pings and ends no job, nobody waits for ever."""

    def started(self, **limits):
        """A scheduler with a job that runs on host a since second 0."""
        scheduler = Scheduler(["a"], Policies(**limits))
        scheduler.observe_ready(0.0, "a", 1, "3.11", ())
        scheduler.submit(0.0, 0)
        scheduler.plan(0.0, 0.0)
        scheduler.observe_started(0.0, "a", 0, 1, 0, 0.0)
        assert scheduler.plan(0.0, 0.0) == []
        return scheduler

    def lost(self, scheduler, now):
        """The hosts that are given up at that time."""
        return [event.host for event in scheduler.plan(0.0, now) if isinstance(event, events.HostLost)]

    def test_a_job_past_its_limit_is_given_up_with_its_host(self):
        """The host is given up for good. The job is lost, with the reason. The scheduler asks to be called at that time."""
        scheduler = self.started(job_limit=100.0)
        assert scheduler.deadline() == 100.0
        assert self.lost(scheduler, 99.9) == []
        assert self.lost(scheduler, 100.0) == ["a"]
        assert scheduler.counts["kind:lost"] == 1
        assert scheduler.hosts["a"].closed
        assert scheduler.deadline() is None

    def test_without_a_timeout_a_job_may_take_for_ever(self):
        """This holds until somebody asks it to end."""
        scheduler = self.started(end_limit=50.0, kill_limit=20.0)
        assert self.lost(scheduler, 1e9) == []
        scheduler.cancel(0.0, 0)
        assert self.lost(scheduler, 1e9) == []
        assert self.lost(scheduler, 1e9 + 50) == ["a"]

    def test_an_interrupt_sets_a_time_limit_and_a_kill_a_shorter_one(self):
        """For jobs that run or wait on a host, from the time of the interrupt."""
        scheduler = self.started(end_limit=50.0, kill_limit=20.0)
        scheduler.interrupt(0.0, "Ctrl-C")
        assert self.lost(scheduler, 10.0) == []
        scheduler.interrupt(0.0, "Ctrl-C", kill=True)
        assert self.lost(scheduler, 11.0) == []
        assert self.lost(scheduler, 31.0) == ["a"]
        assert scheduler.is_idle

    def test_a_job_that_ends_in_time_costs_no_host(self):
        """Nor does a limit of an earlier attempt that passes during a later one."""
        scheduler = self.started(job_limit=100.0, retries={"*": 1})
        error = {"kind": "exception"}
        scheduler.observe_ended(0.0, "a", 0, 1, "FAILED", 1.0, error)
        scheduler.observe_collected(0.0, "a", 0, 1)
        scheduler.plan(0.0, 90.0)
        scheduler.observe_started(0.0, "a", 0, 2, 0, 0.0)
        assert self.lost(scheduler, 95.0) == []
        assert self.lost(scheduler, 100.0) == []
        assert self.lost(scheduler, 195.0) == ["a"]

    def test_time_without_a_link_does_not_count(self):
        """The job may have ended long ago. Its time begins again when the host is reached again."""
        scheduler = self.started(job_limit=100.0)
        scheduler.observe_unknown(0.0, "a", "reset")
        assert self.lost(scheduler, 500.0) == []
        scheduler.observe_ready(0.0, "a", 1, "3.11", ())
        assert self.lost(scheduler, 501.0) == []
        assert self.lost(scheduler, 600.0) == []
        assert self.lost(scheduler, 601.0) == ["a"]
