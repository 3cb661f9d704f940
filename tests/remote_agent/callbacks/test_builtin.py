"""LogJobReturnCallback and PickleJobInfoCallback: Hydra's names, files and log lines, and never an empty file."""

from __future__ import annotations

import pickle
import threading

import pytest
from omegaconf import OmegaConf

from remote_agent import JobError, JobReturn, JobStatus, LogJobReturnCallback, PickleJobInfoCallback, RemoteJobError

APP = {
    "builtin_app.py": """
        import sys, threading
        def task(cfg):
            if cfg.get("act") == "raise": raise ValueError("no good")
            if cfg.get("act") == "exit": sys.exit(3)
            if cfg.get("act") == "lambda": return lambda: 3
            return {"loss": 0.5}
    """
}


@pytest.fixture(scope="module")
def app(new_shared_host):
    """A host with both callbacks, from their specs in a config."""
    host = new_shared_host()
    host.write(APP)
    entries = [
        {"name": name, "spec": {"_target_": f"remote_agent.{name}"}, "pickle": None, "why": "a test", "on_error": None}
        for name in ("LogJobReturnCallback", "PickleJobInfoCallback")
    ]
    ready = host.start("builtin_app:task", entries)
    assert ready.header["t"] == "ready", ready
    return host


def _load(attempt, name):
    return pickle.loads((attempt.output_dir / ".hydra" / name).read_bytes())


def test_the_files_of_a_completed_job_can_be_loaded(app):
    """Here, where the host's classes are known by the same names."""
    attempt = app.run({"x": 1}, num=2)
    assert all(record["ok"] for record in attempt.envelope["hooks"]), attempt.envelope["hooks"]
    config = _load(attempt, "config.pickle")
    assert config.x == 1
    assert config.hydra.runtime.output_dir == str(attempt.output_dir)
    job_return = _load(attempt, "job_return.pickle")
    assert job_return.status.name == "COMPLETED"
    assert job_return.return_value == {"loss": 0.5}
    assert job_return.cfg == {"x": 1}
    assert job_return.hydra_cfg.hydra.job.num == 2
    assert job_return.working_dir == str(app.code)
    folder = attempt.output_dir / ".hydra"
    log = attempt.log
    assert "[remote_agent.callbacks.LogJobReturnCallback][INFO] - Succeeded with return value: {'loss': 0.5}\n" in log
    assert (
        f"[remote_agent.callbacks.PickleJobInfoCallback][INFO] - Saving job configs in {folder / 'config.pickle'}\n"
        in log
    )
    assert (
        f"[remote_agent.callbacks.PickleJobInfoCallback][INFO] - Saving job_return in {folder / 'job_return.pickle'}\n"
        in log
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.pickle",
        "config.yaml",
        "hydra.yaml",
        "job_return.pickle",
        "overrides.yaml",
    ]


def test_the_exception_of_a_job_is_logged_and_pickled(app):
    """With its traceback."""
    attempt = app.run({"act": "raise"})
    assert "ValueError: no good" in attempt.log
    job_return = _load(attempt, "job_return.pickle")
    assert job_return.status.name == "FAILED"
    assert job_return.error.kind == "exception"
    with pytest.raises(ValueError, match="no good"):
        job_return.return_value  # noqa: B018


def test_the_error_of_a_job_that_exited_is_logged(app):
    """There is no exception, only the job's error."""
    attempt = app.run({"act": "exit"})
    job_return = _load(attempt, "job_return.pickle")
    assert job_return.error.exit_code == 3
    with pytest.raises(RemoteJobError):
        job_return.return_value  # noqa: B018


def test_cloudpickle_is_used_for_what_pickle_cannot_handle(app):
    """A function made in the job."""
    assert _load(app.run({"act": "lambda"}), "job_return.pickle").return_value() == 3


@pytest.mark.parametrize("value", [threading.Lock(), (i for i in ())], ids=["lock", "generator"])
def test_no_empty_file_is_written(tmp_path, value):
    """If something cannot be pickled, that is an error and leaves nothing behind."""
    callback = PickleJobInfoCallback()
    config = OmegaConf.create({"hydra": {"runtime": {"output_dir": str(tmp_path)}, "output_subdir": ".hydra"}})
    callback.on_job_start(config=config)
    with pytest.raises(TypeError):
        callback.on_job_end(config=config, job_return=JobReturn(status=JobStatus.COMPLETED, _return_value=value))
    assert [path.name for path in (tmp_path / ".hydra").iterdir()] == ["config.pickle"]


def test_without_output_subdir_files_are_in_the_output_directory(tmp_path):
    """hydra.output_subdir=null."""
    callback = PickleJobInfoCallback()
    callback.on_job_start(
        config=OmegaConf.create({"hydra": {"runtime": {"output_dir": str(tmp_path)}, "output_subdir": None}})
    )
    assert (tmp_path / "config.pickle").exists()


def test_each_status_has_its_log_line(caplog):
    """By the name of the status, whichever enum it is."""
    import hydra.core.utils

    callback = LogJobReturnCallback()
    caplog.set_level("INFO")
    callback.on_job_end(
        config=None, job_return=JobReturn(status=hydra.core.utils.JobStatus.COMPLETED, _return_value=100)
    )
    callback.on_job_end(config=None, job_return=JobReturn())
    error = RemoteJobError(JobError("killed", message="by SIGKILL"))
    callback.on_job_end(config=None, job_return=JobReturn(status=JobStatus.FAILED, _return_value=error))
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:2] == ["Succeeded with return value: 100", "Status unknown. This should never happen."]
    assert caplog.records[2].exc_info[1] is error
