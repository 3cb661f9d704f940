"""The command's own process, after its fork has taken its place: passes on signals, and ends as the fork ends.

Rule: each signal reaches the fork once. Those for the process group, such as Ctrl-C, the fork gets itself, because it is in the group and this process no
longer is. All others are passed on. When the fork is stopped, its parent stops this process, so that a shell sees it.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Who checks types need not look at the rest for another system.
assert sys.platform == "linux"

__all__ = ["PASSED_ON", "follow", "step_aside", "take_pending"]

#: What reaches this process and would have reached the command. SIGKILL needs no passing on, and SIGSTOP cannot be.
PASSED_ON = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGWINCH,
)


def step_aside(sock: Any, pid: int, group: int) -> int | None:
    """Leave the process group to the fork, and tell it to begin.

    Returns:
        A descriptor of the fork; None if it could not be done, and the fork ends by itself.
    """
    before = os.getpgrp()
    signal.pthread_sigmask(signal.SIG_BLOCK, [*PASSED_ON, signal.SIGIO])
    try:
        fork = os.pidfd_open(pid)
        os.setpgid(0, group)
    except OSError:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [*PASSED_ON, signal.SIGIO])
        return None
    pending = take_pending()
    try:
        sock.sendall("g{};".format(",".join(str(int(number)) for number in pending)).encode())
    except OSError:
        os.setpgid(0, before)
        for number in pending:
            os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [*PASSED_ON, signal.SIGIO])
        return None
    return fork


def take_pending() -> list[int]:
    """Return the blocked signals that wait for this process, which then no longer wait."""
    found = [number for number in signal.sigpending() if number in PASSED_ON]
    for number in found:
        signal.sigtimedwait([number], 0)
    return found


def follow(sock: Any, fork: int) -> None:
    """Pass on signals until the fork has ended, and end as it has. Does not return. `fork`: a descriptor of it."""
    try:
        _follow(sock, fork)
    finally:
        # Who knows how the fork ends is gone, or this process cannot go on. It must not become the command: without it, the fork ends, too.
        os.kill(os.getpid(), signal.SIGKILL)


def _follow(sock: Any, fork: int) -> None:
    sock.setblocking(False)
    # A signal says that something has arrived, so one wait is enough for that and for all other signals.
    fcntl.fcntl(sock.fileno(), fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sock.fileno(), fcntl.F_SETFL, fcntl.fcntl(sock.fileno(), fcntl.F_GETFL) | os.O_ASYNC)
    said = b""
    while True:
        try:
            part = sock.recv(64)
            said += part
            if not part:
                break
        except BlockingIOError:
            pass
        if said.endswith(b";"):
            break
        number = signal.sigwaitinfo([*PASSED_ON, signal.SIGIO]).si_signo
        if number != signal.SIGIO:
            try:
                signal.pidfd_send_signal(fork, number)
            except ProcessLookupError:
                continue  # it has ended, which is about to be said
    if said.startswith(b"s") and said.endswith(b";"):
        _end(os.waitstatus_to_exitcode(int(said[1:-1])))


def _end(code: int) -> None:
    """End with this exit code, or by this signal if it is negative."""
    if code >= 0:
        os._exit(code)
    number = -code
    # The core that tells something is that of the fork.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    sys.stderr.flush()
    os._exit(128 + number)
