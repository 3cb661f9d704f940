"""Programs that this process runs: small ones that answer at once, and those that must not be left behind.

Rule: a program that takes long has a process group of its own, so that what it has started ends with it. A group gets a signal only while its
leader is known to be there: nobody else can have its number then.
"""

import os
import signal
import subprocess
import sys
from typing import Callable, Mapping, Optional, Sequence

__all__ = ["answer_of", "end_group", "start_group"]

_PR_SET_PDEATHSIG = 1


def answer_of(
    command: Sequence[str], *, timeout: float, env: Optional[Mapping[str, str]] = None
) -> "Optional[subprocess.CompletedProcess[bytes]]":
    """Run a program that reads nothing. Returns its exit code and what it printed; None if it is missing or takes too long."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=env, timeout=timeout, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def start_group(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Optional[str], stderr: int = subprocess.PIPE
) -> "subprocess.Popen[bytes]":
    """Start a program that reads nothing and whose output is read. Where the system can, it dies with the thread that starts it.

    Raises:
        OSError: it cannot be started.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=env,
        cwd=cwd,
        start_new_session=True,
        # What runs in the fork was loaded before it, and takes no lock.
        preexec_fn=_die_with_parent() if sys.platform == "linux" else None,  # noqa: PLW1509
    )


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Kill a program and what it has started. Whoever waits for it learns of it."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return  # it has ended, and so have those of its group that are ours


def _die_with_parent() -> Optional[Callable[[], None]]:
    # A controller whose environments are all there starts no program.
    import ctypes

    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None:
        return None
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it died before

    return ask
