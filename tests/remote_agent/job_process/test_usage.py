"""What a job has used, as its own process tells."""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from remote_agent.job_process import usage
from remote_agent.job_process.usage import UsageWatch, lifetime

_MIB = 1 << 20


def told(cpu: float = 0.0, peak: int = 0, faults: int = 0) -> Any:
    """What the system says of processes. `peak`: MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return SimpleNamespace(ru_utime=cpu / 2, ru_stime=cpu / 2, ru_maxrss=peak * _MIB // unit, ru_minflt=faults)


class _System:
    """The system says what a test wants: of this process, and of its children."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.own, self.children = told(), told()
        self.may_forget = False
        monkeypatch.setattr(
            resource, "getrusage", lambda who: self.own if who == resource.RUSAGE_SELF else self.children
        )
        monkeypatch.setattr(usage, "_forget_peak", self._forget)
        monkeypatch.setattr(UsageWatch, "_has_had_one", False)

    def _forget(self) -> bool:
        if self.may_forget:
            self.own.ru_maxrss = told(peak=1).ru_maxrss
        return self.may_forget


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> _System:
    """A process without a job so far."""
    return _System(monkeypatch)


def test_the_first_job_of_a_process_has_all_that_it_used(system: _System) -> None:
    """Its process is the job's alone. Children that it waited for count, too."""
    watch = UsageWatch()
    system.own, system.children = told(1.0, 100, 5), told(2.0, 300, 5)
    used = watch.used(1.5)
    assert (used.wall_seconds, used.cpu_seconds, used.peak_memory) == (1.5, 3.0, 300 * _MIB)


def test_a_later_job_has_the_difference(system: _System) -> None:
    """Where the kernel forgets the peak, that of the job before is gone."""
    UsageWatch()
    system.own, system.children, system.may_forget = told(1.0, 500, 5), told(2.0, 100, 5), True
    watch = UsageWatch()
    system.own = told(1.25, 40, 9)
    used = watch.used(1.0)
    assert (used.cpu_seconds, used.peak_memory, watch.spent) == (0.25, 40 * _MIB, 3.25)


@pytest.mark.parametrize(("peak", "expected"), [(500, None), (501, 501 * _MIB)])
def test_a_peak_that_is_not_forgotten_counts_only_if_it_grew(system: _System, peak: int, expected: int | None) -> None:
    """Otherwise it may be that of the job before, and nobody knows what this one had."""
    UsageWatch()
    system.own = told(1.0, 500)
    watch = UsageWatch()
    system.own = told(2.0, peak)
    assert watch.used(1.0).peak_memory == expected


@pytest.mark.parametrize(
    ("children", "expected"),
    [
        (told(2.0, 300, 5), 40 * _MIB),  # it has waited for none
        (told(3.0, 300, 9), None),  # one of an earlier job hides them
        (told(3.0, 400, 9), 400 * _MIB),
    ],
)
def test_children_of_an_earlier_job_do_not_count(system: _System, children: Any, expected: int | None) -> None:
    """The system keeps one peak for all children that a process ever waited for."""
    UsageWatch()
    system.own, system.children, system.may_forget = told(1.0, 10, 5), told(2.0, 300, 5), True
    watch = UsageWatch()
    system.own, system.children = told(1.0, 40, 9), children
    assert watch.used(1.0).peak_memory == expected


def test_the_kernel_forgets_the_peak_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this very process, by what its system offers: the large one comes first, and the small one has no more than is there now."""
    monkeypatch.setattr(UsageWatch, "_has_had_one", True)
    first = UsageWatch()
    # Memory of its own, which goes back to the system at once.
    held = mmap.mmap(-1, 64 * _MIB)
    held[:] = b"1" * (64 * _MIB)
    large = first.used(1.0).peak_memory
    held.close()
    small = UsageWatch().used(1.0).peak_memory
    if sys.platform == "linux":
        assert large is not None
        assert small is not None
        assert small <= large - 32 * _MIB
    else:
        assert small is None


def test_what_a_process_used_in_all_its_life() -> None:
    """As the system says when it has ended. What this process has counts: the new one begins as its copy."""
    process = subprocess.Popen([sys.executable, "-c", f"held = b'1' * {64 * _MIB}"])
    _, _, said = os.wait4(process.pid, 0)
    process.returncode = 0
    used = lifetime(said)
    assert used.peak_memory is not None
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    assert 64 * _MIB <= used.peak_memory < 200 * _MIB + own
    assert used.cpu_seconds is not None
    assert used.cpu_seconds > 0
    assert used.wall_seconds is None
