"""A plain application for the tests: tasks that end in every way, and a callback that writes down what it sees."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import helper  # a sibling module: it must be sent, too

import launcher


def train(cfg):
    """Completes; leaves a file in its output directory when asked."""
    return {"x": cfg.x, "doubled": helper.double(cfg.x), "pid": os.getpid()}


def writes(cfg):
    """Prints and writes."""
    print("out", cfg.x)
    print("err", cfg.x, file=sys.stderr)
    os.write(1, b"\xff\x00raw\n")
    return os.getcwd()


class TwoArguments(Exception):
    """Cannot be unpickled: its __init__ wants two arguments."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code


def ends(cfg):
    """Ends the way that cfg.how says."""
    how = cfg.how
    if how == "value":
        return 42
    if how == "raise":
        raise ValueError("wrong value")
    if how == "two_arguments":
        raise TwoArguments(7, "seven")
    if how == "exit_0":
        sys.exit(0)
    if how == "exit_none":
        sys.exit()
    if how == "exit_3":
        sys.exit(3)
    if how == "exit_text":
        sys.exit("bad input")
    if how == "os_exit":
        os._exit(0)
    if how == "sigkill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "sigterm":
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(30)
    if how == "segfault":
        import ctypes

        ctypes.string_at(0)
    if how == "lock":
        return threading.Lock()
    if how == "generator":
        return (one for one in range(3))
    if how == "base_exception":
        raise KeyboardInterrupt
    if how == "chain":
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise RuntimeError("outer") from error
    raise AssertionError(how)


def waits(cfg):
    """Says that it runs, and waits until it is ended."""
    Path(cfg.flag).write_text(str(os.getpid()))
    threading.Event().wait(60)


class Recorder(launcher.Callback):
    """Writes a line of JSON for each hook, to a file that is named by side."""

    def __init__(self, path):
        self.path = str(path)
        self.state = []

    def _write(self, hook, **more):
        line = {"hook": hook, "pid": os.getpid(), "state": list(self.state), **more}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def on_run_start(self, config, **kwargs):
        self.state.append("run_start")
        self._write("on_run_start", kwargs=sorted(kwargs), mode=str(config.hydra.mode))

    def on_run_end(self, config, **kwargs):
        self._write("on_run_end", kwargs=sorted(kwargs), status=kwargs["job_return"].status.name)

    def on_multirun_start(self, config, **kwargs):
        self.state.append("multirun_start")
        self._write("on_multirun_start", kwargs=sorted(kwargs), mode=str(config.hydra.mode))

    def on_multirun_end(self, config, **kwargs):
        self._write("on_multirun_end", kwargs=sorted(kwargs), statuses=[r.status.name for r in kwargs["job_returns"]])

    def on_job_start(self, config, **kwargs):
        self.state.append("job_start")
        self._write(
            "on_job_start",
            kwargs=sorted(kwargs),
            num=config.hydra.job.num,
            task=kwargs["task_function"].__name__,
            output_dir=config.hydra.runtime.output_dir,
        )

    def on_job_end(self, config, job_return, **kwargs):
        error = job_return.error
        self._write(
            "on_job_end",
            num=config.hydra.job.num,
            status=job_return.status.name,
            kind=error.kind if error else None,
            kwargs=sorted(kwargs),
        )

    def on_job_return(self, config, job_return, **kwargs):
        self._write("on_job_return", num=job_return.num, status=job_return.status.name, kwargs=sorted(kwargs))


def move_output(config):
    """The output directory is not where it was."""
    out = launcher.current_job().output_dir
    os.rename(out, out + ".moved")
    return 1


def leave_much(config):
    """Every kind of thing that may lie in an output directory."""
    out = Path(launcher.current_job().output_dir)
    (out / "empty" / "dir").mkdir(parents=True)
    (out / "wandb" / "run-1").mkdir(parents=True)
    (out / "wandb" / "run-1" / "debug.log").write_text("log")
    (out / "wandb" / "latest-run").symlink_to("run-1")
    (out / "wandb" / "debug.log").symlink_to("run-1/debug.log")
    (out / "run.sh").write_text("#!/bin/sh")
    (out / "run.sh").chmod(0o755)
    (out / "large").write_bytes(bytes(300_000))
    os.mkfifo(str(out / "pipe"))
    (out / "out").symlink_to("/etc/hostname")
    for name in ("run.sh", "large", "empty/dir"):
        os.utime(str(out / name), (1e9, 1e9))


class Raises(launcher.Callback):
    """Raises in the hooks that it is told to."""

    def __init__(self, hooks, on_error="warn"):
        self.hooks = hooks
        self.on_error = on_error

    def __getattribute__(self, name):
        if name.startswith("on_") and name != "on_error" and name in object.__getattribute__(self, "hooks"):

            def hook(*args, **kwargs):
                raise RuntimeError(f"{name} raised")

            return hook
        return object.__getattribute__(self, name)
