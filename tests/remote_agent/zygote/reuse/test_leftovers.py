"""What a job leaves in its process ends a worker, with the end that any job's process has."""

from __future__ import annotations

import os
import signal

import pytest

from tests.remote_agent.conftest import Host
from tests.remote_agent.zygote import reused_app
from tests.remote_agent.zygote.reused import reused_host

__all__ = ["reused_host"]

#: What the end of a process completes: (what the job does, file, its content; empty: any).
_COMPLETED = {
    "open_file": ("file.txt", "written"),
    "object_with_end": ("finished.txt", "finished"),
    "compressed": ("file.gz", ""),
}


@pytest.mark.parametrize("left", [one.__name__ for one in reused_app.LEAVES])
def test_what_a_job_leaves_ends_its_worker(reused_host: Host, left: str) -> None:
    """The job completes, and its process ends as Python ends. What was to be written then is written."""
    attempt = reused_host.wait_over(reused_host.submit({"do": left}, chdir=True))
    for file in attempt.output_dir.glob("grandchild.pid"):
        os.kill(int(file.read_text()), signal.SIGKILL)
    assert attempt.envelope["status"] == "COMPLETED"
    assert not attempt.is_idle
    assert attempt.status == 0
    if left in _COMPLETED:
        name, content = _COMPLETED[left]
        assert (attempt.output_dir / name).stat().st_size
        assert not content or attempt.file(name) == content
    if left == "exit_function":
        assert attempt.stdout == "at exit\n"


@pytest.mark.slow
def test_a_job_that_leaves_nothing_does_not_end_it(reused_host: Host) -> None:
    """It may print, log, write files, and wait for threads and processes of its own."""
    attempt = reused_host.wait_over(reused_host.submit({"do": "nothing"}))
    pids = {attempt.part()[0]}
    for _ in range(5):
        attempt = reused_host.wait_over(reused_host.submit({"do": "nothing"}, after=attempt))
        pids.add(attempt.part()[0])
    assert attempt.is_idle
    assert len(pids) == 1
