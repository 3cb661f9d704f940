"""What another library logs, kept instead of shown: it may have addresses with secrets, and there is one warning, which is ours.

Rule: while it is kept, nothing of it reaches the user's handlers. The logger is as before afterwards.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

__all__ = ["kept_log"]


class _Keeper(logging.Handler):
    def __init__(self, told: list[str]) -> None:
        super().__init__()
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self._told.append(record.getMessage())


@contextlib.contextmanager
def kept_log(name: str, told: list[str]) -> Iterator[None]:
    """Within this context, warnings and errors of this logger and of those below it come into `told`, and nowhere else."""
    logger, keeper = logging.getLogger(name), _Keeper(told)
    before, logger.propagate = logger.propagate, False
    logger.addHandler(keeper)
    try:
        yield
    finally:
        logger.removeHandler(keeper)
        logger.propagate = before
