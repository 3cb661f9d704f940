"""A scheduler, and short ways for tests to say what it decided."""

from __future__ import annotations

from launcher import events
from launcher.engine.scheduling.scheduler import Scheduler

ERROR = {"kind": "exception", "type": "E", "message": "m", "traceback": "", "causes": []}


def ready(scheduler: Scheduler, *hosts: str, slots: int = 1) -> Scheduler:
    """Hosts that have sent a welcome."""
    for host in hosts or tuple(scheduler.hosts):
        scheduler.observe_ready(0.0, host, slots, "3.11", (), "boot")
    return scheduler


def submit(scheduler: Scheduler, count: int) -> None:
    """Jobs 0 to count - 1."""
    for num in range(count):
        scheduler.submit(0.0, num, (f"x={num}",))


def assigned(made: list[events.Event]) -> list[tuple[int, int, str]]:
    """(num, attempt, host) of each assignment."""
    return [(e.num, e.attempt, e.host) for e in made if isinstance(e, events.JobAssigned)]


def returned(made: list[events.Event]) -> list[tuple[int, str, str]]:
    """(num, status, kind of error) of each job that has ended."""
    return [(e.num, e.status, (e.error or {}).get("kind", "")) for e in made if isinstance(e, events.JobReturned)]


def end(
    scheduler: Scheduler, host: str, num: int, attempt: int = 1, kind: str = "", duration: float = 1.0
) -> list[events.Event]:
    """An attempt ends, and everything of it arrives."""
    error = {**ERROR, "kind": kind} if kind else None
    made = scheduler.observe_ended(1.0, host, num, attempt, "FAILED" if kind else "COMPLETED", duration, error)
    return made + scheduler.observe_collected(1.0, host, num, attempt)
