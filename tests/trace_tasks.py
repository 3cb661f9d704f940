"""Tasks that say what they are told of the trace. Hosts import this module, and have no package of the tests'."""

from __future__ import annotations

import os
import time
from typing import Any

import launcher


class Hooks(launcher.Callback):
    """Has hooks on both sides."""

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """On the controller."""

    def on_job_start(self, config: Any, **kwargs: Any) -> None:
        """On the host."""

    def on_job_end(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        """On the host."""

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        """On the controller."""


def train(cfg: Any) -> str | None:
    """Return what the job is told."""
    if cfg.fails:
        raise ValueError("bad")
    return os.environ.get("TRACEPARENT")


def gated(cfg: Any) -> str | None:
    """Wait until a file is there, and return what the job is told."""
    while not os.path.exists(cfg.gate):
        time.sleep(0.02)
    return os.environ.get("TRACEPARENT")
