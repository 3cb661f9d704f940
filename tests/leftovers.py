"""Processes that tests have left behind: they are named with the test that started them, and ended."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import warnings

#: Seconds in which a process may still end by itself, and then those after SIGTERM.
_PATIENCE = (10.0, 5.0)


def end_leftovers(variable: str) -> None:
    """End each process that has this `NAME=value` in its environment, and is not this one. Each is told in a warning."""
    if sys.platform != "linux":  # elsewhere the environment of another process is not to be read
        return
    found = _processes(variable)
    try:
        for attempt, patience in enumerate(_PATIENCE):
            _wait(list(found), patience)
            for handle, told in found.items():
                if _wait([handle], 0):
                    continue
                if not attempt:
                    warnings.warn(f"left over by a test, and ended now: {told}", stacklevel=1)
                signal.pidfd_send_signal(handle, signal.SIGKILL if attempt else signal.SIGTERM)
    finally:
        for handle in found:
            os.close(handle)


def _processes(variable: str) -> dict[int, str]:
    """A descriptor of each such process, and what is told of it."""
    found = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if pid == os.getpid():
            continue
        try:
            handle = os.pidfd_open(pid)
        except OSError:  # it has ended, or is a thread
            continue
        environment = _read(pid, "environ")
        command = _read(pid, "cmdline").replace("\0", " ").strip()
        # What multiprocessing keeps beside this process ends with it.
        if variable in environment.split("\0") and "multiprocessing" not in command:
            test = re.search(r"(?:^|\0)PYTEST_CURRENT_TEST=([^\0]*)", environment)
            found[handle] = f"process {pid} of {test[1] if test else 'an unknown test'}: {command[:150]}"
        else:
            os.close(handle)
    return found


def _read(pid: int, name: str) -> str:
    try:
        with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # it has ended, or is another user's
        return ""


def _wait(handles: list[int], seconds: float) -> bool:
    """Whether all of these have ended. It waits for one after another."""
    waiting = set(handles)
    poll = select.poll()
    for handle in waiting:
        poll.register(handle, select.POLLIN)
    while waiting:
        ended = {handle for handle, _ in poll.poll(seconds * 1000)}
        if not ended:
            return False
        for handle in ended:
            poll.unregister(handle)
        waiting -= ended
    return True
