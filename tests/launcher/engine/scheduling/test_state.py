"""The state of a run is made from its events."""

from __future__ import annotations

from launcher import events
from launcher.engine.scheduling.policies import Policies
from launcher.engine.scheduling.scheduler import Scheduler
from tests.launcher.engine.schedulers import ready, submit
from tests.simulation.journal import through_json


def test_state_is_made_only_from_events():
    """Events that went through JSON give the same state again."""
    scheduler = ready(Scheduler(["a", "b"], Policies(retries={"*": 1}, on_host_loss="retry")), slots=2)
    submit(scheduler, 9)
    made: list[events.Event] = []
    for num in range(9):
        made += scheduler.submit(0.0, 10 + num)
    made += scheduler.plan(0.0, 0.0)
    fresh = Scheduler(["a", "b"])
    for event in [
        *[events.HostReady(0.0, host, 2, "3.11", (), False, "boot") for host in ("a", "b")],
        *[events.JobQueued(0.0, num, (f"x={num}",)) for num in range(9)],
        *made,
    ]:
        fresh.apply(through_json(event))
    assert fresh.jobs == scheduler.jobs
    assert fresh.pending == scheduler.pending
    assert fresh.hosts == scheduler.hosts
