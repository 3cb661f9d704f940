"""What the benchmarks find out by looking at processes."""

from __future__ import annotations

import pytest

import launcher
from benchmarks.ours import Meter


@pytest.mark.slow
def test_the_profile_finds_the_processes_of_a_run(tmp_path):
    """A zygote is known by its command line: where that changes, all its figures would be zero."""
    meter = Meter(1, 2, sshd=0)
    launcher.multirun(lambda config: config.x, [{"x": 1}, {"x": 2}], folder=tmp_path / "run", observers=[meter])
    assert set(meter.spent()) >= {"agent", "zygote", "jobs"}
