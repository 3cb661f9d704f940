"""A callback that writes down which hook fired for which job, in one file for both sides: they share this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import launcher

#: The folder around the project.
ROOT = Path("/tmp/hydra-remote-launcher-stored")


def tell(text: str) -> None:
    """Add a line, whole, to what was told."""
    with (ROOT / "told").open("a") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())


def wait_for(path: str) -> None:
    """Wait until a file is there; for as long as this process lives."""
    import threading

    while path and not Path(path).exists():
        threading.Event().wait(0.02)


class Telling(launcher.Callback):
    """Tells of each hook; `known` is its state."""

    def __init__(self) -> None:
        self.known = 0

    def on_run_start(self, config: Any, **kwargs: Any) -> None:
        self.known += 1
        tell(f"on_run_start {self.known}")

    def on_run_end(self, config: Any, **kwargs: Any) -> None:
        tell(f"on_run_end {self.known} {kwargs['job_return'].status.name}")

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        self.known += 1
        tell(f"on_multirun_start {self.known}")

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        statuses = " ".join(one.status.name for one in kwargs.get("job_returns", ()))
        tell(f"on_multirun_end {self.known} {statuses}".rstrip())

    def on_job_start(self, config: Any, **kwargs: Any) -> None:
        tell(f"on_job_start {config.n} {self.known}")

    def on_job_end(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        tell(f"on_job_end {config.n} {self.known} {job_return.status.name}")

    def on_job_return(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        tell(f"on_job_return {job_return.num} {self.known} {job_return.status.name}")
