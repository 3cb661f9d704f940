"""Classes of jobs by what they need, and what allocations for them have."""

from __future__ import annotations

from typing import Any

import pytest

from remote_agent.protocol.resources import Resources
from remote_agent.slurm.classes import DEFAULT, allocation_needs, class_of, needs_of, part_of, shown, takes_many

GIB = 1 << 30


def test_a_class_is_named_by_what_its_jobs_need() -> None:
    """The name is a file's, and says it again."""
    assert class_of(None) == DEFAULT
    needs = Resources(2, 4, 3 * GIB)
    assert needs_of(class_of(needs)) == needs
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


def test_an_allocation_with_slots_takes_many_jobs() -> None:
    """As one does for which the user says it."""
    assert [takes_many(options) for options in ({}, {"slots": 1, "jobs": 1}, {"slots": 2}, {"jobs": "many"})] == [
        False,
        False,
        True,
        True,
    ]
