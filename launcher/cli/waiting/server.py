"""The process that waits: it has imported the launcher, and forks a process for the next commands of its session.

Rule: nobody can tell whether a command was forked here, except by the time. It serves only a process of this user in its own session (so with its own terminal)
that has what it has itself: Python, packages, the variables that were read at the import, limits, namespaces, and all else that a process inherits.
All other variables, folder, umask and streams are those of the command. It has run nothing, has no thread, and was given none but the
variables of which a Python is made. If anything that it has loaded changes on the disk, or its session ends, it ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

# Who checks types need not look at the rest for another system.
assert sys.platform == "linux"

from launcher.cli.waiting.client import STARTED, facts, may_wait  # noqa: E402 - see above
from launcher.cli.waiting.served import Request, hear, keep_company  # noqa: E402 - see above
from launcher.cli.waiting.variables import at_start, import_recording  # noqa: E402 - see above
from remote_agent.system.waiting.forking import LOOK_EVERY, Asked, Forking, Refused  # noqa: E402 - see above
from remote_agent.system.waiting.inherited import inherited  # noqa: E402 - see above
from remote_agent.system.waiting.warm_store import WarmStore  # noqa: E402 - see above

__all__ = ["WaitingCommand", "main"]

#: stdin, stdout, stderr, and the pipe that is open as long as the command's own process lives.
_FDS = 4
_STREAMS = frozenset({"0", "1", "2"})
_CLOEXEC_FLAG = 0o2000000


class WaitingCommand(Forking):
    """The process.

    Args:
        path: `sys.path` of the commands that it serves.
        read: the variables that were read while the launcher was imported; None if all of them were.
    """

    here = "machine"

    def __init__(
        self, store: WarmStore, name: str, idle: float, path: Sequence[str], read: frozenset[str] | None
    ) -> None:
        super().__init__(store, name, idle)
        self._path = list(path)
        self._read = read
        #: Of all variables, those that Python and its libraries read before the first of our lines.
        self.variables = at_start(dict(os.environ))

    def wait(self) -> Request | None:
        """Wait and fork. Returns None at the end of the waiting, and, in each fork, what its command is."""
        leader = os.pidfd_open(os.getsid(0))
        listener, inode = self.listen()
        own = os.getpid()
        deadline = time.monotonic() + self.idle
        try:
            while time.monotonic() < deadline:
                why = self.why_end(inode)
                if why:
                    print(f"the process ends: {why}", file=sys.stderr, flush=True)
                    return None
                left = max(0.0, min(deadline - time.monotonic(), LOOK_EVERY))
                ready = select.select([listener.fileno(), leader], [], [], left)[0]
                if leader in ready:
                    print("the process ends: its session has ended", file=sys.stderr, flush=True)
                    return None
                if listener.fileno() in ready:
                    request = self._accept(listener, leader)
                    if request is not None:
                        return request
                    deadline = time.monotonic() + self.idle
            return None
        finally:
            # A fork has closed both, and must not remove what is not its own.
            if os.getpid() == own:
                listener.close()
                os.close(leader)
                self.store.remove(self.name)

    def _accept(self, listener: socket.socket, leader: int) -> Request | None:
        """Serve one that has connected. Returns None, and, in the fork, what its command is."""
        sock = self.accept(listener)
        asked = None
        with sock:
            try:
                asked = self.granted(sock)
                process = os.pidfd_open(asked.pid)
                fork = os.fork()
                if fork == 0:
                    listener.close()
                    os.close(leader)
                    # In the fork of the fork this returns, and only there.
                    return keep_company(sock, asked.request, asked.fds, asked.pid, process)
                os.close(process)
                print(f"process {fork} has forked a command", file=sys.stderr, flush=True)
            except (OSError, Refused) as error:
                print(f"no process was forked: {error}", file=sys.stderr, flush=True)
            for fd in asked.fds if asked is not None else ():
                os.close(fd)
        return None

    def granted(self, sock: socket.socket) -> Asked:
        """Return what the other end asks for, if a process may be forked for it.

        Raises:
            OSError, Refused: it may not.
        """
        with self.asked(sock, _FDS, _read) as (told, fds, pid):
            request, its_facts = told
            self._check(request, its_facts, pid)
        return Asked(request, fds, pid)

    def _check(self, request: Request, told: Any, pid: int) -> None:
        """Check that the process that asks would become what is forked here.

        Raises:
            Refused: it would not.
        """
        proc = f"/proc/{pid}"
        if told != facts() or not os.path.samefile(f"{proc}/exe", "/proc/self/exe"):
            raise Refused("it runs another Python")
        if request.path != self._path:
            raise Refused("it has another sys.path")
        if os.getsid(pid) != os.getsid(0) or pid == os.getsid(0):
            raise Refused("it belongs to another session")
        why = self.misfit_of({os.fsdecode(name): os.fsdecode(value) for name, value in request.variables.items()})
        if why:
            raise Refused(why)
        if inherited(proc, pid=pid) != inherited() or _passed_on(proc, pid) != _passed_on("/proc/self", 0):
            raise Refused("it has other limits")
        if _open_files(proc) - _STREAMS:
            raise Refused("it was given more files than the three streams")
        self.check_unchanged()
        if len(os.listdir("/proc/self/task")) != 1:
            raise Refused("there are threads")

    def misfit_of(self, theirs: dict[str, str]) -> str:
        """Return which of a command's variables this process would have to have been started with; empty if none."""
        if not may_wait(theirs):
            return "it is to have a start of its own"
        if theirs.get("KRB5CCNAME", "").startswith("KEYRING:"):
            return "its tickets are in a keyring"
        own = at_start(theirs)
        names = {*own, *self.variables}
        if self._read is None:
            return "the import reads all variables"
        wrong = [name for name in names if own.get(name) != self.variables.get(name)]
        wrong += [name for name in self._read - names if name in theirs]
        return f"it has another value of the variable {min(wrong)}" if wrong else ""


def _passed_on(proc: str, pid: int) -> list[Any]:
    """What a process passes on, beside what makes hosts' processes alike: where it is accounted for, and what it sees as its root."""
    said: list[Any] = [os.sched_getscheduler(pid), os.stat(f"{proc}/root").st_ino, os.stat(f"{proc}/root").st_dev]
    for name in ("cgroup", "personality", "coredump_filter", "loginuid", "timerslack_ns"):
        try:
            with open(f"{proc}/{name}", encoding="utf-8") as file:
                said.append(file.read())
        except OSError:
            said.append(None)  # this kernel does not say it
    return said


def _open_files(proc: str) -> set[str]:
    """The descriptors that a process was given, or would pass on. What Python opens itself is closed on exec."""
    found = set()
    for fd in os.listdir(f"{proc}/fd"):
        with contextlib.suppress(FileNotFoundError), open(f"{proc}/fdinfo/{fd}", encoding="ascii") as file:
            flags = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)["flags"]
            if not int(flags, 8) & _CLOEXEC_FLAG:
                found.add(fd)
    return found


def _read(told: Any) -> tuple[Request, Any]:
    """Return the request that this is, and the facts of its Python.

    Raises:
        ValueError, TypeError: it is none.
    """
    argv, original, path, its_facts, variables = told
    texts = [argv, original, path]
    if not all(isinstance(one, list) and all(isinstance(word, str) for word in one) for one in texts) or not argv:
        raise ValueError("this is no request")
    if not isinstance(variables, dict) or not all(isinstance(one, bytes) for pair in variables.items() for one in pair):
        raise ValueError("this is no request")
    return Request(argv, original, path, variables), its_facts


def _rehearse_composing() -> None:
    """Do ahead what every first config takes, if the commands compose with Hydra."""
    if "hydra" in sys.modules:
        from launcher.config.rehearsal import rehearse

        rehearse()


def main(cache: str, name: str, idle: float, path: Sequence[str], expected: object, modules: Sequence[str]) -> bool:
    """Be the process. Returns True in each fork that is to be a command, and False at the end of the waiting.

    Args:
        expected: the `facts` of the commands that it is for.
        modules: what it imports.
    """
    os.setpgid(0, 0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    store = WarmStore(cache)
    if facts() != expected:
        store.remove(name)
        return False
    with _ended(store, name):
        read = import_recording(modules, _rehearse_composing)
        request = WaitingCommand(store, name, idle, path, read).wait()
    if request is None:
        return False
    STARTED.update(path=path, facts=expected, by=name)
    hear(request)
    return True


@contextlib.contextmanager
def _ended(store: WarmStore, name: str) -> Iterator[None]:
    """Nothing is left of it if it fails before it waits."""
    own = os.getpid()
    try:
        yield
    except BaseException:
        if os.getpid() == own:
            store.remove(name)
        raise
