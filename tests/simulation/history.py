"""What happens in one history, as plain data: made from a seed, printed when it fails, made smaller until it is minimal.

Rule: a history says everything; two runs of the same one do the same. Dropping a step leaves the others as they are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["STEPS", "History", "Job", "Step", "generate", "shrink"]

#: kind -> how often, relative to the others. What each one does is told by the method of World of that name.
STEPS = {
    "cut": 5,  # the link breaks, both sides are told at once
    "blackhole": 4,  # the link is dead, both sides notice it when their heartbeats do
    "half": 2,  # the same, one way only: what the host says is lost
    "kill_agent": 4,
    "reboot": 3,
    "wipe": 1,  # the spool is removed while the agent is down
    "gone": 1,  # the host never comes back (only where that has an end: not with on_host_loss=wait)
    "full": 3,  # the spool cannot be written for a while
    "isolate": 3,  # no connection can be made for a while
    "kill_controller": 4,
    "kill_at_write": 4,  # the controller dies at a journal write, before or after it is on the disk
    "journal_full": 2,  # the journal cannot be written for a while
    "resend": 4,  # the host says again what it has said
    "send_again": 3,  # the controller sends again what the host has
    "clock_jump": 1,  # the controller's wall clock jumps
    "cancel": 1,
    "interrupt": 2,
    "give_up": 1,
    "detach": 1,  # hosts get everything that waits
}


@dataclass(frozen=True)
class Step:
    """Something that is done to the run: when (seconds), what, to whom, and two numbers whose meaning is the kind's."""

    at: float
    kind: str
    host: int = 0
    a: float = 0.0
    b: float = 0.0


@dataclass(frozen=True)
class Job:
    """A job: submitted when, runs how long, how each attempt ends (kinds of error; empty: it completes), and how many GPUs it asks for (0: it
    does not say it, and takes one).
    """

    at: float
    seconds: float
    ends: tuple[str, ...] = ()
    gpus: int = 0


@dataclass(frozen=True)
class History:
    """Hosts (slots of each, which are its GPUs), jobs, policies and steps."""

    seed: int
    slots: tuple[int, ...]
    jobs: tuple[Job, ...]
    policies: dict[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    #: Hosts that are not there when the run begins, and for how long (seconds; infinity: for ever).
    absent: tuple[float, ...] = ()
    #: How many times as long as on another host a job takes on each; empty: they are alike.
    slowness: tuple[float, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"History(seed={self.seed}, slots={self.slots}, absent={self.absent}, slowness={self.slowness}, policies={self.policies!r},"
        ]
        lines += ["  jobs=(", *[f"    {job}," for job in self.jobs], "  ),"]
        lines += ["  steps=(", *[f"    {step}," for step in self.steps], "  ))"]
        return "\n".join(lines)


def generate(seed: int) -> History:
    """The history of a seed."""
    rng = random.Random(seed)
    hosts = rng.choice((1, 1, 2, 2, 3))
    count = rng.choice((1, 2, 3, 4, 6, 9))
    spread = rng.choice((0.0, 0.0, 20.0))
    seconds = rng.choice((0.01, 1.0, 8.0, 60.0))
    jobs = tuple(
        Job(
            round(rng.uniform(0, spread), 3),
            round(seconds * rng.uniform(0.5, 2.0), 3),
            tuple(rng.choice(("", "", "exception", "killed", "timeout")) for _ in range(3))
            if rng.random() < 0.3
            else (),
        )
        for _ in range(count)
    )
    on_host_loss = rng.choice(("wait", "retry", "fail"))
    policies: dict[str, Any] = {"on_host_loss": on_host_loss, "host_loss_timeout": rng.choice((5.0, 60.0, 600.0))}
    if rng.random() < 0.4:
        policies["retries"] = rng.choice(({"*": 1}, {"exception": 2}, {"lost": 2, "killed": 1}))
    if rng.random() < 0.15:
        policies["max_failures"] = rng.choice((1, 2, 3))
    horizon = rng.choice((3.0, 30.0, 200.0))
    kinds, weights = list(STEPS), list(STEPS.values())
    steps = tuple(
        sorted(
            (
                Step(
                    round(rng.uniform(0, horizon), 3),
                    kind,
                    rng.randrange(hosts),
                    round(rng.random() * rng.choice((0.3, 5.0, 60.0)), 3),
                    round(rng.random(), 3),
                )
                for kind in rng.choices(kinds, weights, k=rng.choice((0, 1, 2, 3, 5, 8)))
            ),
            key=lambda step: step.at,
        )
    )
    absent = tuple(
        rng.choice((3.0, float("inf"))) if rng.random() < 0.15 * (hosts - 0.8) else 0.0 for _ in range(hosts)
    )
    slots = tuple(rng.randint(1, 3) for _ in range(hosts))
    slowness = tuple(rng.choice((1.0, 1.0, 4.0, 10.0)) for _ in range(hosts))
    if rng.random() < 0.4:
        jobs = tuple(replace(job, gpus=rng.choice((0, 1, 1, 2, 3))) for job in jobs)
    return History(seed, slots, jobs, policies, steps, absent, slowness)


def shrink(history: History, fails: Callable[[History], bool]) -> History:
    """A smaller history that fails still, from which nothing can be left out."""
    while True:
        for smaller in _smaller(history):
            if fails(smaller):
                history = smaller
                break
        else:
            return history


def _smaller(history: History) -> Iterator[History]:
    steps, jobs = history.steps, history.jobs
    size = len(steps)
    while size:
        for start in range(0, len(steps), size):
            yield replace(history, steps=steps[:start] + steps[start + size :])
        size //= 2
    for index in range(len(jobs) - 1, -1, -1):
        if len(jobs) > 1:
            yield replace(history, jobs=jobs[:index] + jobs[index + 1 :])
    if len(history.slots) > 1:
        last = len(history.slots) - 1
        if not any(step.host == last for step in steps):
            yield replace(history, slots=history.slots[:last], absent=history.absent[:last])
    if any(one != 1.0 for one in history.slowness):
        yield replace(history, slowness=())
    if any(history.absent):
        yield replace(history, absent=tuple(0.0 for _ in history.absent))
    for index, job in enumerate(jobs):
        if job.ends:
            yield replace(history, jobs=(*jobs[:index], replace(job, ends=()), *jobs[index + 1 :]))
        if job.gpus:
            yield replace(history, jobs=(*jobs[:index], replace(job, gpus=0), *jobs[index + 1 :]))
    for name in ("retries", "max_failures"):
        if name in history.policies:
            yield replace(history, policies={key: value for key, value in history.policies.items() if key != name})
    if max(history.slots) > 1:
        yield replace(history, slots=tuple(1 for _ in history.slots))
