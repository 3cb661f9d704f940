"""A stream whose reader is gone: what is still in its buffer must not fail at exit (docs.python.org, `signal`, on SIGPIPE)."""

from __future__ import annotations

import os
import sys
from typing import TextIO

__all__ = ["drop", "flush_stdout"]


def flush_stdout() -> bool:
    """Flush what was printed. Returns False if the reader is gone, and drops what is left then."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        drop(sys.stdout)
        return False
    return True


def drop(stream: TextIO) -> None:
    """Let a stream write nowhere from now on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
