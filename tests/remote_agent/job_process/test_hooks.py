"""The job hooks as they fire on a host: process, order, announcements, policies, end hooks that edit the result."""

from __future__ import annotations

import os
import pickle
import signal

import pytest

APP = {
    "hooked.py": """
        import logging, os, sys, threading, time
        from remote_agent import Callback

        log = logging.getLogger("hooked")

        class Scripted(Callback):
            '''Does what the config says under its name.'''
            def __init__(self, name, on_error=None):
                self.name = name
                self.trail = []
                if on_error:
                    self.on_error = on_error
            def _do(self, hook, config, job_return=None):
                act = config.get("do", {}).get("{}.{}".format(self.name, hook))
                print("{}.{} {}".format(self.name, hook, os.getpid()), flush=True)
                if act is None: return
                if act == "raise": raise ValueError("{} in {}".format(self.name, hook))
                if act == "exit": sys.exit(3)
                if act == "kill": os.kill(os.getpid(), 9)
                if act == "term": os.kill(os.getpid(), 15)
                if act == "die": os._exit(0)
                if act == "lock": self.lock = threading.Lock()
                if act == "heavy": self.trail.append("x" * (2 << 20))
                if act == "weigh": print("trail", [len(item) for item in self.trail])
                if act == "edit": config.x = 99
                if act == "seen": print("env", os.environ.get("FROM_JOB"), "cwd", os.getcwd(), type(config).__name__)
                if act == "double": job_return.return_value = 2 * job_return.return_value
                if act == "grow": job_return.return_value.append("grown")
                if act == "stuff": job_return.return_value = threading.Lock()
                if act == "nonsense": job_return.status = "fine"; job_return.overrides = [object()]
                if act == "forgive":
                    job_return.status = type(job_return.status)["COMPLETED"]; job_return.return_value = "forgiven"
                if act == "condemn": job_return.status = type(job_return.status)["FAILED"]
                if act == "cfg": job_return.cfg = {"replaced": True}
                if act == "show":
                    print("JR", job_return.status.name, job_return.task_name, job_return.num, job_return.job_id,
                          job_return.host, job_return.working_dir, job_return.overrides, job_return.cfg,
                          job_return.hydra_cfg.hydra.job.num, job_return.error, job_return.duration is not None)
                if act == "trail": print("trail", self.trail)
            def on_job_start(self, config, task_function, **kwargs):
                self.trail.append("started")
                assert callable(task_function) and not kwargs
                print("task", task_function.__name__)
                self._do("start", config)
                self.trail.append("after")
            def on_job_end(self, config, job_return, **kwargs):
                assert not kwargs
                self._do("end", config, job_return)

        class EndOnly:
            def on_job_end(self, config, job_return, **kwargs):
                print("endonly", job_return.status.name, None if config is None else config.hydra.job.name)

        def task(cfg):
            print("application", os.getpid(), flush=True)
            act = cfg.get("act")
            if act == "raise": raise KeyError("app")
            if act == "kill": os.kill(os.getpid(), 9)
            if act == "die": os._exit(0)
            if act == "exit": sys.exit(2)
            if act == "lock": return threading.Lock()
            if act == "list": return [1]
            if act == "big": cfg.x = 5; return b"x" * (2 << 20)
            if act == "wait":
                print("waiting", flush=True); time.sleep(60)
            return cfg.get("x")
    """
}


def _spec(name, **kwargs):
    return {
        "name": name,
        "spec": {"_target_": "hooked.Scripted", "name": name, **kwargs},
        "pickle": None,
        "why": "a test",
        "on_error": None,
    }


@pytest.fixture(scope="module")
def hooked(new_shared_host):
    """A host with callbacks a (warn), b (fail), c (abort) and one that has only on_job_end."""
    host = new_shared_host()
    host.write(APP)
    end_only = {"name": "e", "spec": {"_target_": "hooked.EndOnly"}, "pickle": None, "why": "a test", "on_error": None}
    ready = host.start("hooked:task", [_spec("a"), _spec("b", on_error="fail"), _spec("c", on_error="abort"), end_only])
    assert ready.header["t"] == "ready", ready
    assert len(ready.header["notes"]) == 4
    return host


STARTS = [("on_job_start", name) for name in "eabc"]
ENDS = [("on_job_end", name) for name in "ecba"]


def _fired(attempt):
    return [(record["hook"], record["callback"], record["ok"]) for record in attempt.envelope["hooks"]]


def test_order_process_and_kwargs(hooked):
    """Starts in order, the application, ends in reverse; all in the job's own process; announced before."""
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
    assert _fired(attempt) == [(*one, True) for one in STARTS[1:] + ENDS]
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
    """Exception, exit, a value that cannot be pickled: the pair is closed, and the hook sees a FAILED JobReturn."""
    attempt = hooked.run({**config, "do": {"a.end": "show"}})
    assert attempt.error["kind"] == kind
    assert attempt.entered == STARTS + ENDS
    assert "endonly FAILED app" in attempt.stdout
    assert "JR FAILED app" in attempt.stdout


def test_what_an_end_hook_sees(hooked):
    """The JobReturn is whole."""
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


def test_env_set_is_there_at_the_start_and_gone_at_the_end(hooked):
    """As in Hydra: hydra.job.env_set spans on_job_start and the application. chdir spans both hooks."""
    attempt = hooked.run({"do": {"a.start": "seen", "a.end": "seen"}}, env_set={"FROM_JOB": "1"}, chdir=True)
    where = attempt.output_dir
    assert f"env 1 cwd {where}" in attempt.stdout
    assert f"env None cwd {where}" in attempt.stdout


# -- hooks that raise ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["raise", "exit"])
@pytest.mark.parametrize("hook", ["start", "end"])
def test_warn_goes_on(hooked, hook, act):
    """Recorded in the envelope, with its traceback in the job's log; nothing else changes."""
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
def test_fail_and_abort_at_the_start(hooked, name, abort):
    """The application does not run; the other starts and all ends do."""
    attempt = hooked.run({"x": 1, "do": {f"{name}.start": "raise"}})
    assert attempt.error["kind"] == "hook"
    assert attempt.error["type"] == "ValueError"
    assert attempt.error["message"] == f"{name}.on_job_start: {name} in start"
    assert "Traceback" in attempt.error["traceback"]
    assert attempt.envelope["abort"] == abort
    assert "application" not in attempt.stdout
    assert attempt.entered == STARTS + ENDS


@pytest.mark.parametrize(("name", "abort"), [("b", None), ("c", "c")])
def test_fail_and_abort_at_the_end(hooked, name, abort):
    """The job becomes FAILED; its outcome had said COMPLETED."""
    attempt = hooked.run({"x": 1, "do": {f"{name}.end": "raise"}})
    assert attempt.frame("outcome").header["envelope"]["status"] == "COMPLETED"
    assert attempt.envelope["status"] == "FAILED"
    assert attempt.error["kind"] == "hook"
    assert attempt.envelope["abort"] == abort
    with pytest.raises(KeyError):
        attempt.part()


def test_the_applications_failure_stays_the_error(hooked):
    """A hook that fails afterwards does not hide it."""
    attempt = hooked.run({"act": "raise", "do": {"b.end": "raise"}})
    assert (attempt.error["kind"], attempt.error["type"]) == ("exception", "KeyError")


# -- end hooks that edit ---------------------------------------------------------------------------------------------


def test_edits_of_the_result(hooked):
    """A new value, a value changed in place, a config replaced: the final result has it, the outcome had not."""
    attempt = hooked.run({"x": 4, "do": {"b.end": "double"}})
    assert attempt.part() == 8
    assert pickle.loads(attempt.frame("outcome").payload) == 4
    assert hooked.run({"act": "list", "do": {"b.end": "grow"}}).part() == [1, "grown"]
    attempt = hooked.run({"act": "list", "do": {"b.end": "cfg"}})
    assert attempt.part("cfg") == {"replaced": True}
    assert attempt.part() == [1]
    assert hooked.run({"act": "list"}).frame("done").header["parts"] == {"same": True}


def test_edits_of_the_status(hooked):
    """Forgiven, condemned, and nonsense, which is put right."""
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


# -- the state that an epilogue gets ---------------------------------------------------------------------------------


def _restored(hooked, dead, payload, **more):
    return hooked.wait_end(
        hooked.epilogue(dead, payload, {"kind": "killed", "signal": 9, "message": "killed by SIGKILL"}, **more)
    )


@pytest.mark.parametrize(("act", "status"), [("kill", 9), ("die", 0)])
def test_a_job_that_died_has_its_ends_in_an_epilogue(hooked, act, status):
    """In reverse, in another process, with the callbacks as they were after on_job_start, and what killed it."""
    payload = hooked.payload({"act": act, "do": {"a.end": "trail", "b.end": "show"}})
    dead = hooked.run(payload=payload)
    assert dead.status == status
    assert dead.entered == STARTS
    attempt = _restored(hooked, dead, payload)
    assert attempt.entered == ENDS
    assert attempt.pid != dead.pid
    assert [line for line in attempt.stdout.splitlines() if ".end " in line] == [
        f"{name}.end {attempt.pid}" for name in "cba"
    ]
    assert "trail ['started', 'after']" in attempt.stdout
    assert "killed by SIGKILL" in attempt.stdout
    envelope = attempt.envelope
    assert envelope["status"] == "FAILED"
    assert envelope["error"]["signal"] == 9
    assert (envelope["started_at"], envelope["ended_at"], envelope["duration"]) == (100.0, 101.5, 1.5)
    assert _fired(attempt) == [(*one, True) for one in STARTS[1:] + ENDS]
    assert "killed by SIGKILL" in attempt.log
    assert attempt.file(".hydra/config.yaml")


def test_a_death_in_a_start_hook_owes_only_what_was_entered(hooked):
    """The second one's start was entered, the third one's was not."""
    payload = hooked.payload({"do": {"b.start": "kill"}})
    dead = hooked.run(payload=payload)
    assert dead.entered == STARTS[:3]
    attempt = _restored(hooked, dead, payload)
    assert attempt.entered == [("on_job_end", name) for name in "eba"]
    assert _fired(attempt)[:2] == [("on_job_start", "a", True), ("on_job_start", "b", False)]


def test_a_start_hook_that_raised_before_the_death_is_not_forgotten(hooked):
    """Its record travels with the callbacks' state."""
    payload = hooked.payload({"act": "kill", "do": {"a.start": "raise"}})
    dead = hooked.run(payload=payload)
    attempt = _restored(hooked, dead, payload)
    assert _fired(attempt)[:3] == [
        ("on_job_start", "a", False),
        ("on_job_start", "b", True),
        ("on_job_start", "c", True),
    ]
    assert attempt.envelope["hooks"][0]["error"]["message"] == "a in start"


def test_a_death_in_an_end_hook_keeps_the_outcome_and_repeats_nothing(hooked):
    """The rest of the ends fire; the value stays."""
    payload = hooked.payload({"x": 6, "do": {"b.end": "kill", "a.end": "show"}})
    dead = hooked.run(payload=payload)
    assert dead.entered == [*STARTS, ("on_job_end", "e"), ("on_job_end", "c"), ("on_job_end", "b")]
    attempt = _restored(hooked, dead, payload)
    assert attempt.entered == [("on_job_end", "a")]
    assert attempt.envelope["status"] == "COMPLETED"
    assert attempt.frame("done").header["parts"] == {"same": True}
    assert "JR COMPLETED" in attempt.stdout
    assert attempt.envelope["started_at"] == dead.frame("outcome").header["envelope"]["started_at"]


def test_a_large_outcome_is_kept_too(hooked):
    """In its file; an end hook of the epilogue sees value and edited config, and may change them."""
    payload = hooked.payload({"x": 1, "act": "big", "do": {"b.end": "kill", "a.end": "show"}})
    dead = hooked.run(payload=payload)
    attempt = _restored(hooked, dead, payload)
    assert attempt.frame("done").header["parts"] == {"same": True}
    assert "'x': 5" in attempt.stdout
    payload = hooked.payload({"x": 1, "act": "big", "do": {"b.end": "kill", "a.end": "double"}})
    dead = hooked.run(payload=payload)
    attempt = _restored(hooked, dead, payload)
    assert attempt.part() == b"x" * (4 << 20)
    assert attempt.part("cfg").x == 5


def test_a_large_state_lies_in_a_file(hooked):
    """What a callback collected at the start is there in its epilogue, however much it is."""
    payload = hooked.payload({"act": "kill", "do": {"a.start": "heavy", "a.end": "weigh"}})
    dead = hooked.run(payload=payload)
    path = dead.frame("state").header["file"]
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert f"trail [7, {2 << 20}, 5]" in _restored(hooked, dead, payload).stdout


def test_nothing_owed_nothing_fired(hooked):
    """All ends had been entered when it died: the outcome becomes final."""
    payload = hooked.payload({"x": 6, "do": {"a.end": "kill"}})
    dead = hooked.run(payload=payload)
    attempt = _restored(hooked, dead, payload)
    assert attempt.entered == []
    assert attempt.envelope["status"] == "COMPLETED"


def test_an_epilogue_that_dies_is_taken_up_by_another(hooked):
    """Each death has entered one hook; none fires twice."""
    payload = hooked.payload({"act": "kill", "do": {"c.end": "kill"}})
    dead = hooked.run(payload=payload)
    first = _restored(hooked, dead, payload)
    assert first.frame("done") is None
    assert first.entered == [("on_job_end", "e"), ("on_job_end", "c")]
    entered = [["on_job_start", index] for index in range(4)] + [["on_job_end", 3], ["on_job_end", 2]]
    first.frames = dead.frames
    second = _restored(hooked, first, payload, entered=entered)
    assert second.entered == [("on_job_end", "b"), ("on_job_end", "a")]


def test_a_callback_that_cannot_be_kept_says_so(hooked):
    """A lock cannot be pickled: on_job_end sees the callback as it was before on_job_start, and the log says that."""
    payload = hooked.payload({"act": "kill", "do": {"a.start": "lock", "a.end": "trail", "b.end": "trail"}})
    dead = hooked.run(payload=payload)
    attempt = _restored(hooked, dead, payload)
    assert "trail []" in attempt.stdout
    assert "trail ['started', 'after']" in attempt.stdout
    assert "Callback a could not be saved after on_job_start" in attempt.log


def test_end_hooks_of_a_job_that_sigterm_ended(hooked):
    """They fire in the job itself."""
    attempt = hooked.submit({"act": "wait"})
    hooked.wait(lambda: attempt.pid is not None)
    while "waiting" not in attempt.stdout:
        os.sched_yield()
    os.kill(attempt.pid, signal.SIGTERM)
    hooked.wait_end(attempt)
    assert attempt.error["kind"] == "killed"
    assert attempt.entered == STARTS + ENDS


def test_sigterm_in_a_start_hook(hooked):
    """The starts that follow and the application are skipped, the ends that are owed fire."""
    attempt = hooked.run({"do": {"b.start": "term"}})
    assert attempt.error["kind"] == "killed"
    assert attempt.entered == [*STARTS[:3], ("on_job_end", "e"), ("on_job_end", "b"), ("on_job_end", "a")]
    assert "application" not in attempt.stdout


def test_sigterm_in_an_end_hook_does_not_cut_it_short(hooked):
    """The outcome is safe; the hooks are given their time."""
    attempt = hooked.run({"x": 1, "do": {"b.end": "term"}})
    assert attempt.envelope["status"] == "COMPLETED"
    assert all(record["ok"] for record in attempt.envelope["hooks"])
    assert attempt.entered == STARTS + ENDS


def test_a_job_that_could_not_be_set_up_tells_those_who_wait_for_its_end(hooked):
    """No start hook was entered; the one that has only on_job_end hears of the failure."""
    (hooked.root / "file").write_text("")
    attempt = hooked.run({}, spec={"output_dir": str(hooked.root / "file" / "0")})
    assert attempt.error["kind"] == "host"
    assert attempt.entered == [("on_job_start", "e"), ("on_job_end", "e")]
    assert "endonly FAILED app" in attempt.stdout
