"""Which host gets which job, if jobs and hosts have several sizes."""

from __future__ import annotations

import pytest

from launcher import events
from launcher.engine.scheduling.policies import Policies
from launcher.engine.scheduling.scheduler import Scheduler
from launcher.engine.scheduling.state import HostPhase
from remote_agent.protocol.specs.resources import Resources, Room
from tests.launcher.engine.schedulers import assigned, end, returned


def _room(cpus: int, gpus: int = 0, part: int = 1, most: int = 0) -> Room:
    """Of a host where a job that says nothing takes `part` CPUs."""
    return Room(Resources(gpus, cpus, 0), Resources(0, part, 0), most)


def _run(**hosts: Room | None) -> Scheduler:
    """Hosts that have sent a welcome; those without a room have not."""
    scheduler = Scheduler(list(hosts), Policies(host_loss_timeout=60.0))
    for name, room in hosts.items():
        if room is not None:
            _ready(scheduler, name, room)
    return scheduler


def _ready(scheduler: Scheduler, name: str, room: Room) -> list[events.Event]:
    slots = max(room.has.cpus // max(room.part.cpus, 1), 1)
    return scheduler.observe_ready(0.0, name, slots, "3.11", (), "boot", room)


def _submit(scheduler: Scheduler, *cpus: int | None) -> None:
    """Jobs that need as many CPUs; None for one that says nothing."""
    for one in cpus:
        needs = None if one is None else Resources(0, one, 0)
        scheduler.submit(0.0, scheduler.next_num, (), needs)


def _places(scheduler: Scheduler) -> dict[int, str]:
    """Job -> the host that it is given to now."""
    return {num: host for num, _, host in assigned(scheduler.plan(0.0, 0.0))}


def _start(scheduler: Scheduler, *nums: int) -> None:
    for num in nums:
        scheduler.observe_started(0.0, scheduler.jobs[num].host, num, 1, 0, 0.0)


def test_a_job_goes_to_a_host_that_is_large_enough():
    """A host that is too small for it gets others, also where it comes first."""
    scheduler = _run(small=_room(2), large=_room(8))
    _submit(scheduler, 4, 4, 1, 1)
    assert _places(scheduler) == {0: "large", 1: "large", 2: "small", 3: "small"}


def test_a_host_gets_what_has_room_there_at_once():
    """By what it has, and not by a number of slots. `slots` of the hosts file is the most."""
    scheduler = _run(a=_room(8), b=_room(8, most=1))
    _submit(scheduler, 3, 3, 3, 2)
    places = _places(scheduler)
    assert sorted(places.values()) == ["a", "a", "a", "b"]


def test_a_job_that_is_too_large_for_every_host_fails_by_name():
    """With what each has, when all have said it. The others run."""
    scheduler = _run(a=_room(2), b=None)
    _submit(scheduler, 4, 1)
    assert _places(scheduler) == {1: "a"}
    _ready(scheduler, "b", _room(3))
    made = scheduler.plan(0.0, 0.0)
    assert returned(made) == [(0, "FAILED", "host")]
    (failed,) = [event for event in made if isinstance(event, events.JobReturned)]
    assert failed.error is not None
    assert failed.error["message"] == (
        "no host can run it: a: a job needs 4 CPUs, and it has 2 CPUs; b: a job needs 4 CPUs, and it has 3 CPUs; "
        "ask for less in `resources`, or correct what the hosts file says that the host has"
    )


def test_a_large_job_waits_for_a_host_that_may_come():
    """One that is not reached yet may be large enough. When it is given up, the job fails."""
    scheduler = _run(small=_room(2), large=None)
    _submit(scheduler, 4)
    assert scheduler.plan(0.0, 0.0) == []
    scheduler.observe_unusable(0.0, "large", "connect", "no route", "")
    (failed,) = [event for event in scheduler.plan(0.0, 0.0) if isinstance(event, events.JobReturned)]
    assert failed.error is not None
    assert "small: a job needs 4 CPUs, and it has 2 CPUs; large: no route" in failed.error["message"]


def test_a_large_job_is_given_to_a_host_before_small_ones_take_its_room():
    """It waits there, and the host lets it start first. Small ones go where they do not hold it up."""
    scheduler = _run(a=_room(8), b=_room(4))
    _submit(scheduler, 6, 8, 1, 1, 1, 4)
    assert _places(scheduler) == {0: "a", 1: "a", 2: "b", 3: "b", 4: "b"}
    _start(scheduler, 0, 2, 3, 4)
    end(scheduler, "a", 0, duration=100.0)
    assert _places(scheduler) == {}
    _start(scheduler, 1)
    for num in (2, 3, 4):
        end(scheduler, "b", num, duration=100.0)
    assert _places(scheduler) == {5: "b"}


def test_small_jobs_go_beside_a_large_one_that_waits():
    """As many as have room beside it."""
    scheduler = _run(a=_room(8))
    _submit(scheduler, 4, 4)
    _places(scheduler)
    _start(scheduler, 0, 1)
    _submit(scheduler, 6, 1, 1, 1)
    end(scheduler, "a", 0, duration=100.0)
    scheduler.plan(0.0, 0.0)
    waits = [num for num in sorted(scheduler.hosts["a"].jobs) if num > 1]
    assert waits == [2, 3, 4]
    assert list(scheduler.pending) == [5]


def test_jobs_of_a_host_of_an_earlier_version_are_alike():
    """Its agent does not say what it has, and would start a job of another size as any."""
    scheduler = Scheduler(["old"])
    scheduler.observe_ready(0.0, "old", 2, "3.11", (), "boot")
    _submit(scheduler, None, 4)
    made = scheduler.plan(0.0, 0.0)
    assert assigned(made) == [(0, 1, "old")]
    (failed,) = [event for event in made if isinstance(event, events.JobReturned)]
    assert "old: its agent knows no jobs with `resources` of their own" in (failed.error or {})["message"]


def test_a_run_that_is_left_gives_each_host_what_it_can_hold():
    """By what jobs take. A job that no host here can hold stays."""
    scheduler = _run(small=_room(2), large=_room(8), late=None)
    _submit(scheduler, 4, 4, 4, 1, 1, 1, 16)
    scheduler.detach(0.0, "r", "as asked", hurry=True)
    places = _places(scheduler)
    assert [places[num] for num in range(3)] == ["large"] * 3
    assert [places[num] for num in range(3, 6)].count("small") == 3
    assert list(scheduler.pending) == [6]


@pytest.mark.parametrize("room", [_room(8), _room(1)])
def test_what_a_host_has_is_asked_again_after_a_resume(room):
    """A controller that takes the run over does not know it until the next welcome."""
    scheduler = _run(a=_room(1))
    _submit(scheduler, 4)
    scheduler.resume(0.0, "r")
    assert scheduler.plan(0.0, 0.0) == []
    _ready(scheduler, "a", room)
    assert scheduler.hosts["a"].phase is HostPhase.READY
    made = scheduler.plan(0.0, 0.0)
    assert bool(assigned(made)) == (room.has.cpus == 8)


def test_jobs_that_wait_on_a_host_are_in_the_order_in_which_they_came_there():
    """Not in that of their numbers: the host goes by the former, and a job that may pass the first one is sent."""
    scheduler = _run(a=_room(3))
    for num, cpus in ((5, 1), (6, 1), (4, 2), (2, 3), (1, 3)):
        scheduler.submit(0.0, num, (), Resources(0, cpus, 0))
        assert _places(scheduler) == {num: "a"}
    _start(scheduler, 5, 6)
    scheduler.submit(0.0, 0, (), Resources(0, 1, 0))
    assert _places(scheduler) == {0: "a"}
