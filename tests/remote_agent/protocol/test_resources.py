"""What a job needs and what a host has, as it is sent."""

from __future__ import annotations

import pytest

from remote_agent.protocol.fields import FieldError
from remote_agent.protocol.resources import Resources


def test_what_is_left_out_is_none():
    """A later version may know more of them, which this one ignores."""
    assert Resources.from_json({"cpus": 4, "fast_disks": 2}) == Resources(0, 4, 0)


@pytest.mark.parametrize("data", [{"gpus": -1}, {"cpus": 1.5}, {"memory": "8GiB"}, {"gpus": True}, None])
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
    ],
)
def test_messages_show_what_there_is(resources, text):
    """What is not asked for is not mentioned."""
    assert resources.shown() == text
