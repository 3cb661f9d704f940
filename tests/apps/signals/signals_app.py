"""A sweep whose hooks wait for files, so that a test can signal its controller where it likes.

python signals_app.py MARKS JOBS        under the plain way; `signals_app.py:work` is the task for the command line

What a callback does is said by files in MARKS: it leaves `<callback>.<hook>.<num>.entered` and `.done`, and waits while `hold.<callback>.<hook>` is there.
"""

import os
import sys
import threading
from pathlib import Path
from typing import Any

import launcher

MARKS = Path(os.environ.get("MARKS", "."))


def work(cfg: Any) -> int:
    """A job: waits for a gate, where there is one to wait for."""
    (MARKS / f"ran.{cfg.x}").touch()
    while (MARKS / f"gate.{cfg.x}").exists():
        threading.Event().wait(0.01)
    return cfg.x


class Marker(launcher.Callback):
    """Leaves marks."""

    def _mark(self, hook: str, num: Any) -> None:
        name = type(self).__name__.lower()
        (MARKS / f"{name}.{hook}.{num}.entered").touch()
        while (MARKS / f"hold.{name}.{hook}").exists():
            threading.Event().wait(0.01)
        with (MARKS / f"{name}.{hook}.{num}.done").open("a") as file:
            file.write("x")

    def on_multirun_start(self, **kwargs: Any) -> None:
        self._mark("start", "run")

    def on_job_return(self, job_return: Any, **kwargs: Any) -> None:
        self._mark("return", job_return.num)

    def on_multirun_end(self, **kwargs: Any) -> None:
        self._mark("end", "run")


class First(Marker):
    """The first."""


class Second(Marker):
    """The second."""


if __name__ == "__main__":
    launcher.multirun(
        work,
        [{"x": x} for x in range(int(sys.argv[1]))],
        callbacks=[First(), Second()],
        folder="out",
        hosts="local/2",
    )
