"""The process that waits: it has imported the launcher, and forks a process for the next commands of its session.

Rule: nobody can tell whether a command was forked here, except by the time. It serves only a process of this user in its own session (so with its own terminal)
that has what it has itself: Python, packages, the variables that were read at the import, limits, namespaces, and all else that a process inherits.
All other variables, folder, umask and streams are those of the command. It has run nothing, has no thread, and was given none but the
variables of which a Python is made. If anything that it has loaded changes on the disk, or its session ends, it ends.
"""

from __future__ import annotations

import array
import ast
import contextlib
import gc
import os
import select
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

# Who checks types need not look at the rest for another system.
assert sys.platform == "linux"

from launcher.cli.waiting.client import STARTED, facts, may_wait  # noqa: E402 - see above
from launcher.cli.waiting.served import Request, hear, keep_company  # noqa: E402 - see above
from launcher.cli.waiting.variables import at_start, import_recording  # noqa: E402 - see above
from remote_agent.system.inherited import FREE_MEMORY, free_memory, inherited  # noqa: E402 - see above
from remote_agent.system.loaded_files import Stamp, changed_of, loaded_files, stamps_of  # noqa: E402 - see above
from remote_agent.system.warm_store import WarmStore, peer_of  # noqa: E402 - see above

__all__ = ["Refused", "WaitingCommand", "main", "receive"]

#: Seconds for a command to say what it wants. It says it at once.
_PATIENCE = 1.0
#: Seconds between two looks whether it may wait on.
_LOOK_EVERY = 5.0
#: Bytes of a request, nearly all of which are variables.
_LONGEST = 4 << 20
#: stdin, stdout, stderr, and the pipe that is open as long as the command's own process lives.
_FDS = 4
_STREAMS = frozenset({"0", "1", "2"})
_CLOEXEC_FLAG = 0o2000000


class Refused(Exception):
    """No process is forked for who has asked."""


class Asked(NamedTuple):
    """A request that is granted."""

    request: Request
    fds: list[int]
    #: The process that has asked.
    pid: int


class WaitingCommand:
    """The process.

    Args:
        name: the name of its record and socket.
        idle: for how many seconds it waits for the next command.
        path: `sys.path` of the commands that it serves.
        read: the variables that were read while the launcher was imported; None if all of them were.
    """

    def __init__(
        self, store: WarmStore, name: str, idle: float, path: Sequence[str], read: frozenset[str] | None
    ) -> None:
        self._store = store
        self._name = name
        self._idle = idle
        self._path = list(path)
        self._read = read
        #: Of all variables, those that Python and its libraries read before the first of our lines.
        self.variables = at_start(dict(os.environ))
        self.stamps: dict[str, Stamp] = {}

    def wait(self) -> Request | None:
        """Wait and fork. Returns None at the end of the waiting, and, in each fork, what its command is."""
        self.stamps = stamps_of(loaded_files())
        leader = os.pidfd_open(os.getsid(0))
        gc.collect()
        gc.freeze()
        listener, inode = self._store.listen(self._name)
        own = os.getpid()
        deadline = time.monotonic() + self._idle
        try:
            while time.monotonic() < deadline:
                why = self.why_end(inode)
                if why:
                    print(f"the process ends: {why}", file=sys.stderr, flush=True)
                    return None
                _reap()
                left = max(0.0, min(deadline - time.monotonic(), _LOOK_EVERY))
                ready = select.select([listener.fileno(), leader], [], [], left)[0]
                if leader in ready:
                    print("the process ends: its session has ended", file=sys.stderr, flush=True)
                    return None
                if listener.fileno() in ready:
                    request = self._accept(listener, leader)
                    if request is not None:
                        return request
                    deadline = time.monotonic() + self._idle
            return None
        finally:
            # A fork has closed both, and must not remove what is not its own.
            if os.getpid() == own:
                listener.close()
                os.close(leader)
                self._store.remove(self._name)

    def why_end(self, inode: int) -> str:
        """Return why it must not wait on; empty if it may. `inode`: that of its socket."""
        if self._store.inode(self._name) != inode:
            return "its socket was removed"
        if free_memory() < FREE_MEMORY:
            return "the machine has too little free memory"
        changed = changed_of(self.stamps)
        return f"{changed[0]} has changed" if changed else ""

    def _accept(self, listener: socket.socket, leader: int) -> Request | None:
        """Serve one that has connected. Returns None, and, in the fork, what its command is."""
        sock, _ = listener.accept()
        asked = None
        with sock:
            try:
                sock.settimeout(_PATIENCE)
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
        pid, uid = peer_of(sock)
        if uid != os.geteuid():
            raise Refused("another user has connected")
        fds = array.array("i")
        try:
            request, told = receive(sock, fds)
            if len(fds) != _FDS:
                raise Refused("it did not send its descriptors")
            self._check(request, told, pid)
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return Asked(request, list(fds), pid)

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
        changed = changed_of(self.stamps)
        if changed:
            raise Refused(f"{changed[0]} has changed")
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


def receive(sock: socket.socket, fds: array.array[int]) -> tuple[Request, Any]:
    """Receive a request and its descriptors. Returns it with the facts of its Python.

    Raises:
        OSError: it does not arrive in time.
        Refused: it is none.
    """
    data = b""
    length = None
    while length is None or len(data) < 8 + length:
        part, ancillary, _, _ = sock.recvmsg(1 << 18, socket.CMSG_SPACE(_FDS * fds.itemsize), socket.MSG_CMSG_CLOEXEC)
        for _, _, content in ancillary:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        if not part:
            raise Refused("it has gone")
        data += part
        if length is None and len(data) >= 8:
            length = _length(data[:8])
    try:
        return _read(ast.literal_eval(data[8 : 8 + length].decode("utf-8", "surrogatepass")))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise Refused("it asks for something else") from None


def _length(text: bytes) -> int:
    try:
        length = int(text, 16)
    except ValueError:
        raise Refused("it asks for something else") from None
    if not 0 <= length <= _LONGEST:
        raise Refused("it asks for too much")
    return length


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


def _reap() -> None:
    """Take note of forks that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


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
