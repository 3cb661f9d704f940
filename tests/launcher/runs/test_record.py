"""What a journal says of a run, read again."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.hosts.host_spec import HostSpec
from launcher.runs import record


@pytest.mark.parametrize("gpus", [None, 0, 2, "free", (0, "GPU-a"), ()])
def test_the_gpus_of_a_host_are_those_of_before(gpus: Any) -> None:
    """A number stays a number: it is any of them. A list of an earlier version stays a list."""
    spec = HostSpec("gpu1", "gpu1", gpus=gpus, env={"TOKEN": "t"})
    stored = json.loads(json.dumps([record._host(spec)]))
    assert record.hosts_of(SimpleNamespace(hosts=stored, run="r"), {"TOKEN": "t"}) == [spec]
