"""Two forks of the process that waits: the command, and its parent, which sees how the command ends.

Rule: the command becomes all that the process that has asked is: group, folder, umask, streams, variables, arguments. It begins only when that process has
stepped aside, and the kernel kills it when that process is gone. The parent ends with the command; no process that waits knows of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import io
import os
import signal
import socket
import sys
import time
import types
from collections.abc import Sequence
from typing import Any, NamedTuple

# Who checks types need not look at the rest for another system.
assert sys.platform == "linux"

from launcher.cli.waiting.client import word  # noqa: E402 - see above
from launcher.cli.waiting.follow import PASSED_ON, take_pending  # noqa: E402 - see above

__all__ = ["Request", "hear", "keep_company"]

#: fcntl(2): which signal says that something has arrived. Python has no name for it before 3.13.
_F_SETSIG = 10


class Request(NamedTuple):
    """What a command's process is.

    Attributes:
        argv, original, path: `sys.argv`, `sys.orig_argv`, `sys.path`.
        variables: all, as bytes.
        pending: signals that have come before the command has begun.
    """

    argv: list[str]
    original: list[str]
    path: list[str]
    variables: dict[bytes, bytes]
    pending: frozenset[int] = frozenset()


def keep_company(sock: socket.socket, request: Request, fds: Sequence[int], pid: int, process: int) -> Request:
    """Fork the command, and stay until it has ended. Returns only in the command.

    Args:
        fds: stdin, stdout, stderr, and a pipe that is open as long as the process lives that has asked.
        pid, process: that process, and a descriptor of it.
    """
    os.setpgid(0, 0)
    # The process that has asked is in this group soon, and the command in that one's.
    fork = os.fork()
    if fork == 0:
        os.close(process)
        try:
            return request._replace(pending=_become(sock, request, fds, pid))
        except (OSError, ValueError) as error:
            # It starts by itself.
            print(f"no command was begun: {error}", file=sys.__stderr__, flush=True)
            os._exit(1)
    code = 1
    try:
        for fd in fds:
            os.close(fd)
        status = _watch(fork, process)
        # It may be gone, and then nobody wants to know.
        with contextlib.suppress(OSError):
            sock.sendall(f"s{status};".encode())
        code = 0
    finally:
        os._exit(code)


def _watch(fork: int, process: int) -> int:
    """Wait for the command; returns how it ended. Stop the process that has asked for it when it is stopped, and let both go on together."""
    while True:
        _, status = os.waitpid(fork, os.WUNTRACED | os.WCONTINUED)
        if os.WIFSTOPPED(status) or os.WIFCONTINUED(status):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGSTOP if os.WIFSTOPPED(status) else signal.SIGCONT)
        else:
            return status


def _become(sock: socket.socket, request: Request, fds: Sequence[int], pid: int) -> frozenset[int]:
    """Become what the process would have become that has asked, when it has stepped aside. Returns the signals that have come before; all are
    blocked until `hear`.

    Raises:
        OSError, ValueError: it is gone, or does not want to.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    os.setpgid(0, os.getpgid(pid))
    os.chdir(f"/proc/{pid}/cwd")
    os.umask(_umask(pid))
    lifeline = fds[3]
    sock.sendall(f"y{os.getpid()},{os.getppid()};".encode())
    told = word(sock).removeprefix("g")
    pending = frozenset([*take_pending(), *(int(number) for number in told.split(",") if number)])
    _die_with(lifeline)
    for target, fd in enumerate(fds[:3]):
        os.dup2(fd, target)
        os.close(fd)
    sock.close()
    os.environ.clear()
    os.environb.update(request.variables)
    time.tzset()
    sys.argv[:] = request.argv
    sys.orig_argv[:] = request.original
    sys.path[:] = request.path
    _open_streams()
    sys.modules["__main__"] = _script(request.argv[0])
    importlib.invalidate_caches()
    return pending


def hear(request: Request) -> None:
    """Hear signals from now on, and those that have come before."""
    for number in request.pending & set(PASSED_ON):
        os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)


def _open_streams() -> None:
    """Make the streams as Python makes them when it starts: those of the process that waited have looked at other files."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        before = getattr(sys, name)
        binary: Any = open(fd, f"{mode}b", closefd=False)  # noqa: SIM115 - it stays open as long as the process
        binary.raw.name = f"<{name}>"
        is_line = os.isatty(fd) or name == "stderr"
        newline = None if name == "stdin" else "\n"
        stream: Any = io.TextIOWrapper(binary, before.encoding, before.errors, newline, line_buffering=is_line)
        stream.mode = mode
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _umask(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return next(int(line.split()[1], 8) for line in file if line.startswith("Umask:"))


def _die_with(lifeline: int) -> None:
    """Be killed by the kernel when the other end of this pipe is closed, whatever this process does then."""
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        os.read(lifeline, 1)
        # It was closed before the kernel was asked.
        os.kill(os.getpid(), signal.SIGKILL)


def _script(file: str) -> types.ModuleType:
    """The module that Python makes of the console script."""
    made = types.ModuleType("__main__")
    made.__file__ = file
    return made
