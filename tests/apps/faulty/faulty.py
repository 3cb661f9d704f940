"""The application of the fault suite: it writes down, in the host's home, each time that one of its jobs really runs."""

import itertools
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import launcher

HOME = Path(os.path.expanduser("~"))


def _note(name, text):
    with open(HOME / name, "a", encoding="utf-8") as file:
        file.write(text + "\n")


def quick(cfg):
    """Runs, and is done."""
    _note("ran", str(cfg.num))
    return cfg.num * 10


def homeless(cfg):
    """Needs no home, and writes nothing."""
    return cfg.num * 10


def gated(cfg):
    """Runs until the gate is opened, by a file in the home folder."""
    _note("ran", str(cfg.num))
    _note(f"pid.{cfg.num}", str(os.getpid()))
    deadline = time.monotonic() + 120
    while not (HOME / "gate").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the gate stayed shut")
        threading.Event().wait(0.02)
    return cfg.num * 10


def resumes(cfg):
    """Saves a checkpoint in its output folder, and waits for the gate. A later attempt goes on from what an earlier one has saved."""
    job = launcher.current_job()
    step = 0
    for one in job.earlier:
        saved = Path(one.folder, "checkpoint") if one.folder else None
        step = int(saved.read_text(encoding="utf-8")) if saved is not None and saved.exists() else step
    Path(job.output_dir, "checkpoint").write_text(str(step + 1), encoding="utf-8")
    gated(cfg)
    return {"attempt": job.attempt, "step": step, "after": [one.kind for one in job.earlier]}


def logs(cfg):
    """Adds to a file until the gate is opened, and says what is in it in the end. Another file is there only until then, on this host."""
    log = Path(launcher.current_job().output_dir, "log")
    other = log.with_name("only-on-" + os.uname().nodename)
    other.write_text("until the gate opens", encoding="utf-8")
    for step in itertools.count():
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{step} of {os.getpid()} {'x' * 5000}\n")
        if (HOME / "gate").exists():
            break
        threading.Event().wait(0.02)
    other.unlink()
    return log.read_text(encoding="utf-8")


def stubborn(cfg):
    """Waits for the gate, and does not listen to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return gated(cfg)


def talks(cfg):
    """Says something, and waits for the gate."""
    print("said before the gate", flush=True)
    return gated(cfg)


def whose(cfg):
    """Waits for the gate, and says whose job it is."""
    gated(cfg)
    return f"{cfg.whose}'s {cfg.num}"


def on_gpu(cfg):
    """Says which GPU it has, and waits for the gate."""
    _note("gpus", os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
    return gated(cfg)


def share(cfg):
    """Waits for the gate, and says what it has of its node."""
    gated(cfg)
    return {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SLURM_JOB_ID")}


def hungry(cfg):
    """Waits for the gate; the first of them then wants more memory than there is."""
    value = gated(cfg)
    if cfg.num == 0:
        value = len(b"x" * 2_000_000_000)
    return value


def bulky(cfg):
    """Returns many bytes."""
    _note("ran", str(cfg.num))
    return os.urandom(cfg.size)


def several(cfg):
    """Runs a command on each node of its allocation, waits for the gate in a step on all of them, and says what the first one printed."""
    _note("ran", str(cfg.num))
    _note("variables", " ".join(f"{name}={os.environ.get(name)}" for name in ("SLURM_NNODES", "SLURM_PROCID")))
    first = subprocess.run(
        ["srun", "sh", "-c", "echo $SLURMD_NODENAME $SLURM_PROCID"], capture_output=True, text=True, check=True
    )
    _note("steps", "begin")
    # Without variables, nobody but Slurm knows whose processes these are.
    script = f"echo step >> {HOME}/steps; while ! test -e {HOME}/gate; do sleep 0.1; done"
    subprocess.run(["srun", "env", "-i", "sh", "-c", script], check=True)
    return sorted(first.stdout.splitlines(), key=lambda line: line.split()[1])


class Witness(launcher.Callback):
    """Writes down, on the host, each job hook that fires there."""

    def on_job_start(self, config, **kwargs):
        _note("hooks", f"start {config.hydra.job.num}")

    def on_job_end(self, config, job_return, **kwargs):
        _note("hooks", f"end {config.hydra.job.num}")


class Hangs(launcher.Callback):
    """Its end hook never ends."""

    def on_job_end(self, config, job_return, **kwargs):
        threading.Event().wait()


def reports(cfg):
    """Reports some steps; the job 0 goes on with that until it is asked to stop."""
    _note("ran", str(cfg.num))
    step = 0
    while step < 3 or cfg.num == 0:
        launcher.report(step=step, twice=2 * step)
        step += 1
        threading.Event().wait(0.02)
    return cfg.num * 10


class Prunes(Witness):
    """Asks a job to stop when it has reported so many steps. `seen`: (job, step) of each report, on the controller."""

    def __init__(self, steps):
        self.steps = steps
        self.seen = []

    def on_job_report(self, config, job, step, values, **kwargs):
        assert values["twice"] == 2 * step
        self.seen.append((job.num, step))
        if step >= self.steps:
            job.stop()
