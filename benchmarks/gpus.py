"""What the lease of a GPU costs a job: taking it, saying which job has it, and giving it back.

Rule: the lease is a real one, under a name that no GPU has.
"""

import statistics
import time
import uuid
from unittest import mock

from benchmarks.suites import Bench
from remote_agent.agent.resources.gpus import GpuPool
from remote_agent.system import gpus as system_gpus
from remote_agent.system.background import BackgroundThread
from remote_agent.system.gpus import Gpu, Survey

__all__ = ["gpus"]


def gpus(bench: Bench) -> None:
    """The lease of a GPU: milliseconds of the agent for each job."""
    background = BackgroundThread(lambda: None)
    pool = GpuPool("20260101-000000-0000", print, background)
    there = Survey([Gpu(f"GPU-{uuid.uuid4()}", "", "", None, None, [])], "nvml", "")
    with mock.patch.object(system_gpus, "survey", return_value=there):
        pool.choose(None)
    seconds = []
    for number in range(100 if bench.is_quick else 5_000):
        began = time.perf_counter()
        taken = pool.take(1)
        if taken is None:
            raise SystemExit("the GPU could not be leased")
        pool.descriptors(taken, f"{number}.1")
        pool.release(taken)
        seconds.append(time.perf_counter() - began)
    background.stop()
    bench.add("a lease of a GPU, ms for each job", statistics.median(seconds) * 1000, 1, less_is_better=True)
