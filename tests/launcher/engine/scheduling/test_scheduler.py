"""Which job goes where and when: each decision of the scheduler, one by one. `simulation` has histories of faults."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from launcher import events
from launcher.engine.scheduling.policies import Policies
from launcher.engine.scheduling.scheduler import Scheduler
from launcher.engine.scheduling.state import OVER, HostPhase
from remote_agent.protocol.report import Report
from tests.launcher.engine.schedulers import assigned, end, ready, returned, submit


class TestAssigning:
    """Free slots first, on all hosts; then a short queue on each host."""

    def test_nothing_goes_to_a_host_that_is_not_ready(self):
        """Jobs wait for a welcome."""
        scheduler = Scheduler(["a"])
        submit(scheduler, 1)
        assert assigned(scheduler.plan(0.0, 0.0)) == []
        ready(scheduler)
        assert assigned(scheduler.plan(0.0, 0.0)) == [(0, 1, "a")]

    def test_free_slots_of_all_hosts_come_before_any_queue(self):
        """No host's queue gets what another host could run. Without knowledge of the jobs there are no queues."""
        scheduler = ready(Scheduler(["a", "b"]), slots=2)
        submit(scheduler, 20)
        order = [host for _, _, host in assigned(scheduler.plan(0.0, 0.0))]
        assert sorted(order) == ["a", "a", "b", "b"]
        end(scheduler, "a", 0, duration=0.1)
        order = [host for _, _, host in assigned(scheduler.plan(0.0, 0.0))]
        assert order == ["a"] + ["a"] * 3

    def test_quick_jobs_before_long_ones_leave_no_host_idle(self):
        """If a sweep begins with very short jobs, no host queues more than its share of the others."""
        scheduler = ready(Scheduler(["a", "b"]), slots=2)
        submit(scheduler, 40)
        scheduler.plan(0.0, 0.0)
        # Host a is quicker to answer, and ends all that it is given while b's first jobs are under way.
        while scheduler.hosts["a"].jobs and len(scheduler.jobs) > 20:
            end(scheduler, "a", min(scheduler.hosts["a"].jobs), duration=0.005)
            scheduler.plan(0.0, 0.0)
        left = len(scheduler.jobs)
        assert left == 20
        assert len(scheduler.hosts["a"].jobs) <= 2 + (left - 4) / 2
        assert len(scheduler.pending) >= (left - 4) / 4

    def test_a_single_host_has_a_queue_from_the_start(self):
        """The queue is as long as its number of slots."""
        scheduler = ready(Scheduler(["a"]), slots=3)
        submit(scheduler, 20)
        assert len(assigned(scheduler.plan(0.0, 0.0))) == 6

    @pytest.mark.parametrize(("seconds", "ahead"), [(10.0, 1), (0.25, 1), (0.01, 25), (0.0, 256)])
    def test_the_queue_is_as_long_as_a_round_trip_needs(self, seconds, ahead):
        """Short jobs need a longer queue, up to a cap. Long ones need one job ahead."""
        scheduler = ready(Scheduler(["a"]))
        submit(scheduler, 600)
        scheduler.plan(0.0, 0.0)
        end(scheduler, "a", 0, duration=seconds)
        scheduler.plan(0.0, 0.0)
        assert len(scheduler.hosts["a"].jobs) == 1 + ahead

    def test_a_retry_prefers_a_host_where_the_job_has_not_failed(self):
        """It waits for such a host, while that one may still come."""
        scheduler = ready(Scheduler(["a", "b"], Policies(retries={"*": 3})), "a")
        submit(scheduler, 1)
        scheduler.plan(0.0, 0.0)
        end(scheduler, "a", 0, kind="exception")
        assert assigned(scheduler.plan(0.0, 0.0)) == []
        ready(scheduler, "b")
        assert assigned(scheduler.plan(0.0, 0.0)) == [(0, 2, "b")]

    def test_a_retry_goes_back_if_there_is_no_other_host(self):
        """This is so even if there are other hosts that take no jobs."""
        scheduler = ready(Scheduler(["a", "b"], Policies(retries={"*": 3})))
        scheduler.observe_closed(0.0, "b", "full")
        submit(scheduler, 1)
        scheduler.plan(0.0, 0.0)
        end(scheduler, "a", 0, kind="exception")
        assert assigned(scheduler.plan(0.0, 0.0)) == [(0, 2, "a")]


class TestOutcomes:
    """The outcome of a job."""

    def test_a_job_has_one_outcome_however_often_it_is_reported(self):
        """Nothing follows from a second report, or from one about another attempt."""
        scheduler = ready(Scheduler(["a", "b"]))
        submit(scheduler, 1)
        (_, _, host) = assigned(scheduler.plan(0.0, 0.0))[0]
        other = "b" if host == "a" else "a"
        assert scheduler.observe_ended(0.0, other, 0, 1, "COMPLETED", 1.0, None) == []
        assert scheduler.observe_ended(0.0, host, 0, 2, "COMPLETED", 1.0, None) == []
        assert scheduler.observe_collected(0.0, host, 0, 1) == []
        assert returned(end(scheduler, host, 0)) == [(0, "COMPLETED", "")]
        assert end(scheduler, host, 0) == []
        assert scheduler.counts == {"COMPLETED": 1}
        assert scheduler.is_idle

    @pytest.mark.parametrize(
        ("retries", "kinds", "attempts"),
        [
            ({}, ["exception"], 1),
            ({"*": 2}, ["exception", "killed", "timeout"], 3),
            ({"killed": 1}, ["killed", "killed"], 2),
            ({"killed": 1}, ["exception"], 1),
            ({"*": 5, "exception": 0}, ["exception"], 1),
        ],
    )
    def test_retries_by_kind(self, retries, kinds, attempts):
        """The policy sets the number for each kind. The last failure is the job's."""
        scheduler = ready(Scheduler(["a"], Policies(retries=retries)))
        submit(scheduler, 1)
        for attempt, kind in enumerate(kinds, 1):
            assert assigned(scheduler.plan(0.0, 0.0)) == [(0, attempt, "a")]
            made = end(scheduler, "a", 0, attempt, kind)
        assert returned(made) == [(0, "FAILED", kinds[-1])]
        assert attempts == len(kinds)

    def test_a_job_that_is_given_back_runs_elsewhere(self):
        """It does not count as a failure there. The host gets no more jobs until it is open again."""
        scheduler = ready(Scheduler(["a", "b"]), "a")
        submit(scheduler, 1)
        scheduler.plan(0.0, 0.0)
        scheduler.observe_closed(0.0, "a", "spool: full", may_open=True)
        scheduler.observe_dropped(0.0, "a", 0, 1, "spool: full")
        assert scheduler.jobs[0].failed_on == set()
        assert assigned(scheduler.plan(0.0, 0.0)) == []
        scheduler.observe_opened(0.0, "a")
        assert assigned(scheduler.plan(0.0, 0.0)) == [(0, 2, "a")]

    def test_a_started_job_cannot_be_given_back(self):
        """If a host reports both, the first report counts."""
        scheduler = ready(Scheduler(["a"]))
        submit(scheduler, 1)
        scheduler.plan(0.0, 0.0)
        scheduler.observe_started(0.0, "a", 0, 1, 0, 0.0)
        assert scheduler.observe_dropped(0.0, "a", 0, 1, "spool: full") == []


class TestHosts:
    """Unknown, lost, closed, and back."""

    def lose(self, **policies) -> Scheduler:
        """Host a has job 0, which has started, and its link is gone since time 10."""
        scheduler = ready(Scheduler(["a", "b"], Policies(**policies)), "a")
        submit(scheduler, 1)
        scheduler.plan(0.0, 0.0)
        scheduler.observe_started(0.0, "a", 0, 1, 0, 0.0)
        scheduler.observe_unknown(10.0, "a", "reset")
        scheduler.plan(10.0, 10.0)
        return scheduler

    def test_a_run_waits_for_an_unknown_host(self):
        """It waits for ever, if the policy says so. The job is unknown, not failed."""
        scheduler = self.lose(on_host_loss="wait", host_loss_timeout=1.0)
        assert scheduler.deadline() is None
        assert scheduler.plan(1e6, 1e6) == []
        ready(scheduler, "a")
        assert returned(end(scheduler, "a", 0)) == [(0, "COMPLETED", "")]

    @pytest.mark.parametrize(("policy", "outcome"), [("fail", [(0, "FAILED", "lost")]), ("retry", [])])
    def test_a_host_is_given_up_after_its_time(self, policy, outcome):
        """Not a moment before. Then its job is lost, or runs elsewhere."""
        scheduler = self.lose(on_host_loss=policy, host_loss_timeout=60.0)
        assert scheduler.deadline() == 70.0
        assert scheduler.plan(69.9, 69.9) == []
        made = scheduler.plan(70.0, 70.0)
        assert [e.jobs for e in made if isinstance(e, events.HostLost)] == [(0,)]
        assert returned(made) == outcome
        if policy == "retry":
            ready(scheduler, "b")
            assert assigned(scheduler.plan(70.0, 70.0)) == [(0, 2, "b")]

    @pytest.mark.parametrize(("policy", "outcome"), [("fail", [(0, "FAILED", "lost")]), ("retry", [])])
    def test_a_link_that_drops_at_once_each_time_is_lost(self, policy, outcome):
        """The time counts from the last working link. A welcome from time to time does not count."""
        scheduler = self.lose(on_host_loss=policy, host_loss_timeout=60.0)
        for second in range(15, 70, 5):
            ready(scheduler, "a")
            assert scheduler.plan(second, second) == []
            scheduler.observe_unknown(second + 1, "a", "reset")
            assert scheduler.plan(second + 1, second + 1) == []
        assert scheduler.deadline() == 70.0
        made = scheduler.plan(70.0, 70.0)
        assert [e.jobs for e in made if isinstance(e, events.HostLost)] == [(0,)]
        assert returned(made) == outcome

    @pytest.mark.parametrize("use", ["start", "result", "files"])
    def test_a_link_that_drops_is_not_lost_if_something_comes_through(self, use):
        """If the link brought something of a job, the time begins again."""
        scheduler = ready(Scheduler(["a"], Policies(on_host_loss="fail", host_loss_timeout=60.0)), "a", slots=3)
        submit(scheduler, 3)
        scheduler.plan(0.0, 0.0)
        scheduler.observe_started(0.0, "a", 0, 1, 0, 0.0)
        scheduler.observe_ended(0.0, "a", 1, 1, "COMPLETED", 1.0, None)
        scheduler.observe_unknown(10.0, "a", "reset")
        scheduler.plan(10.0, 10.0)
        ready(scheduler, "a", slots=3)
        scheduler.plan(50.0, 50.0)
        if use == "start":
            scheduler.observe_started(51.0, "a", 2, 1, 1, 51.0)
        elif use == "result":
            scheduler.observe_ended(51.0, "a", 0, 1, "COMPLETED", 1.0, None)
        else:
            scheduler.observe_collected(51.0, "a", 1, 1)
        scheduler.observe_unknown(52.0, "a", "reset")
        scheduler.plan(52.0, 52.0)
        assert scheduler.deadline() == 112.0
        assert not any(isinstance(event, events.HostLost) for event in scheduler.plan(111.9, 111.9))
        assert any(isinstance(event, events.HostLost) for event in scheduler.plan(112.0, 112.0))

    def test_a_link_that_stays_is_not_lost_even_if_nothing_comes(self):
        """A job may take hours."""
        scheduler = self.lose(on_host_loss="fail", host_loss_timeout=60.0)
        ready(scheduler, "a")
        scheduler.plan(20.0, 20.0)
        assert scheduler.deadline() is None
        assert scheduler.plan(1000.0, 1000.0) == []
        scheduler.observe_unknown(1001.0, "a", "reset")
        scheduler.plan(1001.0, 1001.0)
        assert scheduler.deadline() == 1061.0

    def test_a_lost_job_does_not_show_that_the_link_works(self):
        """The report did not come from the host. The host's other jobs are given up in time."""
        scheduler = ready(Scheduler(["a"], Policies(on_host_loss="fail", host_loss_timeout=60.0)), "a", slots=2)
        submit(scheduler, 2)
        scheduler.plan(0.0, 0.0)
        for num in (0, 1):
            scheduler.observe_started(0.0, "a", num, 1, num, 0.0)
        scheduler.observe_unknown(10.0, "a", "reset")
        scheduler.plan(10.0, 10.0)
        ready(scheduler, "a", slots=2)
        assert returned(scheduler.observe_missing(15.0, "a", {"1.1"}, rebooted=False)) == [(0, "FAILED", "lost")]
        scheduler.observe_unknown(16.0, "a", "reset")
        scheduler.plan(16.0, 16.0)
        assert scheduler.deadline() == 70.0

    def test_a_late_result_is_ignored(self):
        """It does not replace its successor's result. The host itself is used again."""
        scheduler = self.lose(on_host_loss="retry", host_loss_timeout=60.0)
        scheduler.plan(70.0, 70.0)
        ready(scheduler, "b", "a")
        scheduler.plan(70.0, 70.0)
        assert scheduler.current(0, 1, "a") is None
        assert end(scheduler, "a", 0, 1) == []
        assert scheduler.hosts["a"].phase is HostPhase.READY
        assert returned(end(scheduler, "b", 0, 2)) == [(0, "COMPLETED", "")]

    def test_an_outcome_that_is_here_is_not_lost_with_its_host(self):
        """Only its files were missing."""
        scheduler = self.lose(on_host_loss="fail", host_loss_timeout=60.0)
        scheduler.observe_ready(11.0, "a", 1, "3.11", (), "boot")
        scheduler.observe_ended(11.0, "a", 0, 1, "COMPLETED", 1.0, None)
        scheduler.observe_unknown(12.0, "a", "reset")
        scheduler.plan(12.0, 12.0)
        assert returned(scheduler.plan(72.0, 72.0)) == [(0, "COMPLETED", "")]

    def test_a_reboot_loses_jobs_that_the_spool_does_not_know(self):
        """They may have run. Without a reboot, only jobs that were seen to start are lost."""
        scheduler = ready(Scheduler(["a"]), slots=2)
        submit(scheduler, 3)
        scheduler.plan(0.0, 0.0)
        scheduler.observe_started(0.0, "a", 1, 1, 0, 0.0)
        assert returned(scheduler.observe_missing(0.0, "a", {"2.1"}, rebooted=False)) == [(1, "FAILED", "lost")]
        assert returned(scheduler.observe_missing(0.0, "a", {"2.1"}, rebooted=True)) == [(0, "FAILED", "lost")]
        assert set(scheduler.jobs) == {2}

    def test_a_job_returns_even_if_its_files_never_come(self):
        """Its outcome is here, and the host does not know it any more."""
        scheduler = ready(Scheduler(["a"]))
        submit(scheduler, 1)
        scheduler.plan(0.0, 0.0)
        scheduler.observe_ended(0.0, "a", 0, 1, "COMPLETED", 1.0, None)
        made = scheduler.observe_missing(0.0, "a", set(), rebooted=False)
        assert any(isinstance(event, events.Warned) for event in made)
        assert returned(made) == [(0, "COMPLETED", "")]

    def test_a_closed_host_can_be_lost_too(self):
        """A host that takes no more jobs may still lose its link."""
        scheduler = ready(Scheduler(["a"], Policies(on_host_loss="fail", host_loss_timeout=5.0)))
        submit(scheduler, 1)
        scheduler.plan(0.0, 0.0)
        scheduler.observe_closed(0.0, "a", "full", may_open=True)
        scheduler.observe_unknown(1.0, "a", "reset")
        scheduler.plan(1.0, 1.0)
        assert returned(scheduler.plan(6.0, 6.0)) == [(0, "FAILED", "lost")]

    def test_without_any_host_jobs_fail_and_say_why(self):
        """The message has each host's reason."""
        scheduler = Scheduler(["a", "b"])
        submit(scheduler, 1)
        scheduler.observe_unusable(0.0, "a", "authenticate", "no key", "add one")
        assert returned(scheduler.plan(0.0, 0.0)) == []
        ready(scheduler, "b")
        scheduler.observe_closed(0.0, "b", "code has changed")
        made = scheduler.plan(0.0, 0.0)
        assert returned(made) == [(0, "FAILED", "host")]
        assert "a: no key; b: code has changed" in made[-1].error["message"]

    def test_a_host_without_room_gets_fewer_jobs_at_once(self):
        """When it opens again, it gets only as many as it has slots, and more after enough results. Each time this
        takes longer.
        """
        scheduler = ready(Scheduler(["a"]), slots=2)
        submit(scheduler, 2000)
        made = scheduler.plan(0.0, 0.0)

        def run(count: int) -> int:
            """This many jobs end, one after the other. Returns how many the host has then."""
            for _ in range(count):
                num = min(scheduler.hosts["a"].jobs)
                end(scheduler, "a", num, scheduler.jobs[num].attempt, duration=0.001)
                scheduler.plan(0.0, 0.0)
            return len(scheduler.hosts["a"].jobs)

        assert len(assigned(made)) == 4
        assert run(400) > 200
        for calm in (32, 64):
            scheduler.observe_closed(0.0, "a", "spool: full", may_open=True)
            for num in sorted(scheduler.hosts["a"].jobs)[2:]:
                scheduler.observe_dropped(0.0, "a", num, scheduler.jobs[num].attempt, "spool: full")
            scheduler.observe_opened(0.0, "a")
            scheduler.plan(0.0, 0.0)
            assert run(calm - 1) == 2
            assert run(1) == 3
            assert run(2 * calm) == 6
        assert run(6 * 64) > 200

    def test_a_run_waits_for_a_host_that_may_open(self):
        """As long as for a lost host. Then its jobs fail with the reason."""
        scheduler = ready(Scheduler(["a"], Policies(host_loss_timeout=60.0)))
        scheduler.observe_closed(0.0, "a", "spool: full", may_open=True)
        submit(scheduler, 1)
        assert scheduler.plan(0.0, 5.0) == []
        assert scheduler.deadline() == 65.0
        assert scheduler.plan(0.0, 64.9) == []
        made = scheduler.plan(0.0, 65.0)
        assert "spool: full" in made[-1].error["message"]

    def test_a_host_that_cannot_prepare_the_application_does_not_get_all_jobs(self):
        """Another host may do better. The last host's error is the jobs' error."""
        scheduler = ready(Scheduler(["a", "b"]))
        assert scheduler.observe_unprepared(0.0, "a", "ImportError")
        assert scheduler.observe_unprepared(0.0, "b", "ImportError") == []
        submit(scheduler, 1)
        assert assigned(scheduler.plan(0.0, 0.0)) == [(0, 1, "b")]

    def test_its_jobs_run_where_the_application_can_be_prepared(self):
        """Jobs that have started there go on. A later outcome of the others is ignored."""
        scheduler = ready(Scheduler(["a", "b"]), slots=2)
        submit(scheduler, 3)
        made = assigned(scheduler.plan(0.0, 0.0))
        on_a = [num for num, _, host in made if host == "a"]
        scheduler.observe_started(0.0, "a", on_a[0], 1, 0, 0.0)
        closed, requeued = scheduler.observe_unprepared(0.0, "a", "ImportError")
        assert isinstance(closed, events.HostClosed)
        assert (requeued.num, requeued.host) == (on_a[1], "a")
        assert scheduler.observe_ended(0.0, "a", on_a[1], 1, "FAILED", None, {"kind": "import"}) == []
        assert scheduler.current(on_a[0], 1, "a") is not None
        assert {host for _, _, host in assigned(scheduler.plan(0.0, 0.0))} == {"b"}

    def test_jobs_of_a_host_that_cannot_be_set_up_run_elsewhere(self):
        """It takes no more jobs. If it is the only host, its error is that of its jobs."""
        scheduler = ready(Scheduler(["a", "b"]))
        submit(scheduler, 2)
        assert assigned(scheduler.plan(0.0, 0.0)) == [(0, 1, "a"), (1, 1, "b")]
        made = scheduler.observe_unfit(0.0, "a", "set up", "line 1\nit printed", "correct it")
        assert [type(event) for event in made] == [events.HostUnusable, events.JobRequeued]
        assert made[1].why == "line 1"
        assert scheduler.observe_unfit(0.0, "a", "set up", "line 1", "") == []
        assert ready(scheduler).hosts["a"].is_usable is False
        assert {host for _, _, host in assigned(scheduler.plan(0.0, 0.0))} <= {"b"}
        made = scheduler.observe_unfit(0.0, "b", "set up", "line 2", "correct it") + scheduler.plan(0.0, 0.0)
        assert sorted(returned(made)) == [(0, "FAILED", "host"), (1, "FAILED", "host")]
        assert all("b: line 2" in event.error["message"] for event in made if isinstance(event, events.JobReturned))

    def test_running_jobs_of_a_host_that_cannot_be_set_up_again_go_on(self):
        """Its zygote died, and the next one could not be started. The host is closed, not unusable."""
        scheduler = ready(Scheduler(["a"]))
        submit(scheduler, 1)
        scheduler.plan(0.0, 0.0)
        scheduler.observe_started(0.0, "a", 0, 1, 0, 0.0)
        (made,) = scheduler.observe_unfit(0.0, "a", "set up", "line 1", "correct it")
        assert isinstance(made, events.HostClosed)
        assert scheduler.current(0, 1, "a") is not None

    def test_a_host_that_the_user_gave_up_stays_so(self):
        """Its jobs are lost, and it is not used again."""
        scheduler = ready(Scheduler(["a"]))
        submit(scheduler, 1)
        scheduler.plan(0.0, 0.0)
        made = scheduler.give_up(0.0, "a", "as asked", for_good=True)
        assert returned(made) == [(0, "FAILED", "lost")]
        ready(scheduler)
        submit(scheduler, 1)
        assert returned(scheduler.plan(0.0, 0.0)) == [(0, "FAILED", "host")]
        assert scheduler.give_up(0.0, "a", "again") == [] or scheduler.hosts["a"].phase in OVER


class TestStopping:
    """Interrupt, cancel, too many failures."""

    def test_an_interrupt_fails_waiting_jobs_and_starts_nothing(self):
        """The caller cancels running jobs. Failures are not retried. A second interrupt with `kill` counts, too."""
        scheduler = ready(Scheduler(["a"], Policies(retries={"*": 3})))
        submit(scheduler, 4)
        scheduler.plan(0.0, 0.0)
        made = scheduler.interrupt(0.0, "Ctrl-C")
        assert [num for num, _, kind in returned(made) if kind == "cancelled"] == [2, 3]
        assert scheduler.interrupt(0.0, "Ctrl-C") == []
        assert [e.kill for e in scheduler.interrupt(0.0, "Ctrl-C", kill=True)] == [True]
        assert returned(end(scheduler, "a", 0, kind="cancelled")) == [(0, "FAILED", "cancelled")]
        assert assigned(scheduler.plan(0.0, 0.0)) == []

    def test_a_job_that_is_given_back_after_an_interrupt_is_cancelled(self):
        """Otherwise it would wait for ever."""
        scheduler = ready(Scheduler(["a"]))
        submit(scheduler, 1)
        scheduler.plan(0.0, 0.0)
        scheduler.interrupt(0.0, "Ctrl-C")
        assert returned(scheduler.observe_dropped(0.0, "a", 0, 1, "full")) == [(0, "FAILED", "cancelled")]

    def test_an_interrupted_run_waits_a_while_for_a_lost_host(self):
        """The policy does not matter, so that a run ends after Ctrl-C."""
        scheduler = ready(Scheduler(["a"], Policies(on_host_loss="wait")))
        submit(scheduler, 1)
        scheduler.plan(0.0, 0.0)
        scheduler.observe_unknown(0.0, "a", "reset")
        scheduler.plan(0.0, 0.0)
        scheduler.interrupt(0.0, "Ctrl-C")
        assert scheduler.deadline() == 30.0
        assert returned(scheduler.plan(30.0, 30.0)) == [(0, "FAILED", "lost")]

    def test_one_job_is_cancelled(self):
        """A waiting job is cancelled at once. A running one is not retried when it has ended."""
        scheduler = ready(Scheduler(["a"], Policies(retries={"*": 3})))
        submit(scheduler, 3)
        scheduler.plan(0.0, 0.0)
        assert returned(scheduler.cancel(0.0, 2)) == [(2, "FAILED", "cancelled")]
        assert returned(scheduler.cancel(0.0, 0)) == []
        assert scheduler.cancel(0.0, 0) == []
        assert scheduler.cancel(0.0, 99) == []
        assert returned(end(scheduler, "a", 0, kind="cancelled")) == [(0, "FAILED", "cancelled")]

    def test_too_many_failures_stop_the_run(self):
        """Exactly when the limit is reached."""
        scheduler = ready(Scheduler(["a"], Policies(max_failures=2)))
        submit(scheduler, 6)
        scheduler.plan(0.0, 0.0)
        end(scheduler, "a", 0, kind="exception")
        assert scheduler.interrupted is None
        scheduler.plan(0.0, 0.0)
        assert scheduler.interrupted is None
        end(scheduler, "a", 1, kind="exception")
        made = scheduler.plan(0.0, 0.0)
        assert scheduler.interrupted is not None
        assert {num for num, _, kind in returned(made) if kind == "cancelled"} == {3, 4, 5}


class TestAnotherController:
    """Resume, retry, detach."""

    def test_resume_asks_hosts_for_what_they_have(self):
        """A host that has jobs or was connected is unknown. Closed and lost hosts get another chance. Jobs stay assigned."""
        scheduler = ready(Scheduler(["a", "b", "c", "d"]), "a", "b", "c")
        submit(scheduler, 1)
        scheduler.plan(0.0, 0.0)
        scheduler.observe_closed(0.0, "b", "full")
        scheduler.give_up(0.0, "c", "lost")
        scheduler.resume(0.0, "r")
        phases = {name: host.phase for name, host in scheduler.hosts.items()}
        assert phases == {
            "a": HostPhase.UNKNOWN,
            "b": HostPhase.UNKNOWN,
            "c": HostPhase.CONNECTING,
            "d": HostPhase.CONNECTING,
        }
        assert scheduler.hosts["b"].closed is None
        assert scheduler.jobs[0].host == "a"

    def test_a_users_retry_ignores_earlier_interrupts_and_failures(self):
        """The next attempt gets the next number."""
        scheduler = ready(Scheduler(["a"], Policies(max_failures=1)))
        submit(scheduler, 1)
        scheduler.plan(0.0, 0.0)
        last = end(scheduler, "a", 0, kind="exception")[-1]
        assert isinstance(last, events.JobReturned)
        scheduler.plan(0.0, 0.0)
        assert scheduler.interrupted is not None
        scheduler.retry(0.0, last)
        assert scheduler.retry(0.0, last) == []
        assert assigned(scheduler.plan(0.0, 0.0)) == [(0, 2, "a")]
        assert scheduler.counts["FAILED"] == 0

    def test_detaching_gives_each_host_its_share_by_slots(self):
        """As soon as every host is reached or given up, or at once with `hurry`. Closed hosts get nothing."""
        scheduler = Scheduler(["a", "b", "c"])
        scheduler.observe_ready(0.0, "a", 3, "3.11", ())
        scheduler.observe_ready(0.0, "c", 9, "3.11", ())
        scheduler.observe_closed(0.0, "c", "full")
        submit(scheduler, 80)
        scheduler.detach(0.0, "r", "--detach")
        assert assigned(scheduler.plan(0.0, 0.0)) == []
        scheduler.observe_ready(0.0, "b", 1, "3.11", ())
        hosts = [host for _, _, host in assigned(scheduler.plan(0.0, 0.0))]
        assert (hosts.count("a"), hosts.count("b"), hosts.count("c")) == (60, 20, 0)


class TestStoppingEarly:
    """A job that was asked to stop early."""

    @staticmethod
    def _running(**policies):
        scheduler = ready(Scheduler(["a"], Policies(**policies)))
        submit(scheduler, 3)
        scheduler.plan(0.0, 0.0)
        scheduler.observe_started(0.0, "a", 0, 1, 0, 0.0)
        assert scheduler.hosts["a"].jobs == {0, 1}
        return scheduler

    def test_it_is_asked_once(self):
        """A second time, or when it was cancelled, or when it has returned, nothing follows."""
        scheduler = self._running()
        assert [event.kind for event in scheduler.stop(0.0, 0)] == ["job_stopping"]
        assert scheduler.stop(0.0, 0) == []
        scheduler.cancel(0.0, 1)
        assert scheduler.stop(0.0, 1) == []
        assert scheduler.stop(0.0, 77) == []

    def test_one_that_has_its_outcome_is_left_alone(self):
        """Its files may still be coming."""
        scheduler = self._running()
        scheduler.observe_ended(0.0, "a", 0, 1, "COMPLETED", 1.0, None)
        assert scheduler.stop(0.0, 0) == []
        (made,) = scheduler.observe_collected(0.0, "a", 0, 1)
        assert not made.stopped

    def test_what_came_back_counts_with_the_files(self):
        """The host says what the job used, and the bytes are counted here. A host that says nothing leaves it unknown."""
        scheduler = self._running()
        scheduler.observe_ended(
            0.0, "a", 0, 1, "COMPLETED", 1.0, None, resources_used={"cpu_seconds": 2.0, "bytes_out": 5}
        )
        (made,) = scheduler.observe_collected(0.0, "a", 0, 1, 100)
        assert made.resources_used == {"cpu_seconds": 2.0, "bytes_out": 105}
        scheduler.observe_ended(0.0, "a", 1, 1, "COMPLETED", 1.0, None)
        (made,) = scheduler.observe_collected(0.0, "a", 1, 1, 100)
        assert made.resources_used is None

    def test_one_that_waits_here_never_starts(self):
        """It returns at once, and is no failure of a host."""
        scheduler = self._running()
        made = scheduler.stop(0.0, 2)
        assert [event.kind for event in made] == ["job_stopping", "job_returned"]
        assert made[1].error["kind"] == "cancelled"
        assert made[1].error["message"] == "stopped before it started"
        assert 2 not in scheduler.jobs

    def test_one_that_fails_is_not_tried_again(self):
        """The retries are for jobs whose result somebody wants."""
        scheduler = self._running(retries={"*": 3})
        scheduler.stop(0.0, 0)
        assert returned(end(scheduler, "a", 0, kind="exception")) == [(0, "FAILED", "exception")]

    def test_one_whose_host_is_lost_runs_nowhere_else(self):
        """It is lost, as one that was cancelled."""
        scheduler = self._running(on_host_loss="retry")
        scheduler.stop(0.0, 0)
        made = scheduler.give_up(0.0, "a", "gone")
        assert [(event.num, event.error["kind"]) for event in made if event.kind == "job_returned"] == [(0, "lost")]

    def test_one_that_comes_back_unstarted_never_starts(self):
        """Whether its host is full, or was asked for it."""
        scheduler = self._running()
        scheduler.stop(0.0, 1)
        made = scheduler.observe_dropped(0.0, "a", 1, 1, "full")
        assert [event.kind for event in made] == ["job_requeued", "job_returned"]
        assert made[1].error["message"] == "stopped before it started"


class TestReports:
    """What jobs report."""

    def test_each_report_of_the_current_attempt_is_taken_once(self):
        """By its number, which goes up. After the outcome, and from another host or attempt, there is none."""
        scheduler = ready(Scheduler(["a"], Policies(retries={"*": 1})))
        submit(scheduler, 1)
        scheduler.plan(0.0, 0.0)
        report = Report(1, {"loss": 0.5}, 2.0)

        def observe(number, attempt=1, host="a"):
            return [event.number for event in scheduler.observe_reported(0.0, host, 0, attempt, number, report)]

        assert [observe(number) for number in (1, 1, 3, 2, 0, -1, 4)] == [[1], [], [3], [], [], [], [4]]
        assert observe(5, attempt=2) == observe(5, host="b") == []
        end(scheduler, "a", 0, kind="exception")
        scheduler.plan(0.0, 0.0)
        assert observe(5) == []
        assert observe(1, attempt=2) == [1]
        scheduler.observe_ended(0.0, "a", 0, 2, "COMPLETED", 1.0, None)
        assert observe(2, attempt=2) == []


class TestGoingOnThere:
    """A host that has made the next attempt itself has it."""

    ERROR: ClassVar[dict[str, Any]] = {"kind": "preempted", "type": "", "message": "", "traceback": "", "causes": []}

    def preempted(self, scheduler: Scheduler) -> None:
        """Its first attempt has ended, and the second is made."""
        submit(scheduler, 1)
        scheduler.plan(0.0, 0.0)
        scheduler.observe_started(0.0, "a", 0, 1, 0, 0.0)
        scheduler.observe_ended(0.0, "a", 0, 1, "FAILED", 1.0, self.ERROR, again=True)

    def test_the_job_follows(self):
        """Also where another host is free, and without a retry of ours. The next attempt knows how the last one ended."""
        scheduler = ready(Scheduler(["a", "b"]), "a")
        self.preempted(scheduler)
        ready(scheduler, "b")
        made = scheduler.observe_collected(0.0, "a", 0, 1)
        assert [type(event) for event in made] == [events.JobRequeued, events.JobAssigned]
        assert assigned(made) == [(0, 2, "a")]
        assert scheduler.jobs[0].earlier == [{"attempt": 1, "host": "a", "kind": "preempted"}]
        assert scheduler.plan(0.0, 0.0) == []
        assert scheduler.current(0, 2, "a") is not None

    @pytest.mark.parametrize("end_it", [lambda one: one.cancel(0.0, 0), lambda one: one.interrupt(0.0, "enough")])
    def test_not_if_the_user_has_ended_it(self, end_it):
        """Then it returns."""
        scheduler = ready(Scheduler(["a"]))
        self.preempted(scheduler)
        end_it(scheduler)
        assert returned(scheduler.observe_collected(0.0, "a", 0, 1)) == [(0, "FAILED", "preempted")]

    def test_not_if_its_host_was_given_up(self):
        """Nobody would hear of it, so it is retried elsewhere or returns, as the policies say."""
        scheduler = ready(Scheduler(["a"]))
        self.preempted(scheduler)
        assert returned(scheduler.give_up(0.0, "a", "gone")) == [(0, "FAILED", "preempted")]

    def test_one_that_never_began_there_goes_on_there(self):
        """It does not count as a try, and leaves nothing to go on from."""
        scheduler = ready(Scheduler(["a"]))
        submit(scheduler, 1)
        scheduler.plan(0.0, 0.0)
        made = scheduler.observe_dropped(0.0, "a", 0, 1, "its allocation ended", again=True)
        assert assigned(made) == [(0, 2, "a")]
        assert (scheduler.jobs[0].earlier, scheduler.jobs[0].unstarted) == ([], 1)
