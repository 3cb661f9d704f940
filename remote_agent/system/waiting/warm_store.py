"""What waits on this host for the next run, as its records in the cache folder say: warm interpreters, fork servers of agents, and those of commands.

Rule: a record is written before its process can be found, and a process gets a signal only if its record's birth is its own. Nobody but this user
may enter the folder. Machines that share the cache folder, and lives of a machine, have a folder each.

    <cache>/warm/<boot>/<name>.json    its record
    <cache>/warm/<boot>/<name>.sock    its socket, as soon as it waits
    <cache>/warm/<boot>/<name>.log     what it printed

A warm interpreter is named <key>-<token>. A fork server is named agent-<bundle>-<python>-<token>, which stage-0 looks for. On the machine of the controller,
command-<session>-<token> is a process from which the next command `launcher` of that session is forked.
"""

import hashlib
import json
import os
import signal
import socket
import struct
import sys
import time
from typing import Dict, List, NamedTuple, Tuple

from remote_agent.protocol.fields import FieldError, read, to_json
from remote_agent.shared.disk import remove_tree
from remote_agent.system.host import boot_id
from remote_agent.system.private_files import make_private_folder, open_private
from remote_agent.system.processes import birth, is_alive

__all__ = ["COMMAND", "FORK_SERVER", "WarmRecord", "WarmStore", "peer_of"]

#: How the name of a fork server begins.
FORK_SERVER = "agent-"
#: How the name of one begins from which commands are forked.
COMMAND = "command-"

_VERSION = 1
#: Only Linux has it, and only there are such processes.
_PEERCRED: int = getattr(socket, "SO_PEERCRED", 0)
#: Seconds after which the folder of another boot counts as left.
_OLD = 7 * 86_400.0
#: The record goes last: without it, nothing else is there.
_SUFFIXES = (".sock", ".log", ".json")


class WarmRecord(NamedTuple):
    """One that waits.

    Attributes:
        name: the name of its files.
        pid, started: its process; see `remote_agent.system.processes.birth`.
        application: the module that is imported first; empty for one from which is forked.
        since: when it was started, in seconds since the epoch.
        idle: for how many seconds it waits.
        has_packages: it has imported packages of the application, or Hydra.
    """

    name: str
    pid: int
    started: str
    application: str
    python: str
    since: float
    idle: float
    has_packages: bool = True

    @property
    def is_fork_server(self) -> bool:
        """Whether agents are forked from it."""
        return self.name.startswith(FORK_SERVER)

    @property
    def is_command(self) -> bool:
        """Whether commands `launcher` are forked from it."""
        return self.name.startswith(COMMAND)

    @property
    def is_interpreter(self) -> bool:
        """Whether it is a warm interpreter."""
        return not self.is_fork_server and not self.is_command


class WarmStore:
    """The folder of what waits in this boot."""

    def __init__(self, cache: str) -> None:
        self.root = os.path.join(cache, "warm")
        self.folder = os.path.join(self.root, hashlib.sha256(boot_id().encode("utf-8")).hexdigest()[:16])

    def make(self) -> None:
        """Make the folder.

        Raises:
            OSError, SpoolError: it cannot be made, or is not private.
        """
        make_private_folder(self.root)
        make_private_folder(self.folder)

    def path(self, name: str, suffix: str) -> str:
        """Return the path of one of its files."""
        return os.path.join(self.folder, name + suffix)

    def write(self, record: WarmRecord) -> None:
        """Write a record.

        Raises:
            OSError: it cannot be written.
        """
        fd = open_private(self.path(record.name, ".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(dict(to_json(record), version=_VERSION), file)
        os.rename(self.path(record.name, ".new"), self.path(record.name, ".json"))

    def start(
        self,
        name: str,
        command: List[str],
        variables: Dict[str, str],
        told: bytes = b"",
        *,
        idle: float,
        has_packages: bool = True,
        new_session: bool = False,
    ) -> None:
        """Start one of this Python, which outlives this process. Nobody here waits for its end.

        Args:
            told: what it reads from its stdin.
            new_session: it belongs to no terminal.

        Raises:
            OSError, SpoolError: it cannot be started, or its record not be written.
        """
        import subprocess

        log = open_private(self.path(name, ".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=variables,
                cwd="/",
                start_new_session=new_session,
            )
        finally:
            os.close(log)
        assert process.stdin is not None
        try:
            with process.stdin:
                born = birth(process.pid)
                self.write(WarmRecord(name, process.pid, born, "", sys.executable, time.time(), idle, has_packages))
                process.stdin.write(told)
        except BaseException:
            process.kill()
            process.wait()
            raise
        # It is nobody's child when this process has ended.
        process.returncode = 0

    def records(self) -> List[WarmRecord]:
        """Return the records of those that are alive, the oldest first."""
        found = []
        for name in self._names(".json"):
            try:
                with open(self.path(name, ".json"), encoding="utf-8") as file:
                    found_there = json.load(file)
                record = read(WarmRecord, "record", found_there, {"has_packages": True})
            except (OSError, ValueError, FieldError):
                continue  # it has just ended, or is nothing of ours
            if found_there.get("version") == _VERSION and record.name == name and is_alive(record.pid, record.started):
                found.append(record)
        return sorted(found, key=lambda record: record.since)

    def listen(self, name: str) -> Tuple[socket.socket, int]:
        """Make the socket of this process, which waits now. Returns it with its `inode`.

        Raises:
            OSError: it cannot be made.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        umask = os.umask(0o077)
        try:
            # By the folder's descriptor, because the path of a long home is too long for AF_UNIX.
            path = "/proc/self/fd/{}/{}".format(folder, name)
            listener.bind(path + ".part")
            listener.listen(8)
            # Before anybody finds it, who could remove it.
            inode = os.lstat(path + ".part").st_ino
            # It is found only when it listens.
            os.rename(path + ".part", path + ".sock")
        except BaseException:
            listener.close()
            raise
        finally:
            os.umask(umask)
            os.close(folder)
        return listener, inode

    def inode(self, name: str) -> int:
        """Return which file the socket is; 0 if there is none."""
        try:
            return os.lstat(self.path(name, ".sock")).st_ino
        except OSError:
            return 0

    def is_waiting(self, record: WarmRecord) -> bool:
        """Whether it has imported everything."""
        return os.path.exists(self.path(record.name, ".sock"))

    def end(self, record: WarmRecord) -> None:
        """End one."""
        if is_alive(record.pid, record.started):
            try:
                os.kill(record.pid, signal.SIGKILL)
            except OSError:
                pass  # it has ended in the meantime
        self.remove(record.name)

    def remove(self, name: str) -> None:
        """Remove the files of one that has ended or is taken."""
        for suffix in _SUFFIXES:
            try:
                os.unlink(self.path(name, suffix))
            except OSError:
                pass  # it has none

    def sweep(self) -> None:
        """Remove what those have left that are gone, also in earlier lives of this machine."""
        for boot in os.listdir(self.root) if os.path.isdir(self.root) else ():
            folder = os.path.join(self.root, boot)
            # A folder of another machine is left alone while anything happens in it.
            if folder != self.folder and time.time() - os.lstat(folder).st_mtime > _OLD:
                remove_tree(folder)
        alive = {record.name for record in self.records()}
        for suffix in (*_SUFFIXES, ".new"):
            for name in set(self._names(suffix)) - alive:
                self.remove(name)

    def _names(self, suffix: str) -> List[str]:
        try:
            return [entry[: -len(suffix)] for entry in os.listdir(self.folder) if entry.endswith(suffix)]
        except OSError:
            return []


def peer_of(sock: socket.socket) -> Tuple[int, int]:
    """Return the process and the user at the other end of a socket; for one that was connected to, those that listen."""
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, _PEERCRED, struct.calcsize("3i")))
    return pid, uid
