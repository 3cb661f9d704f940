"""The end of a forked command: all that Python does at an end, but for taking modules apart, which copies the memory that the fork shares.

Rule: it is imported before all else that may want to do something at the end, so it comes after all of that.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable

__all__ = ["run_to_end"]

_codes: list[int] = []


def run_to_end(command: Callable[[], None]) -> None:
    """Run a command that raises SystemExit. Anything else ends the process as Python does it."""
    try:
        command()
    except SystemExit as leaving:
        if isinstance(leaving.code, int):
            _codes.append(leaving.code)
        raise


@atexit.register
def _leave() -> None:
    if not _codes:
        return
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (OSError, ValueError):
        return  # Python says so itself
    os._exit(_codes[0] & 0xFF)
