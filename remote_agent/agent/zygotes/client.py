"""The agent's end of a zygote: starts it, sends it file descriptors, and reads its messages.

Rule: the zygote runs under the job environment's Python, which may be another than the agent's and may lack everything;
nothing is assumed of it but a socket.
"""

import array
import errno
import os
import shutil
import socket
import subprocess
from typing import Dict, List, Optional, Tuple

from remote_agent.agent.zygotes import setup_lines
from remote_agent.agent.zygotes.spare import Spare, chosen_python, start_process, zygote_command
from remote_agent.job import JobError
from remote_agent.shared import wire
from remote_agent.shared.messages import Start
from remote_agent.shared.zygote_spec import ZygoteSpec

__all__ = ["ZygoteClient", "ZygoteGone", "send_with_fds"]


class ZygoteGone(OSError):
    """The zygote ended before it had the whole of what it was given."""


def send_with_fds(sock: socket.socket, data: bytes, fds: List[int]) -> None:
    """Send a frame whose first byte carries the descriptors. The socket is blocking."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sent = sock.sendmsg([data], ancillary)
    if sent < len(data):
        sock.sendall(memoryview(data)[sent:])


class ZygoteClient:
    """One zygote of a run; `state` is waiting, laying out, starting, ready, dying, failed or dead."""

    def __init__(self, key: str, spec: ZygoteSpec) -> None:
        self.key = key
        self.spec = spec
        self.state = "waiting"
        self.python = ""
        self.isolation = ""
        self.error: Optional[JobError] = None
        self.why = ""
        self.notes: List[str] = []
        #: How often the controller was asked for what it waits for.
        self.asks = 0
        self.sock: Optional[socket.socket] = None
        self.process: Optional[subprocess.Popen] = None  # type: ignore[type-arg]
        self._decoder = wire.Decoder()
        self._log_path = ""
        self._setup: List[setup_lines.SetupLine] = []
        self._token = os.urandom(8).hex()
        #: Attempts that were handed over and whose process has not been reported as ended.
        self.children: Dict[str, Optional[int]] = {}

    def start(self, bundle: str, log_path: str, code_root: Optional[str], shared_file: str, default_cwd: str) -> None:
        """Start the process and tell it what to prepare.

        Raises:
            OSError: it cannot be started.
        """
        environment = dict(os.environ)
        if self.spec.environment and self.spec.python:
            # As if it were activated: programs that packages bring are found. Its first import writes bytecode for all later runs.
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
            folder = os.path.dirname(self.spec.python)
            environment["VIRTUAL_ENV"] = os.path.dirname(folder)
            environment["PATH"] = os.pathsep.join([folder, environment.get("PATH", os.defpath)])
        environment.update(self.spec.environ)
        self._log_path = log_path
        self.process, self.sock = start_process(log_path, lambda fd: self._command(bundle, fd), environment)
        self.state = "starting"
        self._send_prepare(code_root, shared_file, default_cwd)

    def adopt(self, spare: Spare, code_root: Optional[str], shared_file: str, default_cwd: str) -> bool:
        """Take a process that is there already, and tell it what to prepare; False: it has ended."""
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
            # What was before it is none of its business.
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
        # A login shell, so that `module` and `conda` are there; what it prints goes to the log.
        shell = shutil.which("bash") or "/bin/sh"
        self._setup = setup_lines.split(self.spec.setup, shell)
        lines = setup_lines.script(self._setup, self._token, self._log_path, shell, fd)
        return [shell, "-lc", lines, "zygote", *zygote_command(os.path.expanduser(python or "python3"), fd, bundle)]

    def fork(self, header: Start, payload: bytes, fds: List[int]) -> None:
        """Have it fork a job or an epilogue.

        Raises:
            ZygoteGone: it is gone, or hangs and was ended; it forked nothing of this.
        """
        if self.sock is None:
            raise ZygoteGone(errno.EPIPE, "the zygote is gone")
        self.children[header["attempt"]] = None
        try:
            send_with_fds(self.sock, wire.encode(header, payload, passed_on=True), fds)
        except OSError as error:
            del self.children[header["attempt"]]
            # Nothing more is given to it; its end is read from its socket.
            self.state = "dying"
            if self.process is not None:
                # Where it hangs with half a frame, nothing else can be said to it; gone already is as well.
                self.process.kill()
            raise ZygoteGone(errno.EPIPE, "the zygote is gone: {}".format(error.strerror or error)) from None

    def receive(self) -> Tuple[List[wire.Frame], bool]:
        """What it said, and whether it has gone. One that speaks nonsense is ended."""
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
        """What to tell of the setup line that failed; None where they went well. The process has ended, or will at once."""
        if not self._setup:
            return None
        status = None
        if self.process is not None:
            try:
                status = self.process.wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                pass  # told without its status
        return setup_lines.failure(self._log_end(1 << 16), self._token, self._setup, status, self.spec.environ)

    def log_tail(self) -> str:
        """The last of what the zygote and its setup lines printed."""
        return setup_lines.without_marks(self._log_end(8192)).strip()

    def _log_end(self, size: int) -> str:
        try:
            with open(self._log_path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - size))
                return file.read().decode("utf-8", "replace")
        except OSError as error:
            return "(its log cannot be read: {})".format(error)

    def close(self) -> None:
        """Let go of it; it ends when its last child has."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        self.state = "dead"


def _below(folder: str, path: str) -> str:
    return path if os.path.isabs(path) else os.path.normpath(os.path.join(folder, path))
