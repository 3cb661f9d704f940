"""The command's own process, where another one waits: asks that for a fork, which is the command, and ends as it ends.

Rule: it imports next to nothing, and decides before anything has been done: if anything does not fit, the command starts here as it would have
without. The fork takes this process's place in its process group, so it gets what is typed, and all signals for the group. This process
leaves the group, and passes on what only it gets. If it is killed, the kernel kills the fork.

It sends `<8 hex digits: length><request>` with its stdin, stdout and stderr and the end of a pipe that is open as long as it lives. The request is a literal:
(sys.argv, sys.orig_argv, sys.path, facts of its Python, variables). The answer is `y<pid of the fork>,<process group to wait in>;`, or the end. It then says
`g<signals that wait for it>;`, and hears `s<status of the fork>;` at the end.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["COMMANDS", "NO_WARM", "PREFIX", "STARTED", "facts", "may_wait", "serve_if_waiting", "word"]

#: Commands that may be forked from a process that waits. They end by themselves, and ask nothing.
COMMANDS = ("run", "multirun", "runs", "show", "table", "logs")
#: `remote_agent.agent.zygotes.warm` has it, too.
NO_WARM = "HYDRA_REMOTE_LAUNCHER_NO_WARM"
#: How the names of the sockets begin; then comes the session.
PREFIX = "command-"
#: How this process was started: `sys.path`, and `facts`. Empty if not by the console script.
STARTED: dict[str, Any] = {}
#: Seconds for the process to answer.
_PATIENCE = 2.0
_ANSWER = 64
_PLATFORM: str = sys.platform


def facts() -> tuple[Any, ...]:
    """What two Pythons must have in common, beside files, variables and what they inherit."""
    return (sys.version, sys.executable, sys.prefix, tuple(sys.flags), sorted(sys._xoptions), list(sys.warnoptions))  # noqa: SLF001 - it has no public name


def serve_if_waiting() -> None:
    """Have this command served, if a process waits that fits. Then this does not return."""
    STARTED.update(path=list(sys.path), facts=facts())
    if sys.argv[1:2] == [] or sys.argv[1] not in COMMANDS or not may_wait(os.environ):
        return
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        return  # one is closed, and what is opened next would be taken for it
    for path in _sockets(_folder()):
        _ask(path)


def may_wait(environment: Any) -> bool:
    """Whether this may be a command that is served, or leaves a process."""
    if _PLATFORM != "linux" or environment.get(NO_WARM) or "_LAUNCHER_COMPLETE" in environment:
        return False
    session = os.getsid(0)
    # The first process of a session cannot leave its process group, and nobody comes after it. And the end of a session is seen only by the
    # end of its first process: 0 is one of another namespace.
    return session not in (0, os.getpid()) and os.path.exists(f"/proc/{session}") and os.getuid() == os.geteuid()


def _folder() -> str:
    """The folder of all that waits. `launcher.util.user_folders` has it, too."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return os.path.join(
        base if os.path.isabs(base) else os.path.expanduser("~/.cache"), "hydra-remote-launcher", "warm"
    )


def _sockets(folder: str) -> list[str]:
    """The sockets of those that wait for this session, in folders that only this user can have made them in."""
    prefix, found = f"{PREFIX}{os.getsid(0)}-", []
    try:
        for boot in os.listdir(folder):
            inner = os.path.join(folder, boot)
            found += [
                os.path.join(inner, name)
                for name in os.listdir(inner)
                if name.startswith(prefix) and name.endswith(".sock")
            ]
            if found and not (_is_private(folder) and _is_private(inner)):
                return []
    except OSError:
        return []
    return found


def _is_private(folder: str) -> bool:
    status = os.lstat(folder)
    return status.st_uid == os.geteuid() and status.st_mode & 0o170077 == 0o040000


def _ask(path: str) -> None:
    """Ask the process that listens at this path. Returns if it does not serve this command."""
    import _socket

    lifeline, held = os.pipe()
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.settimeout(_PATIENCE)
        _connect(sock, path)
        peer = sock.getsockopt(_socket.SOL_SOCKET, getattr(_socket, "SO_PEERCRED", 0), 12)
        if int.from_bytes(peer[4:8], sys.byteorder) == os.geteuid():
            _send(sock, [0, 1, 2, lifeline])
            pid, group = (int(text) for text in word(sock).removeprefix("y").split(","))
            _follow(sock, pid, group)
    except (OSError, ValueError):
        return  # nothing was done: the command starts here, as without it
    finally:
        sock.close()
        os.close(lifeline)
        os.close(held)


def _follow(sock: Any, pid: int, group: int) -> None:
    if sys.platform == "linux":
        from launcher.cli.waiting.follow import follow, step_aside

        fork = step_aside(sock, pid, group)
        if fork is not None:
            follow(sock, fork)


def _send(sock: Any, fds: list[int]) -> None:
    from _socket import SCM_RIGHTS, SOL_SOCKET

    told = repr((sys.argv, sys.orig_argv, sys.path, facts(), dict(os.environb.items()))).encode(
        "utf-8", "surrogatepass"
    )
    data = b"%08x" % len(told) + told
    carried = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
    sent = sock.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, carried)])
    while sent < len(data):
        sent += sock.send(data[sent:])


def _connect(sock: Any, path: str) -> None:
    # By the folder's descriptor, because the path of a long home is too long for AF_UNIX.
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)


def word(sock: Any) -> str:
    """Receive one word byte by byte, so that nothing of the next is taken. Returns it without the `;` at its end.

    Raises:
        OSError: the other end is gone, or slow.
        ValueError: it says something else.
    """
    data = b""
    while not data.endswith(b";"):
        part = sock.recv(1)
        if not part or len(data) > _ANSWER:
            raise ValueError("this is no answer")
        data += part
    return data[:-1].decode("ascii")
