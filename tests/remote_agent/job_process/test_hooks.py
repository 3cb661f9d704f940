"""The job hooks on a host: process, order, announcements, policies, and end hooks that edit the result."""

from __future__ import annotations

import os
import pickle
import signal

import pytest

from tests.remote_agent.job_process.fired import ENDS, STARTS, fired


def test_job_hooks_fire_in_order_in_the_jobs_process(hooked):
    """Start hooks in order, the application, end hooks in reverse. Each is announced before."""
    attempt = hooked.run({"x": 4})
    pid = attempt.pid
    lines = [line for line in attempt.stdout.splitlines() if "task" not in line]
    assert lines == [
        *(f"{name}.start {pid}" for name in "abc"),
        f"application {pid}",
        "endonly COMPLETED app",
        *(f"{name}.end {pid}" for name in "cba"),
    ]
    # The one that has no on_job_start is owed its end from the beginning, and the agent knows.
    assert attempt.entered == STARTS + ENDS
    assert fired(attempt) == [(*one, True) for one in STARTS[1:] + ENDS]
    assert attempt.part() == 4
    kinds = [frame.header["t"] for frame in attempt.frames]
    assert kinds == ["hook"] * 4 + ["state", "outcome"] + ["hook"] * 4 + ["done"]
    assert attempt.frame("done").header["parts"] == {"same": True}
    assert attempt.frame("done").payload == b""
    assert "task task" in attempt.stdout


@pytest.mark.parametrize(
    ("config", "kind"), [({"act": "raise"}, "exception"), ({"act": "exit"}, "exited"), ({"act": "lock"}, "unpicklable")]
)
def test_end_hooks_fire_after_failures(hooked, config, kind):
    """After an exception, an exit, and a value that cannot be pickled. The hook sees a FAILED JobReturn."""
    attempt = hooked.run({**config, "do": {"a.end": "show"}})
    assert attempt.error["kind"] == kind
    assert attempt.entered == STARTS + ENDS
    assert "endonly FAILED app" in attempt.stdout
    assert "JR FAILED app" in attempt.stdout


def test_an_end_hook_sees_the_complete_job_return(hooked):
    """Every field is set."""
    attempt = hooked.run(
        {"x": 1, "do": {"a.end": "show"}}, overrides=["x=1"], num=5, job_id="r_5", spec={"num": 5, "job_id": "r#5"}
    )
    assert (
        f"JR COMPLETED app 5 r#5 gpu1 {hooked.code} ['x=1'] {{'x': 1, 'do': {{'a.end': 'show'}}}} 5 None True"
        in attempt.stdout
    )


def test_edits_by_a_start_hook_do_not_reach_the_application(hooked):
    """As in Hydra, whose run_job copies the config before."""
    attempt = hooked.run({"x": 1, "do": {"a.start": "edit", "b.start": "seen"}})
    assert attempt.part() == 1
    assert "DictConfig" in attempt.stdout


def test_env_set_covers_the_start_hook_and_the_application(hooked):
    """As in Hydra. chdir covers both hooks."""
    attempt = hooked.run({"do": {"a.start": "seen", "a.end": "seen"}}, env_set={"FROM_JOB": "1"}, chdir=True)
    where = attempt.output_dir
    assert f"env 1 cwd {where}" in attempt.stdout
    assert f"env None cwd {where}" in attempt.stdout


# -- hooks that raise ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["raise", "exit"])
@pytest.mark.parametrize("hook", ["start", "end"])
def test_after_a_hook_with_policy_warn_the_job_goes_on(hooked, hook, act):
    """The envelope has the record, and the job's log the traceback. Nothing else changes."""
    attempt = hooked.run({"x": 1, "do": {f"a.{hook}": act}})
    assert attempt.envelope["status"] == "COMPLETED"
    assert attempt.part() == 1
    bad = [record for record in attempt.envelope["hooks"] if not record["ok"]]
    assert [(record["hook"], record["callback"], record["on_error"]) for record in bad] == [
        (f"on_job_{hook}", "a", "warn")
    ]
    assert "Traceback" in bad[0]["error"]["traceback"]
    assert f"Callback a.on_job_{hook} raised" in attempt.log
    assert attempt.entered == STARTS + ENDS


@pytest.mark.parametrize(("name", "abort"), [("b", None), ("c", "c")])
def test_fail_and_abort_in_a_start_hook(hooked, name, abort):
    """The application does not run. The other start hooks and all end hooks do."""
    attempt = hooked.run({"x": 1, "do": {f"{name}.start": "raise"}})
    assert attempt.error["kind"] == "hook"
    assert attempt.error["type"] == "ValueError"
    assert attempt.error["message"] == f"{name}.on_job_start: {name} in start"
    assert "Traceback" in attempt.error["traceback"]
    assert attempt.envelope["abort"] == abort
    assert "application" not in attempt.stdout
    assert attempt.entered == STARTS + ENDS


@pytest.mark.parametrize(("name", "abort"), [("b", None), ("c", "c")])
def test_fail_and_abort_in_an_end_hook(hooked, name, abort):
    """The job becomes FAILED, though its outcome was COMPLETED."""
    attempt = hooked.run({"x": 1, "do": {f"{name}.end": "raise"}})
    assert attempt.frame("outcome").header["envelope"]["status"] == "COMPLETED"
    assert attempt.envelope["status"] == "FAILED"
    assert attempt.error["kind"] == "hook"
    assert attempt.envelope["abort"] == abort
    with pytest.raises(KeyError):
        attempt.part()


def test_the_applications_failure_stays_the_error(hooked):
    """A hook that fails later does not hide it."""
    attempt = hooked.run({"act": "raise", "do": {"b.end": "raise"}})
    assert (attempt.error["kind"], attempt.error["type"]) == ("exception", "KeyError")


# -- end hooks that edit ---------------------------------------------------------------------------------------------


def test_an_end_hook_can_edit_the_result(hooked):
    """A new value, a value changed in place, a replaced config: the final result has them, the outcome did not."""
    attempt = hooked.run({"x": 4, "do": {"b.end": "double"}})
    assert attempt.part() == 8
    assert pickle.loads(attempt.frame("outcome").payload) == 4
    assert hooked.run({"act": "list", "do": {"b.end": "grow"}}).part() == [1, "grown"]
    attempt = hooked.run({"act": "list", "do": {"b.end": "cfg"}})
    assert attempt.part("cfg") == {"replaced": True}
    assert attempt.part() == [1]
    assert hooked.run({"act": "list"}).frame("done").header["parts"] == {"same": True}


def test_an_end_hook_can_edit_the_status(hooked):
    """To COMPLETED, to FAILED, and to nonsense, which is corrected."""
    attempt = hooked.run({"act": "raise", "do": {"a.end": "forgive"}})
    assert attempt.envelope["status"] == "COMPLETED"
    assert attempt.envelope["error"] is None
    assert attempt.part() == "forgiven"
    attempt = hooked.run({"x": 1, "do": {"a.end": "condemn"}})
    assert attempt.error["kind"] == "hook"
    attempt = hooked.run({"x": 1, "do": {"a.end": "nonsense"}})
    assert attempt.error["kind"] == "hook"
    assert "set the status to fine" in attempt.log
    attempt = hooked.run({"x": 1, "do": {"a.end": "stuff"}})
    assert attempt.error["kind"] == "unpicklable"


def test_end_hooks_of_a_job_that_sigterm_ended_fire_in_the_job(hooked):
    """No epilogue is needed."""
    attempt = hooked.submit({"act": "wait"})
    hooked.wait(lambda: attempt.pid is not None)
    while "waiting" not in attempt.stdout:
        os.sched_yield()
    os.kill(attempt.pid, signal.SIGTERM)
    hooked.wait_end(attempt)
    assert attempt.error["kind"] == "killed"
    assert attempt.entered == STARTS + ENDS


def test_sigterm_in_a_start_hook_skips_the_application(hooked):
    """The following start hooks are skipped, too. The end hooks of those that began fire."""
    attempt = hooked.run({"do": {"b.start": "term"}})
    assert attempt.error["kind"] == "killed"
    assert attempt.entered == [*STARTS[:3], ("on_job_end", "e"), ("on_job_end", "b"), ("on_job_end", "a")]
    assert "application" not in attempt.stdout


def test_sigterm_does_not_interrupt_an_end_hook(hooked):
    """The outcome is safe, and the hooks get their time."""
    attempt = hooked.run({"x": 1, "do": {"b.end": "term"}})
    assert attempt.envelope["status"] == "COMPLETED"
    assert all(record["ok"] for record in attempt.envelope["hooks"])
    assert attempt.entered == STARTS + ENDS


def test_a_callback_with_only_an_end_hook_sees_a_failed_set_up(hooked):
    """No start hook was entered."""
    (hooked.root / "file").write_text("")
    attempt = hooked.run({}, spec={"output_dir": str(hooked.root / "file" / "0")})
    assert attempt.error["kind"] == "host"
    assert attempt.entered == [("on_job_start", "e"), ("on_job_end", "e")]
    assert "endonly FAILED app" in attempt.stdout
