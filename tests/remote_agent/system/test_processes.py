"""Finding and killing processes: with /proc as on Linux, and with `ps` as on systems without it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_agent.system import processes
from tests.requirements import READS_PROC, need_programs


@pytest.fixture(params=[pytest.param("proc", marks=READS_PROC), "ps"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of the two is used."""
    need_programs("ps")
    monkeypatch.setattr(processes, "_HAS_PROC", request.param == "proc")
    if request.param == "ps":
        monkeypatch.setattr(processes, "_token_of", lambda pid: None)
    return str(request.param)


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[bytes]]:
    """A shell in its own session, with a child that ignores SIGTERM."""
    process = subprocess.Popen(
        ["sh", "-c", "sleep 600 & echo $!; wait"],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield process
    processes.kill_whole(process.pid, processes.birth(process.pid), "no such token")
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def child_of(leader: subprocess.Popen[bytes]) -> int:
    """The shell's child, when it exists."""
    assert leader.stdout is not None
    return int(leader.stdout.readline())


def test_a_process_is_identified_by_its_pid_and_start(leader):
    """The same pid with another start is another process."""
    started = processes.birth(leader.pid)
    assert started
    assert processes.is_alive(leader.pid, started)
    assert not processes.is_alive(leader.pid, started + "1")


def test_a_process_that_has_ended_is_not_alive():
    """Nor is a zombie."""
    process = subprocess.Popen(["sh", "-c", "read line"], stdin=subprocess.PIPE)
    started = processes.birth(process.pid)
    assert processes.is_alive(process.pid, started)
    assert process.stdin is not None
    process.stdin.close()
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not processes.is_alive(process.pid, started)
    process.wait()
    assert processes.birth(process.pid) == ""
    assert processes.age(process.pid) is None


def test_the_age_of_a_process_is_in_seconds(leader):
    """With `ps` it is exact to a second or two."""
    age = processes.age(leader.pid)
    assert age is not None
    assert 0 <= age < 300


def test_a_session_and_its_descendants_are_found_and_killed(leader):
    """Even one that left the session, as long as its parent lives."""
    inside = child_of(leader)
    started = processes.birth(leader.pid)
    assert set(processes.members("no such token", leader.pid, started)) == {leader.pid, inside}
    assert processes.members("no such token", leader.pid, started + "1") == []
    assert processes.kill_whole(leader.pid, started, "no such token") >= 2
    leader.wait()
    assert processes.members("no such token", leader.pid, started) == []


def test_a_descendant_in_a_session_of_its_own_is_found(leader):
    """By its parent."""
    program = "import os, sys; os.setsid(); print(os.getpid(), flush=True); sys.stdin.read()"
    outer = subprocess.Popen(
        ["sh", "-c", f'"{sys.executable}" -c "{program}"; true'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert outer.stdout is not None
    assert outer.stdin is not None
    inner = int(outer.stdout.readline())
    assert inner in processes.members("no such token", outer.pid, processes.birth(outer.pid))
    outer.stdin.close()
    outer.wait()
    outer.stdout.close()


def test_the_writer_of_a_stream_is_found(tmp_path: Path):
    """The leader of a session whose stdout is that file."""
    need_programs("lsof")
    stream = tmp_path / "stdout"
    with stream.open("wb") as file:
        process = subprocess.Popen(
            ["sh", "-c", "read line"], stdin=subprocess.PIPE, stdout=file, start_new_session=True
        )
    assert processes.holder_of(str(stream)) == process.pid
    assert processes.holder_of(str(tmp_path / "another")) is None
    assert process.stdin is not None
    process.stdin.close()
    process.wait()
