"""A worker takes job after job, each with its own hooks, output and signals, and ends when nobody has another one."""

from __future__ import annotations

import os
import signal

import cloudpickle
import pytest

from remote_agent.protocol import wire
from tests.remote_agent.agents import wait_gone
from tests.remote_agent.conftest import Host
from tests.remote_agent.zygote import reused_app
from tests.remote_agent.zygote.reused import reused_host, start_reused

__all__ = ["reused_host"]

HOOK = {"name": "hook", "spec": {"_target_": "reused_app.Hook"}, "pickle": None, "why": "a test", "on_error": None}


def test_each_job_has_its_callbacks_as_the_controller_sent_them(host: Host) -> None:
    """What a hook has set on its callback in one job is gone in the next."""
    start_reused(host, [HOOK])
    attempt = host.wait_over(host.submit())
    for _ in range(2):
        attempt = host.wait_over(host.submit(after=attempt))
        assert attempt.stdout == "end 1 COMPLETED\n"
        assert attempt.entered == [("on_job_start", "hook"), ("on_job_end", "hook")]


@pytest.mark.slow
def test_a_callback_that_cannot_be_made_again_ends_the_worker(host: Host) -> None:
    """The job completes with its hooks, and the next job gets a fork."""
    start_reused(host, [{**HOOK, "spec": {"_target_": "reused_app.Unpicklable"}}])
    attempt = host.wait_over(host.submit())
    assert attempt.stdout == "end 1 COMPLETED\n"
    assert not attempt.is_idle


@pytest.mark.slow
def test_a_callback_without_job_hooks_ends_no_worker(host: Host) -> None:
    """No job can change it, whether it can be pickled or not."""
    plain = {"name": "plain", "spec": None, "pickle": cloudpickle.dumps(complex(1, 2)), "why": "", "on_error": None}
    start_reused(host, [plain])
    assert host.wait_over(host.submit()).is_idle


def test_globals_are_shared(reused_host: Host) -> None:
    """This is what jobs in one worker share: modules, their globals, and random numbers."""
    attempt = reused_host.wait_over(reused_host.submit({"do": "nothing"}))
    reused_host.write({"reused_later.py": "def task(cfg):\n    import reused_app\n    return len(reused_app.kept)\n"})
    payload = reused_host.payload({}, task="reused_later:task")
    attempt = reused_host.wait_over(reused_host.submit(payload=payload, after=attempt))
    assert attempt.part() == 1


def test_a_signal_for_the_last_job_does_not_reach_the_next(reused_host: Host) -> None:
    """SIGTERM to a worker that waits does nothing."""
    attempt = reused_host.wait_over(reused_host.submit({}))
    assert attempt.pid is not None
    os.kill(attempt.pid, signal.SIGTERM)
    os.kill(attempt.pid, signal.SIGINT)
    attempt = reused_host.wait_over(reused_host.submit({}, after=attempt))
    assert attempt.envelope["status"] == "COMPLETED"
    assert attempt.is_idle


def test_a_signal_that_is_announced_for_a_job_reaches_it(reused_host: Host) -> None:
    """If it arrives before the worker has begun the job, too. What was announced for the last job counts no more."""
    attempt = reused_host.wait_over(reused_host.submit({}))
    assert attempt.pid is not None
    stale = {"t": "cancel", "attempts": [attempt.name], "kind": "timeout", "kill": False, "why": ""}
    attempt.sock.send(wire.encode(stale))
    attempt = reused_host.wait_over(reused_host.submit({}, after=attempt))
    assert attempt.envelope["status"] == "COMPLETED"

    os.kill(attempt.pid, signal.SIGSTOP)
    cancelled = reused_host.submit({}, after=attempt)
    cancelled.sock.send(wire.encode({**stale, "attempts": [cancelled.name], "kind": "cancelled"}))
    os.kill(attempt.pid, signal.SIGTERM)
    os.kill(attempt.pid, signal.SIGCONT)
    reused_host.wait_over(cancelled)
    assert cancelled.error["kind"] == "cancelled"


@pytest.mark.parametrize("how", ["socket", pytest.param("agent", marks=pytest.mark.slow)])
def test_a_worker_ends_when_nobody_has_another_job(new_host, how: str) -> None:
    """If its socket is closed, or the agent is gone. The zygote ends after it."""
    host = start_reused(new_host())
    attempt = host.wait_over(host.submit({}))
    assert attempt.pid is not None
    assert host.process is not None
    if how == "agent":
        host.process.kill()
    attempt.sock.close()
    attempt.eof = True
    wait_gone(attempt.pid, "the worker")
    if how == "socket":
        host.wait(lambda: attempt.status is not None)
        assert attempt.status == 0


def test_a_worker_whose_agent_is_gone_writes_the_result_of_its_job_to_a_file(reused_host: Host) -> None:
    """This holds for its second job as for its first: the file has that job's frames only. Then it ends."""
    attempt = reused_host.wait_over(reused_host.submit({}))
    assert attempt.pid is not None
    os.kill(attempt.pid, signal.SIGSTOP)
    orphaned = reused_host.submit({}, after=attempt)
    orphaned.sock.close()
    orphaned.eof = True
    os.kill(attempt.pid, signal.SIGCONT)
    wait_gone(attempt.pid, "the worker")
    frames = wire.Decoder().feed((reused_host.spool / f"orphan-{orphaned.name}").read_bytes())
    assert [frame.header["t"] for frame in frames] == ["outcome", "done"]
    assert not (reused_host.spool / f"orphan-{attempt.name}").exists()


@pytest.mark.slow
def test_what_a_worker_prints_between_two_jobs_goes_to_the_zygotes_log(host: Host) -> None:
    """Such as what the application has given to `atexit` at its import. The output of the last job stays as it was."""
    start_reused(host, environ={"AT_EXIT": "printed at the end"})
    attempt = host.wait_over(host.submit({"do": "nothing"}))
    assert attempt.pid is not None
    attempt.sock.close()
    attempt.eof = True
    wait_gone(attempt.pid, "the worker")
    assert attempt.stdout.splitlines()[0] == "printed"
    assert "printed at the end" not in attempt.stdout
    assert "printed at the end" in host.log.read_text()


@pytest.mark.slow
def test_a_worker_whose_end_hangs_is_killed(host: Host) -> None:
    """After the `shutdown_timeout` of its last job: nobody watches it any more."""
    start_reused(host, environ={"AT_EXIT": "hang"})
    attempt = host.wait_over(host.submit({}, spec={"shutdown_timeout": 0.1}))
    assert attempt.is_idle
    attempt.sock.close()
    attempt.eof = True
    host.wait(lambda: attempt.status is not None)
    assert attempt.status == signal.SIGALRM
    assert host.process is not None
    host.process.kill()  # it has imported the application, so its own end hangs, too


@pytest.mark.slow
def test_a_worker_imports_an_application_that_must_not_be_forked(host: Host) -> None:
    """Each worker imports it once, in its first job, and its threads end no worker."""
    host.write(
        {"reused_app.py": "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"}
    )
    host.write(
        {
            "threaded.py": "import os, reused_app\nimported_by = os.getpid()\ndef task(cfg): return imported_by, os.getpid()\n"
        }
    )
    ready = host.start("threaded:task", isolation="reuse", main_module="threaded")
    assert ready.header["isolation"] == "reuse"
    assert "every worker imports it" in ready.header["why"]
    attempt = host.wait_over(host.submit())
    first = attempt.part()
    attempt = host.wait_over(host.submit(after=attempt))
    assert attempt.part() == first == (attempt.pid, attempt.pid)


@pytest.mark.slow
def test_workers_serve_under_other_pythons(new_host, python) -> None:
    """Under the oldest and the newest Python for hosts."""
    host = start_reused(new_host(python), [HOOK])
    attempt = host.wait_over(host.submit({"do": "loggers"}))
    for change in reused_app.CHANGES:
        attempt = host.wait_over(host.submit({"do": change.__name__}, after=attempt))
        assert (attempt.envelope["error"], attempt.is_idle) == (None, True), change.__name__
