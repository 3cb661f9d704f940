"""What a host has for the jobs of a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote_agent.protocol.specs.resources import Resources, Room
from remote_agent.system import resources
from remote_agent.system.resources import room_here

GIB = 1 << 30
HAS = Resources(4, 8, 64 * GIB)


def test_a_run_that_says_what_a_job_needs_has_jobs_of_that_size():
    """A number of slots is the most that run at once."""
    needs = Resources(1, 2, 0)
    assert room_here(needs, HAS, None) == Room(HAS, needs, 0)
    assert room_here(needs, HAS, "auto") == Room(HAS, needs, 0)
    assert room_here(needs, HAS, 3) == Room(HAS, needs, 3)


@pytest.mark.parametrize(
    ("has", "slots", "part", "most"),
    [
        (HAS, None, Resources(1, 2, 16 * GIB), 0),
        (HAS._replace(gpus=0), None, Resources(0, 8, 64 * GIB), 0),
        (HAS, "auto", Resources(0, 1, 8 * GIB), 0),
        (HAS, 2, Resources(2, 4, 32 * GIB), 2),
        (HAS, 16, Resources(0, 0, 4 * GIB), 16),
    ],
)
def test_a_job_of_a_run_that_does_not_say_it_has_a_part_of_the_host(has, slots, part, most):
    """Its slot's part of everything. More jobs than GPUs or CPUs share these."""
    assert room_here(None, has, slots) == Room(has, part, most)


def test_a_limit_of_a_cgroup_is_less_memory(tmp_path: Path):
    """It may stand at any level."""
    (tmp_path / "user" / "job").mkdir(parents=True)
    (tmp_path / "user" / "memory.max").write_text("1073741824\n")
    (tmp_path / "user" / "job" / "memory.max").write_text("max\n")
    own = tmp_path / "own"
    own.write_text("1:cpu:/other\n0::/user/job\n")
    assert resources.memory_here(str(tmp_path), str(own)) == GIB


def test_without_cgroups_the_machine_counts(tmp_path: Path):
    """This is so on macOS, too."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert resources.memory_here(str(tmp_path), str(tmp_path / "own")) == machine
