"""A lease of a GPU is a name that one process at a time can have, and that the kernel gives back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from remote_agent.system import gpu_lease
from tests.gpus import FalseGpus
from tests.requirements import READS_PROC, need_programs, need_root

pytestmark = READS_PROC

_OTHER_USER = 54321


@pytest.fixture
def gpu() -> str:
    """The name of a GPU that no other test knows."""
    return FalseGpus.new_name()


@pytest.fixture
def lease(gpu: str):
    """A lease of it, for run `r1`."""
    lease = gpu_lease.take(gpu, "r1")
    assert lease is not None
    yield lease
    lease.close()


def _squat(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("\0" + name)
    sock.listen()
    return sock


class _Child:
    """A forked process that does something, and then waits until it is killed."""

    def __init__(self, work) -> None:
        ready, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                work()
                os.write(told, b"x")
                signal.pause()
            finally:
                os._exit(0)
        os.close(told)
        assert os.read(ready, 1) == b"x"
        os.close(ready)

    def kill(self) -> None:
        """End it, and wait until it is gone."""
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


def test_one_has_it_at_a_time(gpu, lease):
    """The next one gets it when it was let go."""
    assert gpu_lease.take(gpu, "r2") is None
    lease.close()
    other = gpu_lease.take(gpu, "r2")
    assert other is not None
    other.close()


def test_a_child_that_inherits_it_has_it_as_long_as_it_lives(gpu, lease):
    """Whatever its parent does. The kernel gives it back with a SIGKILL, too."""
    child = _Child(lambda: gpu_lease.hold([lease.fileno()]))
    lease.close()
    assert gpu_lease.take(gpu, "r2") is None
    child.kill()
    other = gpu_lease.take(gpu, "r2")
    assert other is not None
    other.close()


def test_a_program_that_a_holder_starts_has_it_too(gpu, lease):
    """As long as it is not told to close what it inherits."""
    gpu_lease.hold([lease.fileno()])
    program = "import sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
    ) as child:
        assert child.stdout.read(1) == b"x"
        lease.close()
        assert gpu_lease.take(gpu, "r2") is None
        child.stdin.close()
    gpu_lease.take(gpu, "r2").close()


def test_everybody_can_read_who_has_it(gpu, lease):
    """The run at first, then its job. The process is that of the job, when that has it."""
    before = gpu_lease.holders()[gpu]
    assert (before.pid, before.uid, before.run, before.attempt) == (os.getpid(), os.geteuid(), "r1", "")
    tag = lease.tag("3.1")
    child = _Child(lambda: gpu_lease.hold([lease.fileno(), tag]))
    try:
        holder = gpu_lease.holders()[gpu]
        assert (holder.pid, holder.run, holder.attempt) == (child.pid, "r1", "3.1")
        assert holder.since >= before.since > 0
        lease.close()
        assert gpu_lease.holders()[gpu].attempt == "3.1"
    finally:
        child.kill()
    assert gpu not in gpu_lease.holders()


def test_a_stranger_on_the_name_is_named_without_a_run(gpu):
    """Also if it does not listen: then its process is not known."""
    sock = _squat("hydra-remote-launcher/gpu/" + gpu)
    assert gpu_lease.take(gpu, "r1") is None
    holder = gpu_lease.holders()[gpu]
    assert (holder.pid, holder.uid, holder.run) == (os.getpid(), os.geteuid(), "")
    sock.close()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind("\0hydra-remote-launcher/gpu/" + gpu)
        assert gpu_lease.take(gpu, "r1") is None
        assert gpu_lease.holders()[gpu][1:] == (None, None, "", "", 0)


def test_another_user_cannot_say_whose_lease_it_is(gpu, lease):
    """A tag counts only if the same user has the lease. A lease of another user is refused, and names that user."""
    need_root()
    inode = os.fstat(lease.fileno()).st_ino
    mine = FalseGpus.new_name()
    kept = []

    def lie() -> None:
        os.setgroups([])
        os.setgid(_OTHER_USER)
        os.setuid(_OTHER_USER)
        kept.append(_squat(f"hydra-remote-launcher/lease/{inode}/99999999999/false/9.9"))
        kept.append(gpu_lease.take(mine, "theirs"))
        assert gpu_lease.take(gpu, "theirs") is None

    child = _Child(lie)
    try:
        assert gpu_lease.holders()[gpu].run == "r1"
        assert gpu_lease.take(mine, "r1") is None
        assert gpu_lease.holders()[mine][1:4] == (child.pid, _OTHER_USER, "theirs")
        assert gpu_lease.user_of(_OTHER_USER) == f"user {_OTHER_USER}"
    finally:
        child.kill()


def test_many_questions_leave_room_for_more(gpu, monkeypatch):
    """The holder drops the connections of those who asked."""
    monkeypatch.setattr(gpu_lease, "_BACKLOG", 1)
    lease = gpu_lease.take(gpu, "r1")
    for _ in range(10):
        assert gpu_lease.holders()[gpu].pid == os.getpid()
        lease.drain()
    for _ in range(10):
        gpu_lease.holders()
    assert gpu_lease.holders()[gpu].pid is None
    lease.close()


def test_a_holder_that_is_known_is_not_asked_for_again(gpu, lease):
    """Only for a lease that has a job: it may get one."""
    lease.tag("3.1")
    first = gpu_lease.holders()
    known = {one.inode: one._replace(pid=1) for one in first.values()}
    assert gpu_lease.holders(known)[gpu].pid == 1


@pytest.mark.parametrize(
    "name", ["gpu/bell\a", "gpu/", "lease/1/2/3", "lease/x/1/r/1.1", "lease/1/1/r\x1b[2J/1.1", "none"]
)
def test_names_that_make_no_sense_are_left_out(gpu, lease, name):
    """They are text of anybody."""
    sock = _squat(f"hydra-remote-launcher/{name}")
    found = gpu_lease.holders()
    sock.close()
    assert found[gpu].run == "r1"
    assert all(uuid.isprintable() and uuid for uuid in found)


def test_a_container_has_leases_of_its_own(gpu, lease):
    """There the name is free, and it is known that leases do not cover the host."""
    need_root()
    assert gpu_lease.covers_host()
    unshare = need_programs("unshare")["unshare"]
    program = f"{Path(gpu_lease.__file__).read_text()}\nprint(take({gpu!r}, 'r2') is not None, covers_host())"
    there = subprocess.run(
        [unshare, "--net", sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert there.stdout.split() == ["True", "False"]
