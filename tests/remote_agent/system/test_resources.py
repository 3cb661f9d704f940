"""A host is divided into slots of the size that the jobs need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote_agent.protocol.resources import Resources
from remote_agent.system import resources
from remote_agent.system.resources import divide

GIB = 1 << 30
NOTHING = Resources(0, 0, 0)


def _divide(needs: Resources, given: Resources = NOTHING, most: int | None = None):
    """A host with four GPUs, eight CPUs (2 to 9) and 64 GiB."""
    return divide(needs, given, 4, list(range(2, 10)), 8, 64 * GIB, most)


@pytest.mark.parametrize(
    ("needs", "count"),
    [
        (Resources(1, 1, 0), 4),
        (Resources(2, 1, 0), 2),
        (Resources(3, 1, 0), 1),
        (Resources(0, 3, 0), 2),
        (Resources(0, 1, 20 * GIB), 3),
        (Resources(1, 4, 8 * GIB), 2),
    ],
)
def test_as_many_slots_as_fit(needs, count):
    """What is scarcest decides."""
    slots, why = _divide(needs)
    assert (len(slots), why) == (count, "")


def test_no_cpu_is_in_two_slots():
    """Each slot has as many as were asked for. Which GPUs a job gets is decided when it starts."""
    assert _divide(Resources(2, 3, 0)) == ([[2, 3, 4], [5, 6, 7]], "")


def test_the_users_number_of_slots_is_the_most():
    """Fewer may fit."""
    assert len(_divide(Resources(1, 1, 0), most=3)[0]) == 3
    assert len(_divide(Resources(1, 1, 0), most=9)[0]) == 4


def test_what_the_user_says_of_a_host_counts():
    """Half of the CPUs may belong to others. If more are named than there are, no job has CPUs of its own."""
    assert _divide(Resources(0, 2, 0), Resources(0, 4, 0))[0] == [[2, 3], [4, 5]]
    assert _divide(Resources(0, 8, 0), Resources(0, 16, 0))[0] == [[], []]
    assert len(_divide(Resources(0, 1, 2 * GIB), Resources(0, 0, 6 * GIB))[0]) == 3


@pytest.mark.parametrize(
    ("needs", "says"),
    [
        (Resources(5, 1, 0), "a job needs 5 GPUs, 1 CPU, and it has 4 GPUs"),
        (Resources(0, 9, 0), "a job needs 9 CPUs, and it has 8 CPUs"),
        (Resources(0, 1, 65 * GIB), "a job needs 1 CPU, 65 GiB of memory, and it has 64 GiB of memory"),
    ],
)
def test_a_host_that_is_too_small_says_why(needs, says):
    """It has no slot."""
    assert _divide(needs) == ([], says)


def test_a_host_without_gpus_says_so():
    """There is no number to compare with."""
    assert divide(Resources(1, 1, 0), NOTHING, 0, [0], 1, GIB, None)[1].endswith("and it has no GPU")


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
