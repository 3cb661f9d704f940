"""The GPUs of a host, in words."""

from __future__ import annotations

import dataclasses

from launcher.agents.queries.gpus import GpuHolder, GpuList, GpuProcess, HostGpu
from launcher.display.gpus import lines

NOW = 100_000.0
GPU = HostGpu(0, "GPU-a", "A100", "", 16 << 30, 3 << 20, True, None, ())
HOLDER = GpuHolder(9, "python", "alice", "r1", 3, int(NOW) - 7200)
OTHER = GpuProcess(7, "python3", "bob", 1200 << 20, False)


def _told(*gpus: HostGpu, **more: object) -> list[str]:
    return list(lines(dataclasses.replace(GpuList(gpus, "nvml", "", "", True), **more), NOW))


def test_each_gpu_has_a_line_and_each_other_process() -> None:
    """Processes of the job that has the GPU go without saying."""
    own = dataclasses.replace(OTHER, pid=9, is_of_job=True)
    assert _told(
        GPU,
        dataclasses.replace(GPU, number=1, holder=HOLDER, processes=(own, OTHER)),
        dataclasses.replace(GPU, number=2, processes=(dataclasses.replace(OTHER, used=None, name=""),), total=None),
        dataclasses.replace(GPU, number=3, uuid=""),
    ) == [
        "0  GPU-a  A100, 3 of 16,384 MiB used: free",
        "1  GPU-a  A100, 3 of 16,384 MiB used: job 3 of run r1 for 2 h (process 9 (python) of alice)",
        "     process 7 (python3) of bob, 1,200 MiB",
        "2  GPU-a  A100: not leased, in use",
        "     process 7 of bob",
        "3  cannot be read",
    ]


def test_who_has_it_may_be_known_in_part() -> None:
    """A run that has not started its job, a stranger, a process that is not visible."""
    holders = [
        dataclasses.replace(HOLDER, job=None, since=int(NOW) + 50),
        dataclasses.replace(HOLDER, run="", job=None, since=0),
        dataclasses.replace(HOLDER, pid=None, name=""),
    ]
    told = [line.partition(": ")[2] for line in _told(*(dataclasses.replace(GPU, holder=one) for one in holders))]
    assert told == [
        "about to have a job of run r1 for 1 s (process 9 (python) of alice)",
        "taken by process 9 (python) of alice, which is not a run's",
        "job 3 of run r1 for 2 h (alice)",
    ]


def test_what_is_wrong_is_told() -> None:
    """A host without GPUs, GPUs that the hosts file leaves out or that are not there, and a container."""
    assert _told() == ["no GPU"]
    assert _told(error="Driver Not Loaded") == ["no GPU (Driver Not Loaded)"]
    assert _told(
        dataclasses.replace(GPU, is_chosen=False),
        error="GPU 1: GPU is lost",
        why="GPU 9 is asked for",
        is_whole_host=False,
    ) == [
        "0  GPU-a  A100, 3 of 16,384 MiB used: free; the hosts file leaves it out",
        "warning: GPU 1: GPU is lost",
        "warning: a run cannot use this host: GPU 9 is asked for",
        "warning: leases of GPUs hold in this container only",
    ]


def test_words_of_a_host_do_no_harm() -> None:
    """They stay on their line."""
    evil = "x\n0  GPU-b: free\x1b[2J"
    bad = dataclasses.replace(HOLDER, run=evil, user=evil, name=evil)
    gpu = dataclasses.replace(
        GPU, uuid=evil, name=evil, holder=bad, processes=(dataclasses.replace(OTHER, name=evil, user=evil),)
    )
    told = _told(gpu, error=evil, why=evil)
    assert len(told) == 4
    assert not any("\n" in line or "\x1b" in line for line in told)
