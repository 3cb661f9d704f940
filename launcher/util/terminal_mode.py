"""The mode of the terminal while single keys are read: a key comes at once and is not echoed. Ctrl-C stays a signal.

Rule: the mode that was there before comes back however the process ends: at the end of the display, at an exception, at SIGTERM, and
right before a controller that was interrupted twice ends itself.
"""

from __future__ import annotations

import contextlib
import os
import termios
from typing import Any

__all__ = ["is_ours", "read_keys", "restore", "show_cursor"]

#: Descriptor -> its mode before, and ours.
_changed: dict[int, tuple[list[Any], list[Any]]] = {}
_LOCAL_FLAGS, _CHARACTERS = 3, 6
_SHOW_CURSOR = b"\x1b[?25h"


def is_ours(fd: int) -> bool:
    """Whether we are in the foreground of this terminal. Who is not would be stopped at reading it or changing its mode."""
    try:
        return os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False


def read_keys(fd: int) -> None:
    """Set the mode, or set it again: after Ctrl-Z, the shell has set its own.

    Raises:
        OSError: it cannot be set.
    """
    try:
        now = termios.tcgetattr(fd)
        before, ours = _changed.get(fd, (now, []))
        if now == ours:
            return
        mode = [*now]
        mode[_CHARACTERS] = [*now[_CHARACTERS]]
        mode[_LOCAL_FLAGS] &= ~(termios.ICANON | termios.ECHO)
        mode[_CHARACTERS][termios.VMIN], mode[_CHARACTERS][termios.VTIME] = 1, 0
        # What was typed before stays, because TCSAFLUSH would drop it.
        _changed[fd] = (before, mode)
        termios.tcsetattr(fd, termios.TCSANOW, mode)
        _changed[fd] = (before, termios.tcgetattr(fd))
    except termios.error as error:
        raise OSError(*error.args) from None


def restore() -> None:
    """Put back the modes from before. Safe in a signal handler, and twice."""
    for fd, (before, _) in list(_changed.items()):
        with contextlib.suppress(OSError, termios.error):
            if is_ours(fd):
                termios.tcsetattr(fd, termios.TCSANOW, before)
        # Only now: an exception before this leaves it to the next call.
        _changed.pop(fd, None)


def show_cursor(fd: int) -> None:
    """Show the cursor again, if this is a terminal."""
    with contextlib.suppress(OSError):
        if os.isatty(fd):
            os.write(fd, _SHOW_CURSOR)
