"""An application whose jobs fail while a file says so, with callbacks that record hooks. What differs from run to run is in no config.

python again_app.py FOLDER JOBS: a sweep in that folder, which continues the one there. With AGAIN_DIES=N, its controller is killed when N jobs have
returned.
"""

from __future__ import annotations

import os
import signal
import sys
import uuid
from pathlib import Path
from typing import Any

import launcher


def note(marks: str, kind: str, what: Any) -> None:
    """Leave a mark."""
    folder = Path(marks) / kind
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{what}.{uuid.uuid4().hex}").touch()


def work(cfg: Any) -> Any:
    """A job: leaves a mark and a file, and fails if `fail` names it."""
    note(cfg.marks, "ran", cfg.x)
    Path(launcher.current_job().output_dir, f"of-{cfg.x}").touch()
    fail = Path(cfg.marks) / "fail"
    if fail.exists() and str(cfg.x) in fail.read_text().split():
        raise ValueError(f"{cfg.x} fails")
    return {"x": cfg.x, "long": "y" * cfg.get("long", 0)}


class Recorder(launcher.Callback):
    """Records hooks of the controller, and kills it if that is asked for."""

    def __init__(self, marks: str) -> None:
        self.marks = marks
        self.returned = 0

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        note(self.marks, "start", "run")
        if os.environ.get("AGAIN_ABORTS"):
            raise RuntimeError("as asked")

    def on_job_return(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        note(self.marks, "return", config.x)
        self.returned += 1
        if os.environ.get("AGAIN_DIES") == str(self.returned):
            os.kill(os.getpid(), signal.SIGKILL)

    def on_multirun_end(self, config: Any, job_returns: Any, **kwargs: Any) -> None:
        note(self.marks, "end", " ".join(str(one.num) for one in job_returns))


if __name__ == "__main__":
    marks = str(Path(__file__).parent / "marks")
    configs = [{"x": x, "marks": marks} for x in map(int, sys.argv[2].split(","))]
    launcher.multirun(work, configs, folder=sys.argv[1], callbacks=[Recorder(marks)], continue_sweep=True)
