"""What processes use, from one look at all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from remote_agent.system.process_use import use_of
from remote_agent.system.processes import birth
from tests.requirements import READS_PROC

pytestmark = READS_PROC

#: Holds 30 MiB, says so, and waits. With an argument it starts a child in a session of its own that does the same.
_HOLDER = """
import subprocess, sys
held = bytearray(30 << 20)
held[::4096] = b"1" * len(held[::4096])
if sys.argv[1:]:
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=0, stdout=subprocess.PIPE, start_new_session=True)
    child.stdout.readline()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own. The parameter: its arguments."""
    command = [sys.executable, "-c", _HOLDER, *request.param]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.stdin.close()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize(("holder", "least"), [([], 30), ([_HOLDER], 60)], indirect=["holder"])
def test_a_process_counts_with_its_descendants(holder: subprocess.Popen[bytes], least: int) -> None:
    """Also those in another session. What they share counts once."""
    used = use_of({holder.pid: birth(holder.pid)})[holder.pid]
    assert least << 20 <= used.memory < (least + 30) << 20
    assert used.cpu_seconds > 0


@pytest.mark.parametrize("holder", [[]], indirect=True)
def test_another_process_with_the_same_pid_is_left_out(holder: subprocess.Popen[bytes]) -> None:
    """Its pid says nothing: what began at another time is another process."""
    assert use_of({holder.pid: "1"}) == {}


@pytest.mark.parametrize("holder", [[]], indirect=True)
def test_each_process_belongs_to_the_nearest_leader(holder: subprocess.Popen[bytes]) -> None:
    """A leader below another one is not counted there, too."""
    mine = os.getpid()
    together = use_of({mine: birth(mine)})[mine].memory
    apart = use_of({mine: birth(mine), holder.pid: birth(holder.pid)})
    assert apart[mine].memory <= together - (20 << 20)
    assert apart[holder.pid].memory >= 30 << 20
