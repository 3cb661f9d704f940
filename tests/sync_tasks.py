"""Tasks that write output files for as long as they are told. Hosts import this module, and have no package of the tests'."""

from __future__ import annotations

import base64
import os
import time
from typing import Any

import launcher


def grows(cfg: Any) -> str:
    """Go on at each line that comes over a FIFO, and change the files in every way."""
    folder = launcher.current_job().output_dir
    path = os.path.join(folder, "log")
    with open(cfg.gate) as gate, open(path, "a", buffering=1) as log:
        for line in gate:
            if line == "end\n":
                break
            log.write(line)
            with open(os.path.join(folder, "best"), "w") as best:
                best.write(line)
    os.rename(path, path + ".old")
    os.makedirs(os.path.join(folder, "late"))
    with open(os.path.join(folder, "late", "file"), "w") as file:
        file.write("late")
    return "done"


def writes_events(cfg: Any) -> None:
    """Append bytes, each in base64 in a line that comes over a FIFO, to a file of events."""
    path = os.path.join(launcher.current_job().output_dir, "tb", "events.out.tfevents.1")
    os.makedirs(os.path.dirname(path))
    with open(cfg.gate) as gate, open(path, "ab", buffering=0) as file:
        file.writelines(base64.b64decode(line) for line in gate)


def waits(cfg: Any) -> None:
    """Write a line, and another one when a file is in the home folder."""
    with open(os.path.join(launcher.current_job().output_dir, "log"), "w", buffering=1) as log:
        log.write("one\n")
        while not os.path.exists(os.path.expanduser("~/go")):
            time.sleep(0.05)
        log.write("two\n")


def fails_once(cfg: Any) -> str:
    """Leave files in each attempt, and fail in the first one."""
    job = launcher.current_job()
    for name in ("log", f"only-{job.attempt}"):
        with open(os.path.join(job.output_dir, name), "w") as file:
            file.write(f"attempt {job.attempt}")
    if job.attempt == 1:
        raise ValueError("as asked")
    return "done"
