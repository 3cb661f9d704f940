"""The application of `launcher demo`: an ordinary Hydra app, with its callbacks in the same file.

It runs without the launcher, too: `python my_app.py`, or `python my_app.py -m case=slow,fast`.
"""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Any

import hydra
from hydra.experimental.callback import Callback

log = logging.getLogger(__name__)


class Diary(Callback):
    """Records which hook fired, where, and in which process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started_by = 0
        self.seen: list[int] = []

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """On the controller: attributes that are set here are sent to the hosts."""
        self.started_by = os.getpid()

    def on_job_start(self, config: Any, **kwargs: Any) -> None:
        """On the host, in the job's process."""
        self._write(config, "on_job_start", f"controller {self.started_by}, code {Path(__file__).resolve()}")

    def on_job_end(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        """On the host: after success, after an exception, and also after SIGKILL."""
        self._write(config, f"on_job_end {job_return.status.name}", "")

    def on_job_return(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        """On the controller: when a JobReturn arrives (plain Hydra does not have this hook)."""
        self.seen = [*self.seen, job_return.num]

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        """On the controller: after all jobs, whatever happened to them."""
        log.info("%s saw the jobs return in the order %s", self.name, self.seen)

    def _write(self, config: Any, what: str, more: str) -> None:
        print(f"{self.name}: {what}, process {os.getpid()}", flush=True)
        with (Path(config.hydra.runtime.output_dir) / "diary.txt").open("a", encoding="utf-8") as file:
            file.write(f"{self.name}: {what}, {more}\n")


@hydra.main(version_base=None, config_path="conf", config_name="config")
def train(cfg: Any) -> float:
    """Find the minimum of x squared by gradient descent; two of the cases do not finish."""
    x = 1.0
    for step in range(cfg.steps):
        if cfg.case == "killed" and step == 3:
            log.info("step %d: now the kernel kills this process", step)
            os.kill(os.getpid(), signal.SIGKILL)
        x -= cfg.rate[cfg.case] * 2 * x
        if abs(x) > 100:
            raise OverflowError(f"diverged at step {step}: |x| is {abs(x):.0f}")
    log.info("after %d steps x is %.6f", cfg.steps, x)
    return round(x * x, 6)


if __name__ == "__main__":
    train()
