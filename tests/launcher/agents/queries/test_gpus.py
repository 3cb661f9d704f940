"""What a host says of its GPUs, which may be anything."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.agents.queries.gpus import GpuHolder, GpuProcess, HostGpu, read_gpus

HEADER: Any = {"t": "gpus_listed", "source": "nvml", "error": "", "why": "", "covers_host": True, "more": False}
PROCESS = {"pid": 7, "name": "python", "user": "bob", "used": 1 << 30, "is_of_job": False}
HOLDER = {"pid": 9, "name": "python", "user": "alice", "run": "r1", "attempt": "3.2", "since": 1000}
GPU = {
    "number": 0, "uuid": "GPU-a", "name": "A100", "parent": "", "total": 1 << 34, "used": 1 << 30, "is_chosen": True,
    "holder": HOLDER, "processes": [PROCESS, {**PROCESS, "pid": 9, "is_of_job": True}],
}  # fmt: skip


def test_what_it_says_is_read() -> None:
    """The number of the attempt is not for people."""
    found = read_gpus(HEADER, [GPU])
    theirs, own = GpuProcess(7, "python", "bob", 1 << 30, False), GpuProcess(9, "python", "bob", 1 << 30, True)
    holder = GpuHolder(9, "python", "alice", "r1", 3, 1000)
    (gpu,) = found.gpus
    assert gpu == HostGpu(0, "GPU-a", "A100", "", 1 << 34, 1 << 30, True, holder, (theirs, own))
    assert gpu.others == (theirs,)
    assert found.to_json()["gpus"][0]["holder"]["job"] == 3


@pytest.mark.parametrize(
    "item",
    [
        None,
        [],
        "x",
        {},
        {**GPU, "number": -1},
        {**GPU, "number": True},
        {**GPU, "uuid": 5},
        {**GPU, "name": None},
        {**GPU, "parent": []},
    ],
)
def test_what_is_no_gpu_is_left_out(item: Any) -> None:
    """The others are shown."""
    assert [gpu.uuid for gpu in read_gpus(HEADER, [item, GPU]).gpus] == ["GPU-a"]


@pytest.mark.parametrize("value", ["x", -1, 1.5, True, [], {}, 1 << 70])
def test_what_makes_no_sense_is_unknown(value: Any) -> None:
    """Numbers, holders and processes may each be missing."""
    more = {"total": value, "used": value, "holder": value, "processes": [value, {**PROCESS, "used": value}]}
    (gpu,) = read_gpus(HEADER, [{**GPU, **more}]).gpus
    assert (gpu.total, gpu.used, gpu.holder) == (None, None, None)
    assert [one.used for one in gpu.processes or ()] == [None]
    (gpu,) = read_gpus(
        HEADER, [{**GPU, "processes": 5, "holder": {**HOLDER, "pid": value, "since": value, "attempt": "x.1"}}]
    ).gpus
    assert (gpu.processes, gpu.holder) == (None, GpuHolder(None, "python", "alice", "r1", None, 0))
