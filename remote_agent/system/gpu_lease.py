"""Leases of GPUs. A lease is an abstract Unix socket that bears the UUID of a GPU: while any process has it open, nobody else can bind
that name.

Rule: the kernel ends a lease with the last process that has it open. No file is left, and nothing is cleaned up. A lease holds in one
network namespace. Anybody may bind any name, so what a name says counts only as far as the kernel confirms it (SO_PEERCRED).

A second socket, the tag, says which run and job has the lease. Its name has the inode of the lease, so that every user of the host
can read it in /proc/net/unix.
"""

import errno
import os
import re
import socket
import struct
import sys
import time
from typing import Dict, List, NamedTuple, Optional, Tuple

__all__ = ["Holder", "Lease", "covers_host", "hold", "holders", "is_supported", "process_name", "take", "user_of", "user_of_process"]  # fmt: skip

_LEASE = "hydra-remote-launcher/gpu/"
_TAG = "hydra-remote-launcher/lease/"
#: Connections of those who ask for the holder, and that nobody has accepted yet. The system may allow fewer.
_BACKLOG = 4096
#: An abstract name has at most this many bytes, without the NUL before it.
_LONGEST = 107
#: Tags that are looked at for one lease. Others may make some in its name.
_MOST_TAGS = 64
_UUID = re.compile(r"[A-Za-z0-9/-]{1,80}")
#: Inode of the lease, seconds since the epoch, run, attempt (empty: the job has not started yet).
_TAG_TEXT = re.compile(r"([0-9]{1,20})/([0-9]{1,12})/([A-Za-z0-9_.-]{1,60})/([0-9.]{0,20})")


class Holder(NamedTuple):
    """Who has a GPU.

    Attributes:
        inode: the socket's; another lease has another one.
        pid, uid: of the process that listens; None if that is unknown, or the process is in another PID namespace.
        run, attempt, since: of the job, and seconds since the epoch; empty and 0 if no run of ours is known to have it.
    """

    inode: int
    pid: Optional[int]
    uid: Optional[int]
    run: str
    attempt: str
    since: int


class Lease:
    """A GPU that this process has for attempts of a run; several attempts may share it."""

    def __init__(self, sock: socket.socket, run: str) -> None:
        self._sock = sock
        self._run = run
        self._tags: Dict[str, socket.socket] = {}
        self.tag("")

    def tag(self, attempt: str) -> int:
        """Say which attempt has it. Returns the descriptor of the tag.

        Raises:
            OSError: there are too many open files.
        """
        if attempt not in self._tags:
            inode = os.fstat(self._sock.fileno()).st_ino
            self._tags[attempt] = _listening("{}{}/{}/{}/{}".format(_TAG, inode, int(time.time()), self._run, attempt))
        return self._tags[attempt].fileno()

    def fileno(self) -> int:
        """Return the descriptor of the lease itself."""
        return self._sock.fileno()

    def drain(self) -> None:
        """Drop the connections of those who have asked for the holder, so that others can ask."""
        for sock in (self._sock, *self._tags.values()):
            try:
                while True:
                    sock.accept()[0].close()
            except OSError:
                continue  # there is none, or there are too many open files now

    def close(self) -> None:
        """Let it go. It goes on as long as another process has it open."""
        for sock in (self._sock, *self._tags.values()):
            sock.close()


def hold(fds: List[int]) -> None:
    """Hold leases until this process ends, with all processes that inherit the descriptors. From now on the kernel names this process."""
    for fd in fds:
        sock = socket.socket(fileno=fd)
        try:
            sock.listen(_BACKLOG)
        finally:
            sock.detach()
        os.set_inheritable(fd, True)


def is_supported() -> bool:
    """Whether the system has abstract sockets: Linux does, and it alone."""
    return sys.platform == "linux"


def covers_host() -> bool:
    """Whether leases hold on the whole host. In a container's network namespace they hold among its processes.

    The kernel shows this limit in its first network namespace alone, to everybody.
    """
    return os.path.exists("/proc/sys/net/core/netdev_max_backlog")


def take(uuid: str, run: str) -> Optional[Lease]:
    """Take a GPU for a run. Returns None if somebody has it.

    Raises:
        OSError: the system refuses, for instance because there are too many open files.
    """
    try:
        sock = _listening(_LEASE + uuid)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    try:
        return Lease(sock, run)
    except BaseException:
        sock.close()
        raise


def _listening(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind("\0" + name[:_LONGEST])
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


# -- who holds what --------------------------------------------------------------------------------------------------


def holders(known: Optional[Dict[int, Holder]] = None) -> Dict[str, Holder]:
    """Return who has which GPU, by its UUID.

    Args:
        known: holders by inode that need not be asked for again.
    """
    leases, tags = _names()
    found = {}
    for uuid, inode in leases.items():
        holder = (known or {}).get(inode)
        if holder is None or not holder.attempt:
            holder = _ask(uuid, inode, tags.get(inode, []))
        found[uuid] = holder
    return found


def _ask(uuid: str, inode: int, tags: List[Tuple[int, str, str]]) -> Holder:
    """Who has a lease. A tag counts only if it is of the same user as the lease. The last job is named, if several share it."""
    pid, uid = _peer(_LEASE + uuid)
    for since, run, attempt in sorted(tags, key=lambda tag: (bool(tag[2]), tag[0]), reverse=True)[:_MOST_TAGS]:
        if uid is not None and _peer("{}{}/{}/{}/{}".format(_TAG, inode, since, run, attempt))[1] == uid:
            return Holder(inode, pid, uid, run, attempt, since)
    return Holder(inode, pid, uid, "", "", 0)


def _names() -> Tuple[Dict[str, int], Dict[int, List[Tuple[int, str, str]]]]:
    """Return the inodes of the leases by UUID, and the tags of each inode."""
    leases: Dict[str, int] = {}
    tags: Dict[int, List[Tuple[int, str, str]]] = {}
    if not is_supported():
        return leases, tags
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
        for line in file:
            # Num, RefCount, Protocol, Flags, Type, St, Inode, Path. Connections have the name, too, and another state.
            fields = line.rstrip("\n").split(None, 7)
            if len(fields) < 8 or not fields[7].startswith("@hydra-remote-launcher/") or fields[5] != "01":
                continue
            name = fields[7][1:]
            uuid = name[len(_LEASE) :]
            if name.startswith(_LEASE) and _UUID.fullmatch(uuid):
                leases[uuid] = int(fields[6])
            tag = _TAG_TEXT.fullmatch(name[len(_TAG) :]) if name.startswith(_TAG) else None
            if tag:
                tags.setdefault(int(tag.group(1)), []).append((int(tag.group(2)), tag.group(3), tag.group(4)))
    return leases, tags


def _peer(name: str) -> Tuple[Optional[int], Optional[int]]:
    """Return the pid and the user of the process that listens on a name; None for what is unknown."""
    if sys.platform == "linux":
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            try:
                sock.connect("\0" + name)
                pid, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                return (pid or None), uid
            except OSError:
                pass  # it is gone, nobody listens, or too many have asked
    return None, None


def user_of(uid: Optional[int]) -> str:
    """Return the name of a user, or the number."""
    import pwd

    if uid is None:
        return "an unknown user"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "user {}".format(uid)


def user_of_process(pid: int) -> str:
    """Return the name of the user whose process it is. Processes of other containers are not visible."""
    try:
        return user_of(os.stat("/proc/{}".format(pid)).st_uid)
    except OSError:
        return "an unknown user"


def process_name(pid: int) -> str:
    """Return the name of a process, as the kernel has it; empty if it is not visible."""
    try:
        with open("/proc/{}/comm".format(pid), encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""
