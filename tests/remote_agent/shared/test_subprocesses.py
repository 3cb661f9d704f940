"""A program that was started is ended with all that it has started, also when whoever started it is killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from remote_agent.shared.subprocesses import answer_of, end_group, start_group

#: Says the number of a child that keeps the pipe open, and waits.
PARENT = "sleep 600 & echo $!; wait"


class TestAnswerOf:
    """A small program is asked, and its absence is no error."""

    def test_both_streams_and_the_exit_code(self) -> None:
        """It reads nothing, and has the variables that are given."""
        done = answer_of(["/bin/sh", "-c", "cat; echo $HERE; echo told >&2; exit 3"], timeout=60, env={"HERE": "here"})
        assert done is not None
        assert (done.returncode, done.stdout, done.stderr) == (3, b"here\n", b"told\n")

    def test_one_that_is_not_there(self) -> None:
        """Hosts lack most of them."""
        assert answer_of(["/no/such/program"], timeout=60) is None

    def test_one_that_does_not_answer(self) -> None:
        """Nobody waits for it."""
        assert answer_of(["/bin/sh", "-c", "exec sleep 600"], timeout=0.01) is None


def test_the_children_of_a_program_end_with_it(tmp_path: Path) -> None:
    """The pipe that they hold is closed then."""
    process = start_group(["/bin/sh", "-c", PARENT], env={}, cwd=str(tmp_path))
    with process:
        assert process.stdout is not None
        assert int(process.stdout.readline())
        end_group(process)
        assert process.stdout.read() == b""
    assert process.returncode == -signal.SIGKILL
    end_group(process)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has a signal for it")
def test_a_program_dies_with_who_started_it(tmp_path: Path) -> None:
    """Also by SIGKILL, which nobody can handle."""
    code = (
        "import sys\nfrom remote_agent.shared.subprocesses import start_group\n"
        "process = start_group(['/bin/sh', '-c', 'echo here; exec sleep 600'], env={}, cwd=None)\n"
        "process.stdout.readline()\nprint(process.pid, flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        watched = os.pidfd_open(int(starter.stdout.readline()))
        try:
            starter.kill()
            # It can be read when the process has ended.
            assert select.select([watched], [], [], 60)[0]
        finally:
            os.close(watched)
