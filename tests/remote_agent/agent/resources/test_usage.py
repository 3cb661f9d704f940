"""What jobs use, as the agent puts it together."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from remote_agent.agent.resources import usage
from remote_agent.agent.resources.usage import EVERY, FIRST, UsageWatch, since, with_usage
from remote_agent.agent.spool.attempt import Attempt
from remote_agent.agent.spool.log import Reference
from remote_agent.job import ResourcesUsed
from remote_agent.system.gpus import GpuUse
from remote_agent.system.process_use import ProcessUse
from remote_agent.system.processes import birth
from tests.remote_agent.agents import AgentHost
from tests.requirements import READS_PROC
from tests.specs import envelope, job_spec

GIB = 1 << 30


def running(**fields: Any) -> Attempt:
    """An attempt whose process is this one."""
    attempt = Attempt(job_spec()._replace(attempt=1))
    attempt.state, attempt.begun_at = "running", 0.0
    attempt.pid, attempt.pid_started = os.getpid(), birth(os.getpid())
    for name, value in fields.items():
        setattr(attempt, name, value)
    return attempt


def _wait() -> None:
    """Wait for a look that is under way."""
    for thread in threading.enumerate():
        if thread.name == "usage":
            thread.join()


class _Worker:
    spent, peak_memory = 10.0, 2 * GIB


class _Attempts:
    def __init__(self, *attempts: Attempt) -> None:
        self._attempts = list(attempts)

    def active(self) -> list[Attempt]:
        return self._attempts


class _Looks:
    """Looks show what a test wants. `count`: how many there were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.use = ProcessUse(1.0, GIB)
        self.gpus: dict[str, GpuUse] = {}
        self.count = 0
        self.gate = threading.Event()
        self.gate.set()
        monkeypatch.setattr(usage, "use_of", self._use_of)
        monkeypatch.setattr(
            usage, "gpu_use", lambda uuids: {uuid: self.gpus[uuid] for uuid in uuids if uuid in self.gpus}
        )

    def _use_of(self, leaders: dict[int, str]) -> dict[int, ProcessUse]:
        self.count += 1
        self.gate.wait()
        return dict.fromkeys(leaders, self.use)

    def look(self, watch: UsageWatch, now: float) -> None:
        """Make the watch look, and take in what it has seen."""
        before = self.count
        watch.tick(now)
        _wait()
        assert self.count == before + 1
        watch.tick(now + 1.0)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> _Looks:
    """What looks show."""
    return _Looks(monkeypatch)


def told(attempt: Attempt, **said: Any) -> ResourcesUsed:
    """What is known of an attempt whose process has said this."""
    own = ResourcesUsed(**said).to_json() if said else None
    used = with_usage(attempt, envelope(duration=3.0, resources_used=own), lambda sha256: sha256).resources_used
    assert used is not None
    return used


def test_what_a_look_saw_counts_where_it_is_more(looks: _Looks) -> None:
    """A job's process does not know of children that it has not waited for, and the system not of all together."""
    attempt = running()
    looks.look(UsageWatch(_Attempts(attempt)), FIRST)  # type: ignore[arg-type]
    more = told(attempt, cpu_seconds=2.0, peak_memory=GIB // 2)
    assert (more.cpu_seconds, more.peak_memory, more.wall_seconds) == (2.0, GIB, 3.0)
    less = told(attempt, cpu_seconds=0.5, peak_memory=2 * GIB, wall_seconds=2.5)
    assert (less.cpu_seconds, less.peak_memory, less.wall_seconds) == (1.0, 2 * GIB, 2.5)
    assert told(running()) == ResourcesUsed(wall_seconds=3.0)


def test_a_job_that_died_has_what_its_zygote_saw() -> None:
    """Its process could not say it any more."""
    attempt = running()
    attempt.seen.at_death = since(attempt, ResourcesUsed(cpu_seconds=4.0, peak_memory=GIB))
    assert (told(attempt).cpu_seconds, told(attempt).peak_memory) == (4.0, GIB)


@pytest.mark.parametrize(("peak", "expected"), [(GIB, None), (3 * GIB, 3 * GIB)])
def test_a_worker_that_died_says_of_its_last_job_what_can_be_told_apart(peak: int, expected: int | None) -> None:
    """CPU time is a difference. A peak that an earlier job may have had is not known."""
    died_with = ResourcesUsed(cpu_seconds=12.5, peak_memory=peak)
    assert since(running(is_reused=True, worker=_Worker()), died_with) == ResourcesUsed(
        cpu_seconds=2.5, peak_memory=expected
    )
    assert since(running(is_reused=True, worker=None), died_with) is None


def test_gpus_have_the_mean_of_all_looks_and_the_peak_of_all_gpus_together(looks: _Looks) -> None:
    """As NVML says. One that does not answer makes neither of them known."""
    attempt = running(gpus=["a", "b"])
    watch = UsageWatch(_Attempts(attempt))  # type: ignore[arg-type]
    looks.look(watch, FIRST)
    assert (told(attempt).gpu_share, told(attempt).peak_gpu_memory) == (None, None)
    looks.gpus = {"a": GpuUse(1.0, 3), "b": GpuUse(0.5, 4)}
    looks.look(watch, FIRST + 100_000.0)
    looks.gpus = {"a": GpuUse(0.25, 1), "b": GpuUse(None, 1)}
    looks.look(watch, FIRST + 200_000.0)
    assert (told(attempt).gpu_share, told(attempt).peak_gpu_memory) == (0.5, 7)


def test_looks_are_seldom_and_wait_for_nobody(looks: _Looks) -> None:
    """None before the job is some seconds old, none while one is under way, and then a pause."""
    attempt = running(begun_at=100.0)
    watch = UsageWatch(_Attempts(attempt))  # type: ignore[arg-type]
    watch.tick(100.0 + FIRST - 0.1)
    assert looks.count == 0
    looks.gate.clear()
    watch.tick(110.0)
    for second in range(111, 120):
        watch.tick(float(second))
    looks.gate.set()
    _wait()
    watch.tick(121.0)
    watch.tick(121.0 + EVERY - 0.1)
    _wait()
    assert looks.count == 1
    # However long the last one took here.
    looks.look(watch, 100_000.0)


def test_a_look_at_a_worker_that_has_another_job_by_now_counts_for_none(looks: _Looks) -> None:
    """What was seen may be either's."""
    attempt = running(worker=_Worker(), is_reused=True)
    looks.use = ProcessUse(10.75, GIB)
    looks.look(UsageWatch(_Attempts(attempt)), FIRST)  # type: ignore[arg-type]
    assert told(attempt).cpu_seconds == 0.75
    looks.gate.clear()
    other = running()
    watch = UsageWatch(_Attempts(other))  # type: ignore[arg-type]
    watch.tick(FIRST)
    other.pid = 1
    looks.gate.set()
    _wait()
    watch.tick(FIRST + 2.0)
    assert told(other).peak_memory is None


def test_the_bytes_that_were_sent_are_those_of_the_job_alone(tmp_path) -> None:
    """In its message, or in a content of its own."""
    blob = tmp_path / "blob"
    blob.write_bytes(b"12345")
    assert told(running(payload=Reference(0, 10, 77))).bytes_in == 77
    assert told(running(payload=Reference(0, 10, 0), payload_blob=str(blob))).bytes_in == 5
    assert told(running(payload_blob=str(tmp_path / "none"))).bytes_in is None


@pytest.mark.parametrize("isolation", ["fork", pytest.param("reuse", marks=READS_PROC)])
@pytest.mark.slow
def test_each_job_of_a_real_agent_says_what_it_used(new_agent, isolation: str) -> None:
    """A large one, a small one after it, and one that is killed."""
    host: AgentHost = new_agent(isolation=isolation)
    client = host.connect()
    attempts = [
        host.job(client, 0, do="hold", size=64 << 20),
        host.job(client, 1),
        host.job(client, 2, do="signal", signal=9),
    ]
    large, small, killed = (client.result(attempt).header["envelope"]["resources_used"] for attempt in attempts)
    assert large["peak_memory"] >= 64 << 20
    assert small["peak_memory"] <= large["peak_memory"] - (32 << 20)
    assert small["cpu_seconds"] < small["wall_seconds"] + 5
    assert killed["cpu_seconds"] > 0
    assert ("peak_memory" in killed) == (isolation == "fork")
    assert all(one["bytes_in"] > 0 for one in (large, small, killed))
