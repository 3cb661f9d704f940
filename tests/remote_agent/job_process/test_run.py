"""One job: what it sees, what it leaves behind, and how each way to end is reported."""

from __future__ import annotations

import importlib
import os
import signal
import socket

import pytest
from omegaconf import DictConfig, OmegaConf

# -- what it sees ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dict", "dataclass", "DictConfig"])
def test_the_task_gets_a_dictconfig(jobs, kind, monkeypatch):
    """A dict, a dataclass and a DictConfig are the same to a task."""
    monkeypatch.syspath_prepend(str(jobs.host.code))
    config = {"x": 1, "inner": {"lr": 0.1}}
    if kind == "dataclass":
        config = importlib.import_module("confs_of_jobs").Conf()
    elif kind == "DictConfig":
        config = OmegaConf.create(config)
    attempt = jobs("echo", config)
    value = attempt.part()
    assert isinstance(value, DictConfig)
    assert value == {"x": 1, "inner": {"lr": 0.1}}
    assert attempt.file(".hydra/config.yaml") == "x: 1\ninner:\n  lr: 0.1\n"


@pytest.mark.parametrize("config", [3, "text", None, {"a"}, (1, 2)], ids=repr)
def test_a_value_that_is_no_config_reaches_the_task_unchanged(jobs, config):
    """A job without a mapping is still a job."""
    attempt = jobs.host.run(payload=jobs.host.payload(config, task="jobs:echo"))
    assert attempt.envelope["status"] == "COMPLETED", attempt.error
    assert attempt.part() in (config, list(config) if isinstance(config, tuple) else config)


def test_the_output_directory_is_made_with_its_files(jobs):
    """config.yaml, hydra.yaml and overrides.yaml below output_subdir, and the job's log."""
    attempt = jobs("speak", {"x": 1}, overrides=["x=1"], task_name="my_app", num=3, job_id="run_3")
    hydra = OmegaConf.create(attempt.file(".hydra/hydra.yaml")).hydra
    assert attempt.file(".hydra/config.yaml") == "x: 1\n"
    assert attempt.file(".hydra/overrides.yaml") == "- x=1\n"
    assert hydra.runtime.output_dir == str(attempt.output_dir)
    assert hydra.runtime.cwd == str(jobs.host.code)
    assert (hydra.job.name, hydra.job.num, hydra.job.id, hydra.output_subdir) == ("my_app", 3, "run_3", ".hydra")
    line = attempt.file("my_app.log")
    assert line.endswith("][jobs][INFO] - logged\n")
    assert "detail" not in line
    assert attempt.stdout == "out\n" + line + "raw\n\udcffé"
    assert attempt.stderr == "err\n"


def test_verbose_shows_debug_lines(jobs):
    """hydra.verbose, for all loggers and for one."""
    assert "detail" in jobs("speak", verbose=True).log
    assert "detail" in jobs("speak", verbose=["jobs"]).log
    assert "detail" not in jobs("speak", verbose="another").log


def test_without_output_subdir_nothing_is_written(jobs):
    """hydra.output_subdir=null, as in Hydra."""
    attempt = jobs("nothing", output_subdir=None)
    assert sorted(path.name for path in attempt.output_dir.iterdir()) == ["app.log"]


def test_chdir_decides_the_working_directory(jobs):
    """hydra.job.chdir."""
    attempt = jobs("where", chdir=True)
    assert attempt.part() == str(attempt.output_dir)
    attempt = jobs("where")
    assert attempt.part() == str(jobs.host.code)


def test_a_job_gets_env_set_and_the_variables_of_its_slot(jobs):
    """None removes a variable."""
    attempt = jobs(
        "environment",
        {"names": ["FROM_JOB", "CUDA_VISIBLE_DEVICES", "LANG"]},
        env_set={"FROM_JOB": "1"},
        spec={"slot_env": {"CUDA_VISIBLE_DEVICES": "GPU-1", "LANG": None}},
    )
    assert attempt.part() == {"FROM_JOB": "1", "CUDA_VISIBLE_DEVICES": "GPU-1", "LANG": None}


def test_a_hydra_key_in_a_plain_config_configures_the_job(jobs):
    """The application does not get it, but hydra.job.chdir and the like are honoured."""
    attempt = jobs("echo", {"x": 1, "hydra": {"job": {"chdir": True}, "output_subdir": "conf"}})
    assert attempt.part() == {"x": 1}
    assert attempt.file("conf/config.yaml") == "x: 1\n"
    assert attempt.frame("outcome").header["parts"].get("cfg") is None


def test_edits_by_the_task_come_back(jobs):
    """JobReturn.cfg shows what the task did to its config. An unchanged config is not sent."""
    assert jobs("edit", {"x": 1}).part("cfg") == {"x": 5}
    with pytest.raises(KeyError):
        jobs("nothing", {"x": 1}).part("cfg")


def test_a_job_has_its_own_session_no_stdin_and_the_users_umask(jobs):
    """User code does not hit its socket by accident."""
    attempt = jobs("process")
    seen = attempt.part()
    assert seen["sid"] == seen["pid"] == attempt.pid
    assert seen["stdin"] == "/dev/null"
    assert [fd for fd in seen["fds"] if 2 < fd < 900][1:] in ([], [4])
    assert jobs("umask").part() == 0o022


def test_the_envelope_is_plain_data(jobs):
    """It has everything that decides."""
    attempt = jobs("nothing", {"x": 1}, overrides=["x=1"])
    envelope = attempt.envelope
    assert envelope["status"] == "COMPLETED"
    assert envelope["error"] is None
    assert envelope["task_name"] == "app"
    assert envelope["started_at"] <= envelope["ended_at"]
    assert envelope["duration"] >= 0
    assert envelope["code"] == {"hash": "abc", "commit": None, "dirty": False}
    assert envelope["hooks"] == []
    assert envelope["abort"] is None
    assert attempt.part() is None
    assert os.waitstatus_to_exitcode(attempt.status) == 0


# -- how it ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["none", "zero", "false"])
def test_exit_code_0_completes_with_none(jobs, code):
    """sys.exit(), sys.exit(0), sys.exit(False)."""
    attempt = jobs("leave", {"code": code})
    assert attempt.envelope["status"] == "COMPLETED"
    assert attempt.part() is None


@pytest.mark.parametrize(
    ("code", "exit_code", "message"), [("three", 3, "sys.exit(3)"), ("text", 1, "bye"), ("big", 256, "sys.exit(256)")]
)
def test_other_exit_codes_fail(jobs, code, exit_code, message):
    """Even 256, which a shell would read as 0. SystemExit is not sent, because it would end the controller."""
    attempt = jobs("leave", {"code": code})
    assert attempt.error["kind"] == "exited"
    assert attempt.error["exit_code"] == exit_code
    assert attempt.error["message"] == message
    with pytest.raises(KeyError):
        attempt.part()


def test_an_exception_comes_back_with_its_chain(jobs):
    """The exception itself, its causes as text, and a traceback without our frames."""
    attempt = jobs("fail")
    error = attempt.error
    assert (error["kind"], error["type"], error["message"]) == ("exception", "ValueError", "no good")
    assert error["causes"] == [{"type": "KeyError", "message": "'inner'", "relation": "cause"}]
    assert "direct cause" in error["traceback"]
    assert 'raise ValueError("no good") from error' in error["traceback"]
    assert "remote_agent" not in error["traceback"]
    value = attempt.part()
    assert isinstance(value, ValueError)
    assert value.args == ("no good",)
    assert "no good" in attempt.log
    assert "Traceback (most recent call last)" in attempt.log
    assert jobs("fail_during").error["causes"][0]["relation"] == "context"


@pytest.mark.parametrize(
    ("what", "type_"), [("base", "jobs.Base"), ("interrupt", "KeyboardInterrupt"), ("generator", "GeneratorExit")]
)
def test_base_exceptions_affect_only_the_job(jobs, what, type_):
    """They end the job. On the controller they would act as the controller's own."""
    attempt = jobs("raise_", {"what": what})
    assert (attempt.error["kind"], attempt.error["type"]) == ("exception", type_)


@pytest.mark.slow
def test_very_long_chains_and_deep_recursions_are_shortened(jobs):
    """The text has a limited length."""
    attempt = jobs("chain")
    assert attempt.error["message"] == "2999"
    assert 10 < len(attempt.error["causes"]) < 100
    attempt = jobs("deep")
    assert attempt.error["type"] == "RecursionError"
    assert len(attempt.error["traceback"]) < 100_000


@pytest.mark.parametrize(
    ("task", "value"),
    [
        ("close_streams", 0),
        ("close_everything", "closed"),
        ("replace_streams", "replaced"),
        ("wander", b"y" * (2 << 20)),
        ("exit_seven", "safe"),
        ("raising_atexit", "safe"),
        ("handlers", "handled"),
        ("signal_at_return", "handled"),
        ("signal_while_pickling", "handled"),
        ("thread", "left"),
        ("locale_", "cleared"),
    ],
)
def test_what_a_job_does_to_its_process_does_not_change_its_outcome(jobs, task, value):
    """Streams, descriptors, folders, umask, atexit, signal handlers, timers, threads, the environment."""
    attempt = jobs(task)
    if task == "close_everything":
        # The socket went with the rest: what the job said is in its own file.
        attempt = _adopt(attempt)
    assert attempt.envelope["status"] == "COMPLETED"
    assert attempt.part() == value


@pytest.mark.parametrize("task", ["handlers", "signal_at_return"])
def test_an_exception_in_a_signal_handler_after_the_task_does_not_count(jobs, task):
    """The job's error is the task's own exception."""
    attempt = jobs(task, {"fails": True})
    assert (attempt.error["type"], attempt.error["message"]) == ("ValueError", "of the task")


def _adopt(attempt):
    """Read what a job wrote while it had no agent, as an agent does."""
    path = attempt.spool / f"orphan-{attempt.name}"
    assert path.stat().st_mode & 0o777 == 0o600
    attempt.frames = attempt.decoder.feed(path.read_bytes())
    return attempt


def _until_waiting(host, attempt):
    host.wait(lambda: attempt.pid is not None)
    while "waiting" not in attempt.stdout:
        os.sched_yield()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_exceptions_in_the_task(jobs, number):
    """The kind for SIGTERM is `killed`. The job ends by itself and reports it."""
    attempt = jobs.host.submit({}, task="jobs:wait")
    _until_waiting(jobs.host, attempt)
    os.kill(attempt.pid, number)
    jobs.host.wait_end(attempt)
    assert attempt.status == 0
    if number == signal.SIGTERM:
        assert (attempt.error["kind"], attempt.error["signal"]) == ("killed", 15)
        assert "time.sleep(60)" in attempt.error["traceback"]
    else:
        assert attempt.error["type"] == "KeyboardInterrupt"


def test_a_task_may_catch_sigterm(jobs):
    """Then its outcome is what it returns."""
    attempt = jobs.host.submit({}, task="jobs:stubborn")
    _until_waiting(jobs.host, attempt)
    os.kill(attempt.pid, signal.SIGTERM)
    assert jobs.host.wait_end(attempt).part() == "saved"


@pytest.mark.parametrize(
    ("task", "config", "status"),
    [("die", {"code": 0}, 0), ("die", {"code": 5}, 5 << 8), ("kill", {"signal": 9}, 9), ("segfault", {}, 11)],
)
def test_a_process_that_dies_has_no_outcome(jobs, task, config, status):
    """os._exit(0) is no success. The zygote reports the status of waitpid."""
    attempt = jobs(task, config)
    assert attempt.status & 0x7F == status & 0x7F
    assert attempt.status & 0xFF00 == status & 0xFF00
    assert attempt.frame("outcome") is None
    assert attempt.frame("done") is None
    if task == "segfault":
        # Python's own fault handler says where.
        assert "Segmentation fault" in attempt.stderr
        assert "in segfault" in attempt.stderr


def test_a_folder_that_cannot_be_made_is_the_hosts_fault(jobs):
    """There is a file in the place of the output directory."""
    (jobs.host.root / "file").write_text("")
    attempt = jobs("nothing", spec={"output_dir": str(jobs.host.root / "file" / "0")})
    assert attempt.error["kind"] == "host"


def test_a_config_that_cannot_be_decoded_fails_its_job(jobs):
    """A class that the host does not have, or a truncated pickle."""
    payload = b"\x80\x04cno_such_module\nThing\n."
    assert jobs("nothing", payload=payload).error["kind"] == "import"
    assert jobs("nothing", payload=b"\x80\x04").error["kind"] == "config"


def test_a_dead_agent_loses_no_result(jobs):
    """The socket is closed at both ends of the job. The orphan file has everything, from the first frame on."""
    attempt = jobs.host.submit({}, task="jobs:fail")
    attempt.sock.close()
    attempt.eof = True
    jobs.host.wait_end(attempt)
    adopted = _adopt(attempt)
    assert [frame.header["t"] for frame in adopted.frames] == ["outcome", "done"]
    assert adopted.error["message"] == "no good"
    assert isinstance(adopted.part(), ValueError)


def test_a_job_writes_unread_frames_of_a_dead_agent_again(jobs):
    """The job notices before it ends, and writes the frames to the orphan file.

    Nothing of the application runs before that: a crash of an atexit function costs no result, agent or not.
    """
    attempt = jobs.host.submit({}, task="jobs:exit_seven")
    while b'"done"' not in attempt.sock.recv(1 << 18, socket.MSG_PEEK):
        os.sched_yield()
    attempt.sock.close()
    attempt.eof = True
    jobs.host.wait_end(attempt)
    assert os.WEXITSTATUS(attempt.status) == 7
    assert [frame.header["t"] for frame in _adopt(attempt).frames] == ["outcome", "done"]
    assert attempt.part() == "safe"


def test_a_large_config_is_in_a_file(jobs):
    """`payload_file` replaces the payload."""
    attempt = jobs("echo", {"x": "y" * (2 << 20)})
    assert attempt.part() == {"x": "y" * (2 << 20)}


def test_two_jobs_share_nothing(jobs):
    """If one job changes its modules, another does not see it."""
    first = jobs("process").part()
    second = jobs("process").part()
    assert first["pid"] != second["pid"]


def test_the_failure_of_a_job_that_closed_everything_is_in_the_orphan_file(jobs):
    """The job has closed even its socket."""
    assert _adopt(jobs("close_everything", {"act": "raise"})).error["message"] == "closed"
