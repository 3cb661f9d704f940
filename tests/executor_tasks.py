"""Tasks of `test_executor.py`, in a module that a bare host can import."""

import threading
from pathlib import Path
from typing import Any


def double(x: int) -> int:
    """A task with an argument of its own."""
    return 2 * x


def of_config(cfg: Any) -> Any:
    """A task with a config."""
    return cfg.x


def waits(path: str) -> str:
    """A task that waits for a file."""
    Path(path + ".began").touch()
    while not Path(path).exists():
        threading.Event().wait(0.01)
    return path


def opens(path: str) -> int:
    """The number that somebody writes into a fifo."""
    with open(path, encoding="ascii") as file:
        return int(file.read())
