"""Reads the keys that a user presses while a run is shown.

Rule: it reads only in the foreground, and not while a hook of the user runs, which may want the terminal itself. If that takes longer, the terminal
gets its usual mode back until the hook has ended.
"""

from __future__ import annotations

import os
import re
import select
import threading
from collections.abc import Callable, Iterator

from launcher.util import terminal_mode

__all__ = ["KeyReader", "keys_in"]

#: Seconds between two checks whether this process is still in the foreground. Below: between two while a hook runs.
_CHECK_EVERY = 0.5
_PAUSE = 0.1
#: Checks of a hook that runs, until the terminal gets its usual mode back.
_PATIENCE = 3

_NAMES = {
    "\x1b[A": "up", "\x1bOA": "up", "\x1b[B": "down", "\x1bOB": "down", "\x1b[C": "right", "\x1b[D": "left", "\x1bOC": "right",
    "\x1bOD": "left", "\x1b[5~": "page up", "\x1b[6~": "page down", "\x1b[H": "home", "\x1b[1~": "home", "\x1bOH": "home",
    "\x1b[F": "end", "\x1b[4~": "end", "\x1bOF": "end", "\r": "enter", "\n": "enter", "\x1b": "escape", "\x7f": "backspace",
    "\b": "backspace",
}  # fmt: skip
#: A sequence that begins with ESC, or one character.
_KEY = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO[@-~]|.", re.DOTALL)


def keys_in(data: bytes) -> Iterator[str]:
    """Yield the names of keys: the character, or a word such as `up`. Unknown sequences are left out."""
    for match in _KEY.finditer(data.decode("utf-8", "ignore")):
        text = match.group()
        if text in _NAMES:
            yield _NAMES[text]
        elif len(text) == 1 and text.isprintable():
            yield text


class KeyReader:
    """Reads in a thread, which calls `press` with each key.

    Args:
        fd: the terminal.
        press: called in the reader's thread.
        is_paused: whether somebody else may read the terminal now.
    """

    def __init__(self, fd: int, press: Callable[[str], None], is_paused: Callable[[], bool]) -> None:
        self._fd = fd
        self._press = press
        self._is_paused = is_paused
        self._thread: threading.Thread | None = None
        self._wake: tuple[int, int] | None = None

    def open(self) -> None:
        """Set the terminal's mode, and begin to read.

        Raises:
            OSError: the terminal is gone.
        """
        if terminal_mode.is_ours(self._fd):
            terminal_mode.read_keys(self._fd)
        self._wake = os.pipe()
        self._thread = threading.Thread(target=self._run, args=(self._wake[0],), name="keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Put back the terminal's mode, and read no more. Any thread may call it, also that of `press`."""
        wake, self._wake = self._wake, None
        if wake is not None:
            os.close(wake[1])
            if self._thread is not None and self._thread is not threading.current_thread():
                self._thread.join()
        terminal_mode.restore()

    def _run(self, wake: int) -> None:
        paused = 0
        try:
            while True:
                watched = [wake] if paused else [wake, self._fd]
                ready, _, _ = select.select(watched, [], [], _PAUSE if paused else _CHECK_EVERY)
                if wake in ready or self._wake is None:
                    return
                # Look after the wait: a hook may have begun in it.
                if self._is_paused():
                    paused += 1
                    if paused == _PATIENCE:
                        terminal_mode.restore()
                    continue
                paused = 0
                if not terminal_mode.is_ours(self._fd):
                    # In the background; typed keys are not for us.
                    paused = 1
                    continue
                terminal_mode.read_keys(self._fd)
                if self._fd in ready and not self._take():
                    return
        except OSError:
            return  # the terminal is gone, which the signal SIGHUP says, too
        finally:
            os.close(wake)

    def _take(self) -> bool:
        data = os.read(self._fd, 1 << 12)
        for key in keys_in(data):
            self._press(key)
        return bool(data)
