"""The agent's end of a zygote: starts it, sends it file descriptors, and reads its messages.

Rule: the zygote runs under the job environment's Python, which may differ from the agent's and have no packages. Only a
socket is assumed.
"""

import errno
import os
import shutil
import socket
import subprocess
from typing import Any, Dict, List, Optional, Tuple

from remote_agent.agent.zygotes import setup_lines
from remote_agent.agent.zygotes.spare import (
    Process,
    Spare,
    chosen_python,
    in_environment,
    start_process,
    zygote_command,
)
from remote_agent.job import JobError
from remote_agent.protocol import wire
from remote_agent.protocol.constants import THREADS
from remote_agent.protocol.messages import Start
from remote_agent.protocol.specs.zygote import ZygoteSpec
from remote_agent.shared.descriptors import send_with_fds

__all__ = ["ZygoteClient", "ZygoteGone"]


class ZygoteGone(OSError):
    """The zygote ended before it had received everything."""


class ZygoteClient:
    """One zygote of a run; `state` is waiting, starting, ready, dying, failed or dead."""

    def __init__(self, key: str, spec: ZygoteSpec) -> None:
        self.key = key
        self.spec = spec
        self.state = "waiting"
        self.python = ""
        self.isolation = ""
        self.error: Optional[JobError] = None
        self.why = ""
        self.notes: List[str] = []
        self.imported: Optional[Dict[str, Any]] = None
        #: What a warm interpreter for the next run imports, if it may have one.
        self.again: Optional[Dict[str, List[str]]] = None
        #: It runs and prepares the application. If it ends from now on, its Python is not the reason.
        self.has_spoken = False
        #: How often the controller was asked for the missing content.
        self.asks = 0
        self.sock: Optional[socket.socket] = None
        self.process: Optional[Process] = None
        self._decoder = wire.Decoder()
        self._log_path = ""
        self._setup: List[setup_lines.SetupLine] = []
        self._token = os.urandom(8).hex()
        #: Attempts that were handed over, with their pids, until the end of their process is reported.
        self.children: Dict[str, Optional[int]] = {}

    def start(
        self, bundle: str, log_path: str, code_root: Optional[str], shared_file: str, default_cwd: str, threads: int
    ) -> None:
        """Start the process and tell it what to prepare.

        Args:
            threads: of a job's numerical libraries, which ask when they are imported; 0 for what they choose. The user's own word wins.

        Raises:
            OSError: it cannot be started.
        """
        self._log_path = log_path
        self.process, self.sock = start_process(
            log_path, lambda fd: self._command(bundle, fd), self.environment(threads)
        )
        self.state = "starting"
        try:
            self._send_prepare(code_root, shared_file, default_cwd)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended already: its socket will show that, and its log says why

    def environment(self, threads: int) -> Dict[str, str]:
        """Return the variables with which its process starts. `threads`: see `start`."""
        environment = dict(os.environ)
        if self.spec.environment and self.spec.python:
            environment = in_environment(self.spec.python, environment)
        for name in THREADS if threads else ():
            environment.setdefault(name, str(threads))
        environment.update(self.spec.environ)
        return environment

    def own_threads(self) -> List[str]:
        """Return the variables for threads that the user has not set."""
        return [name for name in THREADS if name not in os.environ and name not in self.spec.environ]

    def adopt(self, spare: Spare, code_root: Optional[str], shared_file: str, default_cwd: str) -> bool:
        """Use a process that exists already, and tell it what to prepare. Returns False if it has ended."""
        self._log_path, self.process, self.sock = spare.log_path, spare.process, spare.sock
        self.state = "starting"
        try:
            self._send_prepare(code_root, shared_file, default_cwd)
        except OSError:
            self.close()
            return False
        return True

    def _send_prepare(self, code_root: Optional[str], shared_file: str, default_cwd: str) -> None:
        base = code_root or default_cwd
        spec = self.spec._replace(
            # The zygote does not need what was used to start it.
            environ={},
            setup=[],
            python=None,
            environment=False,
            code_blob=None,
            code_root=code_root,
            sys_path=[_below(base, path) for path in self.spec.sys_path],
            cwd=_below(base, self.spec.cwd or "."),
            shared_file=shared_file,
        )
        assert self.sock is not None
        self.sock.sendall(wire.encode({"t": "prepare", "zygote": self.key, "spec": spec.to_json()}))

    def _command(self, bundle: str, fd: int) -> List[str]:
        python = self.spec.python
        if not self.spec.setup:
            return zygote_command(chosen_python(python), fd, bundle)
        # A login shell, so that `module` and `conda` are there. Its output goes to the log.
        shell = shutil.which("bash") or "/bin/sh"
        self._setup = setup_lines.split(self.spec.setup, shell)
        lines = setup_lines.script(self._setup, self._token, self._log_path, shell, fd)
        return [shell, "-lc", lines, "zygote", *zygote_command(os.path.expanduser(python or "python3"), fd, bundle)]

    def fork(self, header: Start, payload: bytes, fds: List[int]) -> None:
        """Let it fork a job or an epilogue.

        Raises:
            ZygoteGone: it is gone, or it hung and was ended. It did not fork this.
        """
        if self.sock is None:
            raise ZygoteGone(errno.EPIPE, "the zygote is gone")
        self.children[header["attempt"]] = None
        try:
            send_with_fds(self.sock, wire.encode(header, payload, passed_on=True), fds)
        except OSError as error:
            del self.children[header["attempt"]]
            # It gets nothing more. Its end will show on its socket.
            self.state = "dying"
            if self.process is not None:
                # If it hangs with half a frame, nothing more can be sent to it. If it is gone already, this does no harm.
                self.process.kill()
            raise ZygoteGone(errno.EPIPE, "the zygote is gone: {}".format(error.strerror or error)) from None

    def receive(self) -> Tuple[List[wire.Frame], bool]:
        """Return its messages, and whether it is gone. A zygote that sends nonsense is ended."""
        if self.sock is None:
            return [], False
        try:
            data = self.sock.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            return [], True
        try:
            return self._decoder.feed(data), False
        except wire.ProtocolError as error:
            if self.process is not None:
                self.process.kill()
            return error.frames, True

    def setup_failure(self) -> Optional[str]:
        """Return the error of the setup line that failed; None if all succeeded.

        The process has ended, or is about to.
        """
        if not self._setup:
            return None
        status = None
        if self.process is not None:
            try:
                status = self.process.wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                pass  # the error is reported without the exit status
        return setup_lines.failure(self._log_end(1 << 16), self._token, self._setup, status, self.spec.environ)

    def log_tail(self) -> str:
        """Return the last part of what the zygote and its setup lines printed."""
        return setup_lines.without_marks(self._log_end(8192)).strip()

    def _log_end(self, size: int) -> str:
        try:
            with open(self._log_path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - size))
                return file.read().decode("utf-8", "replace")
        except OSError as error:
            return "(its log cannot be read: {})".format(error)

    def close(self) -> None:
        """Close the connection to it. It ends when its last child has ended."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        self.state = "dead"


def _below(folder: str, path: str) -> str:
    return path if os.path.isabs(path) else os.path.normpath(os.path.join(folder, path))
