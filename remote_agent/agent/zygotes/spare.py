"""A spare: a Python that is started ahead of time. While the agent starts, it imports what every job needs.

Rule: jobs cannot tell whether there was one. A spare knows nothing of the run and has imported nothing of the application. It is
used only if the zygote would be started with the same command and environment. Else it is closed, and the zygote starts without it.
"""

import os
import socket
import subprocess
import sys
from typing import Callable, Dict, List, Optional, Tuple, Union

from remote_agent.protocol.constants import SPARE, SPARE_ENVIRONMENT, THREADS
from remote_agent.protocol.fields import is_sha256
from remote_agent.protocol.specs.zygote import ZygoteSpec
from remote_agent.system.private_files import SpoolError, make_private_folder, open_private
from remote_agent.system.processes import OtherProcess

__all__ = [
    "PATIENCE",
    "Process",
    "Spare",
    "chosen_python",
    "in_environment",
    "spare_of",
    "start_process",
    "start_spare",
    "zygote_command",
]

#: A zygote must take what it is given within this many seconds. Otherwise it is killed, and another one is started.
PATIENCE = 10.0

#: One that this agent has started, or another one before it.
Process = Union["subprocess.Popen[bytes]", OtherProcess]


class Spare:
    """A zygote's process that does not know yet what to prepare.

    Args:
        environment: its Python is that of an environment of packages.
        threads: of a job's numerical libraries; 0 for what they choose.
    """

    def __init__(
        self,
        python: str,
        log_path: str,
        process: Process,
        sock: socket.socket,
        environment: bool = False,
        threads: int = 0,
    ) -> None:
        self.python = python
        self.environment = environment
        self.threads = threads
        self.log_path = log_path
        self.process = process
        self.sock = sock

    def fits(self, spec: ZygoteSpec) -> bool:
        """Whether a zygote of this spec would be started in the same way."""
        is_plain = not spec.setup and not spec.environ and spec.isolation != "spawn"
        return (
            is_plain
            and spec.environment == self.environment
            and chosen_python(spec.python) == self.python
            and self.process.poll() is None
        )

    def close(self) -> None:
        """Close it, because nobody uses it. It ends when its socket is closed."""
        self.sock.close()


def chosen_python(python: Optional[str]) -> str:
    """Return the Python of a zygote without setup lines."""
    return os.path.expanduser(str(python or sys.executable or "python3"))


def in_environment(python: str, variables: Dict[str, str]) -> Dict[str, str]:
    """Return variables as if the environment of this Python were activated, so that jobs find the programs of its packages."""
    folder = os.path.dirname(python)
    # The first import writes bytecode for all later runs.
    kept = {name: value for name, value in variables.items() if name != "PYTHONDONTWRITEBYTECODE"}
    path = os.pathsep.join([folder, variables.get("PATH", os.defpath)])
    return dict(kept, VIRTUAL_ENV=os.path.dirname(folder), PATH=path)


def zygote_command(python: str, fd: int, bundle: str, *more: str) -> List[str]:
    """Return the command that starts a zygote."""
    return [python, os.path.join(bundle, "remote_agent", "zygote", "entry.py"), str(fd), bundle, *more]


def start_process(
    log_path: str, command: Callable[[int], List[str]], environment: Dict[str, str]
) -> "Tuple[subprocess.Popen[bytes], socket.socket]":
    """Start a zygote's process. Returns it with our end of its socket.

    Args:
        command: takes the descriptor of the process's end, and returns the command.

    Raises:
        OSError: it cannot be started.
    """
    log_fd = open_private(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    ours.settimeout(PATIENCE)
    try:
        process = subprocess.Popen(
            command(theirs.fileno()),
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            env=environment,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            cwd="/",
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        os.close(log_fd)
    return process, ours


def spare_of(spec: ZygoteSpec) -> Optional[str]:
    """Return the Python of a spare for zygotes of this spec, as `start_spare` takes it; None if none would fit."""
    if spec.setup or spec.environ or spec.isolation == "spawn":
        return None
    if spec.environment:
        return SPARE_ENVIRONMENT + str(spec.code["environment"]["key"])
    return spec.python or ""


def start_spare(python: str, bundle: str, spool: str, cache: str, threads: int = 0) -> Optional[Spare]:
    """Start a spare under this Python (empty: the agent's own), or under that of an environment in the cache folder.

    `threads`: of a job's numerical libraries; 0 for what they choose.

    Returns None if it cannot be started; the zygote will then report why.
    """
    key = python[len(SPARE_ENVIRONMENT) :] if python.startswith(SPARE_ENVIRONMENT) else None
    variables = dict(os.environ)
    if key is None:
        chosen = chosen_python(python)
    else:
        chosen = os.path.join(cache, "envs", key, "bin", "python")
        if not is_sha256(key) or not os.path.exists(chosen):
            return None
        variables = in_environment(chosen, variables)
    for name in THREADS if threads else ():
        variables.setdefault(name, str(threads))
    logs = os.path.join(spool, "logs")
    try:
        make_private_folder(logs)
        log_path = os.path.join(logs, "zygote-{}".format(len(os.listdir(logs))))
        process, sock = start_process(log_path, lambda fd: zygote_command(chosen, fd, bundle, SPARE), variables)
    except (OSError, SpoolError):
        return None
    return Spare(chosen, log_path, process, sock, environment=key is not None, threads=threads)
