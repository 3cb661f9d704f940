"""The socket of the agent, and the file `agent.json` in the spool that says which process is the agent.

Rule: a spool has one agent. Before an agent is started, the file is read. If the socket of an agent is removed (by a clean-up,
say), the agent creates it again, so that it can be reached.
"""

import json
import os
import selectors
import socket
import stat
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from remote_agent.system.host import boot_id
from remote_agent.system.private_files import SpoolError, make_private_folder, open_private
from remote_agent.system.processes import birth, is_alive

if TYPE_CHECKING:
    # `connect` reads this module before it starts the zygote's Python, which everything waits for.
    from remote_agent.agent.spool.paths import SpoolPaths

__all__ = ["SOCKET", "Listener", "other_agent"]

SOCKET = "agent.sock"
_IDENTITY_FILE = "agent.json"
#: Seconds between two checks of the socket, and between two signs of life (the file time of `agent.json`).
_CHECK_EVERY = 1.0
_TOUCH_EVERY = 60.0
#: An agent on another machine counts as dead after this many seconds without a sign of life.
_DEAD_AFTER = 300.0


class Listener:
    """Accepts `connect` processes.

    Args:
        accept: called with the listening socket when somebody connects.
        note: tells the user.
    """

    def __init__(
        self,
        paths: "SpoolPaths",
        listener: socket.socket,
        selector: selectors.BaseSelector,
        accept: Callable[[socket.socket, int], None],
        note: Callable[[str], None],
    ) -> None:
        self._path = os.path.join(paths.where.runtime, SOCKET)
        self._identity_path = os.path.join(paths.spool, _IDENTITY_FILE)
        self._runtime = paths.where.runtime
        self._listener = listener
        self._selector = selector
        self._accept = accept
        self._note = note
        self._identity = {
            "pid": os.getpid(),
            "start": birth(os.getpid()),
            "boot": paths.boot,
            "machine": socket.gethostname(),
        }
        self._check_at = self._touch_at = 0.0
        self._inode = _inode(self._path)
        selector.register(listener, selectors.EVENT_READ, accept)
        self._write_identity()

    def _write_identity(self) -> None:
        fd = open_private(self._identity_path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(self._identity, file)
        os.rename(self._identity_path + ".new", self._identity_path)

    def tick(self, now: float) -> None:
        """Check that the socket is in its place. If it is not, create it again."""
        if now < self._check_at:
            return
        self._check_at = now + _CHECK_EVERY
        try:
            if now >= self._touch_at:
                self._touch_at = now + _TOUCH_EVERY
                os.utime(self._identity_path)
            if _inode(self._path) != self._inode and _read_identity(self._identity_path) == self._identity:
                self._bind()
        except (OSError, SpoolError) as error:
            self._note("the agent's socket {} was removed and cannot be created again: {}".format(self._path, error))

    def _bind(self) -> None:
        make_private_folder(self._runtime)
        here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # A relative name, because the path of a long home is too long for AF_UNIX.
            os.chdir(self._runtime)
            if os.path.lexists(SOCKET + ".new"):
                os.unlink(SOCKET + ".new")
            listener.bind(SOCKET + ".new")
            listener.listen(16)
            os.rename(SOCKET + ".new", SOCKET)
        except BaseException:
            listener.close()
            raise
        finally:
            os.fchdir(here)
            os.close(here)
        self._selector.unregister(self._listener)
        self._listener.close()
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._inode = _inode(self._path)
        self._note("the agent's socket was removed; the agent has created it again")

    def close(self) -> None:
        """Accept no more connections."""
        self._selector.unregister(self._listener)
        self._listener.close()


def _inode(path: str) -> int:
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    return status.st_ino if stat.S_ISSOCK(status.st_mode) else 0


def _read_identity(path: str) -> Optional[Dict[str, Any]]:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def other_agent(spool: str) -> Optional[int]:
    """Return the process of the spool's agent, if it is alive on this machine.

    Raises:
        SpoolError: it is alive on another machine that shares this folder.
    """
    path = os.path.join(spool, _IDENTITY_FILE)
    note = _read_identity(path)
    if note is None:
        return None
    if note.get("boot") == boot_id():
        pid = note.get("pid")
        return pid if isinstance(pid, int) and is_alive(pid, str(note.get("start"))) else None
    here = socket.gethostname()
    if note.get("machine") != here and _seconds_since(path, spool) < _DEAD_AFTER:
        raise SpoolError(
            "the agent of this run is on {}, but this connection has reached {}: name that host itself, not a name for several".format(
                note.get("machine"), here
            )
        )
    return None


def _seconds_since(path: str, folder: str) -> float:
    """Return how long ago a file was touched, by the clock of the machine that has the folder."""
    probe = os.path.join(folder, ".now.{}".format(os.getpid()))
    os.close(open_private(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    try:
        return os.stat(probe).st_mtime - os.stat(path).st_mtime
    finally:
        os.unlink(probe)
