"""Classes of jobs by what they need, and what allocations for them have."""

from __future__ import annotations

from typing import Any

import pytest

from remote_agent.protocol.specs.resources import Resources
from remote_agent.slurm.batch.classes import (
    DEFAULT,
    Lasting,
    allocation_needs,
    class_of,
    lasting,
    needs_of,
    part_of,
    seconds_of,
    shown,
    takes_many,
)

GIB = 1 << 30


def test_a_class_is_named_by_what_its_jobs_need() -> None:
    """The name is a file's, and says it again."""
    assert class_of(None) == DEFAULT
    large = Resources(0, 1, 0, nodes=2, tasks=8, time=7200, no_gpus=True)
    for needs in (Resources(2, 4, 3 * GIB), large, large._replace(nodes=0), Resources(1, 1, 0, time=60)):
        assert needs_of(class_of(needs)) == needs
    needs = Resources(2, 4, 3 * GIB)
    assert "/" not in class_of(needs)
    assert needs_of(DEFAULT) is None
    assert shown(class_of(needs)) == "jobs that need 2 GPUs, 4 CPUs, 3 GiB of memory"
    assert shown(DEFAULT) == "jobs that say no `resources`"


@pytest.mark.parametrize(
    ("needs", "options", "has"),
    [
        (None, {}, {}),
        (None, {"cpus": 8, "gpus": "a100:1", "mem": "32G"}, {"cpus": "8", "gpus": "a100:1", "mem": "32G"}),
        (
            None,
            {"cpus": 8, "gpus": "a100:1", "mem": "32G", "slots": 3},
            {"cpus": "24", "gpus": "a100:3", "mem": "96G"},
        ),
        (None, {"gpus": 0, "slots": 2}, {"cpus": "2"}),
        (
            Resources(2, 4, 3 * GIB),
            {"partition": "gpu"},
            {"partition": "gpu", "gpus": "2", "cpus": "4", "mem": "3072M"},
        ),
        (
            Resources(2, 1, 0),
            {"cpus": 8, "gpus": "a100:1", "mem": "2G"},
            {"gpus": "a100:2", "cpus": "8", "mem": "2048M"},
        ),
        (Resources(0, 2, 1), {"gpus": 1}, {"gpus": "1", "cpus": "2", "mem": "1M"}),
        (Resources(1, 2, GIB), {"slots": 2, "time": 5}, {"gpus": "2", "cpus": "4", "mem": "2048M", "time": "5"}),
        (Resources(0, 2, 0, no_gpus=True), {"gpus": "a100:1"}, {"cpus": "2"}),
        (None, {"nodes": 2, "tasks": 4}, {"nodes": "2", "tasks": "4"}),
        (Resources(0, 1, 0, nodes=3), {"nodes": 2, "tasks": 2}, {"nodes": "3", "tasks": "3", "cpus": "1"}),
        (Resources(0, 2, 0, tasks=8), {"nodes": 2}, {"nodes": "2", "tasks": "8", "cpus": "2"}),
        (Resources(0, 1, 0, time=90), {"time": "4:00:00"}, {"time": "2", "cpus": "1"}),
        (Resources(0, 1, 0, time=90), {"time": "4:00:00", "slots": 2}, {"time": "240", "cpus": "2"}),
    ],
)
def test_what_an_allocation_has(needs: Resources | None, options: dict[str, Any], has: dict[str, str]) -> None:
    """What a job says takes the place of what `slurm:` says; as much for each slot."""
    assert allocation_needs(class_of(needs), options, options.get("slots", 1)) == has


def test_what_each_job_has() -> None:
    """What it does not say is that of `slurm:`. Jobs that say nothing share the allocation."""
    assert part_of(DEFAULT, {"cpus": 8}) is None
    options = {"cpus": 8, "gpus": "a100:1", "mem": "2G"}
    assert part_of(class_of(Resources(2, 1, 0)), options) == Resources(2, 8, 2 * GIB)
    assert part_of(class_of(Resources(0, 3, GIB)), options) == Resources(1, 3, GIB)
    assert part_of(class_of(Resources(0, 1, 5)), {}) == Resources(0, 1, 5)


def test_a_job_that_says_none_has_no_gpu() -> None:
    """Also where `slurm:` has some for those that say nothing."""
    part = part_of(class_of(Resources(0, 1, 0, no_gpus=True)), {"gpus": 2})
    assert part is not None
    assert part.gpus == 0


def test_an_allocation_with_slots_takes_many_jobs() -> None:
    """As one does for which the user says it."""
    assert [takes_many(options) for options in ({}, {"slots": 1, "jobs": 1}, {"slots": 2}, {"jobs": "many"})] == [
        False,
        False,
        True,
        True,
    ]


def test_a_job_of_several_nodes_has_an_allocation_for_itself() -> None:
    """Whatever holds for the others."""
    many = {"jobs": "many", "slots": 2}
    assert not takes_many(many, class_of(Resources(0, 1, 0, nodes=2)))
    assert not takes_many(many, class_of(Resources(0, 1, 0, tasks=2)))
    assert takes_many(many, class_of(Resources(0, 1, 0, nodes=1)))


@pytest.mark.parametrize(
    ("time", "options", "lasts"),
    [
        (0, {}, Lasting(0, 0)),
        (0, {"time": "2"}, Lasting(120, 0)),
        (600, {"time": "1:00:00"}, Lasting(600, 600)),
        (600, {"time": "1:00:00", "jobs": "many"}, Lasting(3600, 600)),
        (600, {"time": "1", "jobs": "many"}, Lasting(600, 600)),
        (600, {"jobs": "many"}, Lasting(600, 600)),
    ],
)
def test_how_long_an_allocation_lasts(time: int, options: dict[str, Any], lasts: Lasting) -> None:
    """As long as its jobs say; where it takes many, as long as `slurm:` says, but no less than one of them."""
    assert lasting(class_of(Resources(0, 1, 0, time=time)), options) == lasts


def test_a_job_is_taken_if_its_time_is_left() -> None:
    """Where nobody says how long it takes, always."""
    assert [Lasting(3600, 600).allows(elapsed) for elapsed in (0, 3000, 3001)] == [True, True, False]
    assert Lasting(3600, 0).allows(3599)
    assert Lasting(0, 0).allows(1e9)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("4:30", 270), ("1:00:00", 3600), ("1-12", 129600), ("1-0:30", 88200), ("", 0), ("UNLIMITED", 0)],
)
def test_times_as_slurm_writes_them(text: str, seconds: int) -> None:
    """A number alone is minutes."""
    assert seconds_of(text) == seconds
