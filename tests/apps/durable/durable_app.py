"""An application whose jobs leave a mark each time they run, and a controller script for it.

python durable_app.py '{"marks": DIR, "jobs": N, ...}'

A DIR below `~` is one on either side.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import launcher


def mark(marks: str, kind: str, num: Any, text: str = "") -> None:
    """Leave a mark, in a file of its own: nobody's write can tear another's."""
    folder = Path(marks).expanduser() / kind
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{num}.{os.getpid()}.{time.monotonic_ns()}").write_text(text)


def wait_for(path: Path) -> None:
    """Wait until a file is there, for a minute at most."""
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        threading.Event().wait(0.01)


def resume(job: Any) -> Any:
    """The first attempt saves something and fails. The next one tells what it knows of that."""
    (Path(job.output_dir) / f"saved.{job.attempt}").write_text("here", encoding="utf-8")
    if not job.earlier:
        raise ValueError("not yet")
    return [
        (one.attempt, one.host, one.kind, [name for name in os.listdir(one.folder) if "saved" in name])
        for one in job.earlier
    ]


def work(cfg: Any) -> Any:
    """A job: works for cfg.seconds, or until the file cfg.gate is there, then does what cfg.how says."""
    mark(cfg.marks, "ran", cfg.x)
    print(f"job {cfg.x} works", flush=True)
    print(f"job {cfg.x} grumbles", file=sys.stderr, flush=True)
    if cfg.get("gate"):
        wait_for(Path(cfg.gate))
    threading.Event().wait(cfg.get("seconds", 0.0))
    how = cfg.get("how", {}).get(str(cfg.x), "")
    if how == "raise":
        raise ValueError(f"job {cfg.x} does not like it")
    if how == "raise once" and len(list((Path(cfg.marks).expanduser() / "ran").glob(f"{cfg.x}.*"))) < 2:
        raise ValueError(f"job {cfg.x} does not like it yet")
    if how == "resume":
        return resume(launcher.current_job())
    while how == "stubborn":
        try:
            threading.Event().wait(60)
        except BaseException:
            mark(cfg.marks, "refused", cfg.x)
    if how == "kill":
        os.kill(os.getpid(), 9)
    mark(cfg.marks, "done", cfg.x)
    return {"x": cfg.x, "secret": os.environ.get("DURABLE_SECRET")}


class Recorder(launcher.Callback):
    """Leaves a mark for each hook, on either side."""

    def __init__(self, marks: str, *, dies_at_start: bool = False) -> None:
        self.marks = marks
        self.dies_at_start = dies_at_start
        self.seen = 0

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        mark(self.marks, "start", "run")
        if self.dies_at_start:
            os.kill(os.getpid(), 9)

    def on_job_start(self, config: Any, **kwargs: Any) -> None:
        mark(self.marks, "job_start", config.hydra.job.num)

    def on_job_end(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        mark(self.marks, "job_end", config.hydra.job.num, job_return.status.name)

    def on_job_return(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        self.seen += 1
        mark(self.marks, "return", job_return.num)

    def on_multirun_end(self, config: Any, job_returns: Any, **kwargs: Any) -> None:
        told = [(one.num, one.status.name, one.return_value if one.error is None else None) for one in job_returns]
        mark(self.marks, "end", "run", json.dumps({"returns": told, "seen": self.seen}))


def main() -> None:
    """Run the sweep that the argument describes."""
    asked = json.loads(sys.argv[1])
    marks, jobs = asked.pop("marks"), asked.pop("jobs")
    more = asked.pop("config", {})
    configs: Any = [{"x": x, "marks": marks, **more} for x in range(jobs)]
    if asked.pop("iterator", False):
        configs = iter(configs)
    recorder = Recorder(marks, dies_at_start=asked.pop("dies_at_start", False))
    returns = launcher.multirun(work, configs, callbacks=[recorder], **asked)
    for one in returns:
        print(one.num, one.status.name, flush=True)


if __name__ == "__main__":
    main()
