"""What a job needs and what a host has, as it is sent."""

from __future__ import annotations

import pytest

from remote_agent.protocol.fields import FieldError
from remote_agent.protocol.specs.resources import Resources, Room


def test_what_is_left_out_is_none():
    """A later version may know more of them, which this one ignores."""
    assert Resources.from_json({"cpus": 4, "fast_disks": 2}) == Resources(0, 4, 0)


def test_what_only_clusters_have_is_sent_where_it_is_said():
    """An earlier version reads the rest."""
    assert Resources(1, 2, 3).to_json() == {"gpus": 1, "cpus": 2, "memory": 3}
    needs = Resources(0, 1, 0, nodes=2, time=60, no_gpus=True)
    assert Resources.from_json(needs.to_json()) == needs


@pytest.mark.parametrize(
    "data", [{"nodes": -1}, {"no_gpus": 1}, {"gpus": -1}, {"cpus": 1.5}, {"memory": "8GiB"}, {"gpus": True}, None]
)
def test_what_makes_no_sense_is_refused(data):
    """Each side checks what the other one says."""
    with pytest.raises(FieldError, match="resources"):
        Resources.from_json(data)


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        (Resources(1, 4, 8 << 30), "1 GPU, 4 CPUs, 8 GiB of memory"),
        (Resources(2, 1, 0), "2 GPUs, 1 CPU"),
        (Resources(0, 0, 0), ""),
        (
            Resources(0, 1, 0, nodes=2, tasks=8, time=5400, no_gpus=True),
            "2 nodes, 8 tasks, 1 CPU, no GPU, 1:30:00 of time",
        ),
    ],
)
def test_messages_show_what_there_is(resources, text):
    """What is not asked for is not mentioned."""
    assert resources.shown() == text


GIB = 1 << 30
ROOM = Room(Resources(4, 8, 64 * GIB), Resources(1, 2, 0), 3)


def test_a_job_that_says_nothing_takes_the_usual_part():
    """And one of the jobs that may run at once."""
    assert ROOM.need(None) == (1, 2, 0, 1)
    assert ROOM.need(Resources(0, 1, GIB)) == (0, 1, GIB, 1)
    assert ROOM.amounts == (4, 8, 64 * GIB, 3)
    assert ROOM._replace(most=0).amounts[3] > 1 << 30


@pytest.mark.parametrize(
    ("needs", "says"),
    [
        (Resources(5, 1, 0), "a job needs 5 GPUs, 1 CPU, and it has 4 GPUs"),
        (Resources(0, 9, 0), "a job needs 9 CPUs, and it has 8 CPUs"),
        (Resources(0, 1, 65 * GIB), "a job needs 1 CPU, 65 GiB of memory, and it has 64 GiB of memory"),
        (Resources(4, 8, 64 * GIB), ""),
        (Resources(0, 1, 0, nodes=2), "it is no Slurm cluster, and only one has `nodes`, `tasks` and `time` to give"),
        (Resources(0, 1, 0, no_gpus=True), ""),
        (None, ""),
    ],
)
def test_a_host_that_is_too_small_says_why(needs, says):
    """What it has of that which it lacks."""
    assert ROOM.lacks(needs) == says
    assert Room(Resources(0, 1, 0), Resources(1, 1, 0), 0).lacks(None).endswith("and it has no GPU")


def test_a_room_can_be_read_back():
    """One that makes no sense is refused."""
    assert Room.from_json(ROOM.to_json()) == ROOM
    for bad in ({"most": -1}, {"has": {"cpus": -1}}, {"part": None}):
        with pytest.raises(FieldError):
            Room.from_json({**ROOM.to_json(), **bad})
