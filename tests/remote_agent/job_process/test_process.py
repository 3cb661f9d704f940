"""Processes that a job forks work as in plain Python, and none of them acts as the job."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from remote_agent.job_process import process

APP = {
    "forking.py": """
        import atexit, multiprocessing, os, signal, sys

        def put(path):
            with open(path, "w") as file:
                file.write("whole")

        def pools(cfg):
            for _ in range(cfg.rounds):
                with multiprocessing.get_context("fork").Pool(2) as workers:
                    workers.map(abs, [-1, -2])
            return cfg.rounds

        def handlers(cfg):
            if cfg.own:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                found = [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT) is signal.default_int_handler]
                os.write(write, repr(found).encode()); os._exit(0)
            os.waitpid(pid, 0)
            return os.read(read, 1000).decode()

        def forks(cfg):
            pid = os.fork()
            if pid == 0:
                atexit.register(put, cfg.path)
                if cfg.how == "raise":
                    raise ValueError("in the child")
                if cfg.how == "exit":
                    sys.exit(3)
                return "the child's"
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    """
}


@pytest.fixture(scope="module")
def forking(new_shared_host):
    """A host with the tasks above."""
    host = new_shared_host()
    host.write(APP)
    assert host.start("forking:forks").header["t"] == "ready"
    return host


@pytest.mark.slow
def test_pools_in_a_job_end_every_time(forking):
    """SIGTERM terminates workers, and must not be handled there as in the job. Otherwise one round in fifty would hang."""
    attempt = forking.run({"rounds": 100}, task="forking:pools")
    assert attempt.part() == 100
    assert "JobTerminated" not in attempt.stderr


@pytest.mark.parametrize(("own", "seen"), [(False, "SIG_DFL"), (True, "SIG_IGN")])
def test_a_process_that_a_job_forks_has_the_handlers_of_plain_python(forking, own, seen):
    """It does not get the job's own handlers, but keeps those of the application."""
    value = forking.run({"own": own}, task="forking:handlers").part()
    assert seen in value
    assert "True" in value


@pytest.mark.parametrize(("how", "code"), [("return", 0), ("raise", 1), ("exit", 3)])
def test_a_forked_process_that_returns_is_not_the_job(forking, tmp_path, how, code):
    """It ends as in plain Python, with its atexit functions. The outcome is the job's, and is sent once."""
    attempt = forking.run({"how": how, "path": str(tmp_path / "late.txt")}, task="forking:forks")
    assert attempt.part() == code
    assert [frame.header["t"] for frame in attempt.frames] == ["outcome", "done"]
    assert (tmp_path / "late.txt").read_text() == "whole"
    assert ("ValueError: in the child" in attempt.stderr) == (how == "raise")


def test_a_job_that_cannot_be_kept_to_its_cpus_runs_on_those_there_are(monkeypatch, capfd):
    """The host's CPUs may change while a run lasts. The job's own stderr says so."""

    def refuse(pid: int, cpus: list[int]) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(process.sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    process.keep_to([5])
    assert "cannot keep the job to CPUs [5]" in capfd.readouterr().err
    process.keep_to([])


#: Calls a task once for each line that runs between its end and the end of `reclaim`, and raises there, as a signal handler may.
_RAISES_ANYWHERE = """
import sys
from remote_agent.job_process.process import SignalGate

def outcome_of(fails, place):
    state = {"left": place, "is_after": False, "was_raised": False}
    gate = SignalGate()
    whole = gate.reclaim

    def reclaim():
        whole()
        sys.settrace(None)

    gate.reclaim = reclaim

    def task():
        state["is_after"] = True
        if fails:
            raise ValueError("of the task")
        return "value"

    def trace(frame, event, argument):
        if frame.f_code.co_name not in ("call_task", "_reclaim_surely", "reclaim"):
            return None
        if event == "line" and state["is_after"]:
            if not state["left"]:
                state["was_raised"] = True
                raise RuntimeError("of a handler")
            state["left"] -= 1
        return trace

    sys.settrace(trace)
    try:
        return gate.call_task(task, (), {}), state["was_raised"]
    finally:
        sys.settrace(None)

for fails in (False, True):
    place, was_raised = 0, True
    while was_raised:
        (value, raised), was_raised = outcome_of(fails, place)
        assert (value, repr(raised)) == ((None, repr(ValueError("of the task"))) if fails else ("value", "None")), place
        place += 1
    print(place)
"""


@pytest.mark.slow
def test_a_handler_that_raises_anywhere_after_the_task_changes_nothing() -> None:
    """Whichever line it interrupts, of what runs until no handler can raise any more."""
    done = subprocess.run([sys.executable, "-c", _RAISES_ANYWHERE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(int(places) > 5 for places in done.stdout.split())
