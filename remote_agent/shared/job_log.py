"""Our own messages in a job's log: how it failed, what happened to a hook.

Rule: they go where the job's logging goes, but to stderr instead of stdout, because a job's stdout may be data for
another program.
"""

import contextlib
import logging
import sys
from typing import TYPE_CHECKING, Any, Iterator

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter

__all__ = ["hook_logger", "logger"]


class _OwnLog(_Adapter):
    def log(self, level: int, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log a message as ours."""
        with _stderr_for_stdout():
            super().log(level, msg, *args, **kwargs)


@contextlib.contextmanager
def _stderr_for_stdout() -> Iterator[None]:
    handlers = [
        handler
        for handler in logging.root.handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout
    ]
    for handler in handlers:
        handler.stream = sys.stderr
    try:
        yield
    finally:
        for handler in handlers:
            handler.stream = sys.stdout


logger = _OwnLog(logging.getLogger("remote_agent.run_job"), {})
hook_logger = _OwnLog(logging.getLogger("remote_agent.callbacks"), {})
